"""Whether a peer holds what it was sent: QIDO-RS, search for instances of a series (PS3.18 section 10.6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from node.domain.errors import PeerUnreachable, Rejected
from node.domain.peer import Peer
from node.domain.verification import Wanted

_SOP_INSTANCE_UID = "00080018"
_NOT_FOUND, _NO_CONTENT, _SERVER_ERROR = 404, 204, 500
_PASSING = (408, 425, 429)  # of the client errors, those that another try may mend


class Answer(Protocol):
    """An HTTP answer; ``body`` is what its JSON says, None where it is none."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> Any: ...


class Web(Protocol):
    """A connection to the DICOMweb service of a peer."""

    def get(self, path: str) -> Answer:
        """Ask for a path below the service's URL. Raises ``PeerUnreachable``."""
        ...


class QidoVerifier:
    """Implements ``node.ports.Verifier`` for peers with DICOMweb.

    As with C-FIND one search lists the instances of a series, and those that it does not name are searched for one by
    one, because a server may list no more than so many (PS3.18 8.3.4.4).

    Args:
        connect: opens a connection to the service of a peer; raises ``PeerUnreachable``.
    """

    def __init__(self, connect: Callable[[Peer], AbstractContextManager[Web]]) -> None:
        self._connect = connect

    def held(self, peer: Peer, wanted: Sequence[Wanted]) -> set[str]:
        """As ``Verifier``; over one connection."""
        series: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for each in wanted:
            series[each.study_uid, each.series_uid].add(each.sop_instance_uid)
        with self._connect(peer) as web:
            return {uid for (study, of), uids in series.items() for uid in _held(peer, web, study, of, uids)}


def _held(peer: Peer, web: Web, study_uid: str, series_uid: str, wanted: set[str]) -> set[str]:
    path = f"/studies/{study_uid}" + (f"/series/{series_uid}" if series_uid else "") + "/instances"
    held = wanted & _listed(peer, web, path) if len(wanted) > 1 else set()
    return held | {uid for uid in wanted - held if uid in _listed(peer, web, f"{path}?SOPInstanceUID={uid}")}


def _listed(peer: Peer, web: Web, path: str) -> set[str]:
    answer = web.get(path)
    if answer.status in (_NOT_FOUND, _NO_CONTENT):  # by the first some servers tell that they do not know the study
        return set()
    if answer.status >= _SERVER_ERROR or answer.status in _PASSING:
        raise PeerUnreachable(f"{peer.name} answered the search with {answer.status}")
    if answer.status != 200:
        raise Rejected(f"{peer.name} answered the search with {answer.status}: see that it permits us to search")
    if not isinstance(answer.body, list):
        raise Rejected(f"{peer.name} answered the search with what is no list in DICOM JSON")
    return {str(uid) for match in answer.body for uid in match.get(_SOP_INSTANCE_UID, {}).get("Value", [])}
