"""Whether a peer holds what it was sent: QIDO-RS, search for instances of a series (PS3.18 section 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

from node.domain.errors import PeerDeclines, Rejected
from node.domain.peer import Peer
from node.domain.verification import Wanted, elsewhere, held

_SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID = "00080018", "0020000D", "0020000E"
_NOT_FOUND, _NO_CONTENT, _SERVER_ERROR = 404, 204, 500
_PASSING = (408, 425, 429)  # of the client errors, those that another try may mend


class Answer(Protocol):
    """An HTTP answer; ``body`` is what its JSON says, None where it is none."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> Any: ...
    @property
    def retry_after(self) -> timedelta | None: ...


class Web(Protocol):
    """A connection to the DICOMweb service of a peer."""

    def get(self, path: str) -> Answer:
        """Ask for a path below the service's URL. Raises ``PeerUnreachable``."""
        ...


class QidoVerifier:
    """Implements ``node.ports.Verifier`` for peers with DICOMweb.

    Args:
        connect: opens a connection to the service of a peer; raises ``PeerUnreachable``.
    """

    def __init__(self, connect: Callable[[Peer], AbstractContextManager[Web]]) -> None:
        self._connect = connect

    def held(self, peer: Peer, wanted: Sequence[Wanted]) -> set[str]:
        """As ``Verifier``; over one connection."""
        with self._connect(peer) as web:
            return held(wanted, partial(_listed, peer, web))

    def elsewhere(self, peer: Peer, wanted: Sequence[Wanted]) -> dict[str, tuple[str, str]]:
        """As ``Verifier``, by a search for all instances, which not every server offers."""
        with self._connect(peer) as web:
            return elsewhere(wanted, partial(_listed, peer, web, "", ""))


def _listed(
    peer: Peer, web: Web, study_uid: str, series_uid: str, sop_instance_uid: str = ""
) -> dict[str, tuple[str, str]]:
    """As ``node.dicom.query.listed``."""
    path = (f"/studies/{study_uid}" if study_uid else "") + (f"/series/{series_uid}" if series_uid else "")
    keys = f"?SOPInstanceUID={sop_instance_uid}" if sop_instance_uid else ""
    return {
        uid: (_uid(match, _STUDY_INSTANCE_UID) or study_uid, _uid(match, _SERIES_INSTANCE_UID) or series_uid)
        for match in _searched(peer, web, f"{path}/instances{keys}")
        if (uid := _uid(match, _SOP_INSTANCE_UID))
    }


def _uid(match: Any, tag: str) -> str:
    values = match.get(tag, {}).get("Value")
    return str(values[0]) if values else ""


def _searched(peer: Peer, web: Web, path: str) -> list[Any]:
    answer = web.get(path)
    if answer.status in (_NOT_FOUND, _NO_CONTENT):  # by the first some servers tell that they do not know the study
        return []
    if answer.status >= _SERVER_ERROR or answer.status in _PASSING:
        raise PeerDeclines(f"{peer.name} answered the search with {answer.status}", answer.retry_after)
    if answer.status != 200:
        raise Rejected(f"{peer.name} answered the search with {answer.status}: see that it permits us to search")
    if not isinstance(answer.body, list):
        raise Rejected(f"{peer.name} answered the search with what is no list in DICOM JSON")
    return answer.body
