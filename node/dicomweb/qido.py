"""Whether a peer holds what it was sent: QIDO-RS, search for instances of a series (PS3.18 section 10.6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import requests

from node.domain.errors import PeerUnreachable, Rejected
from node.domain.peer import Peer
from node.domain.verification import Wanted

_SOP_INSTANCE_UID = "00080018"
_NOT_FOUND, _SERVER_ERROR = 404, 500
_PASSING = (408, 425, 429)  # of the client errors, those that another try may mend


class Search(Protocol):
    """The part of dicomweb-client's ``DICOMwebClient`` that is needed here."""

    def search_for_instances(
        self,
        study_instance_uid: str | None = None,
        series_instance_uid: str | None = None,
        *,
        search_filters: dict[str, Any] | None = None,
    ) -> list[dict[str, dict[str, Any]]]: ...


class QidoVerifier:
    """Implements ``node.ports.Verifier`` for peers with DICOMweb.

    As with C-FIND one search lists the instances of a series, and those that it does not name are searched for one by
    one, because a server may list no more than so many (PS3.18 8.3.4.4).

    Args:
        client: a DICOMweb client of a peer, as one that is stored at by STOW-RS has.
    """

    def __init__(self, client: Callable[[Peer], Search]) -> None:
        self._client = client

    def held(self, peer: Peer, wanted: Sequence[Wanted]) -> set[str]:
        """As ``Verifier``."""
        series: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for each in wanted:
            series[each.study_uid, each.series_uid].add(each.sop_instance_uid)
        client, held = self._client(peer), set[str]()
        for (study_uid, series_uid), uids in series.items():
            found = uids & _listed(peer, client, study_uid, series_uid, {}) if len(uids) > 1 else set()
            for uid in uids - found:
                found |= {uid} & _listed(peer, client, study_uid, series_uid, {"SOPInstanceUID": uid})
            held |= found
        return held


def _listed(peer: Peer, client: Search, study_uid: str, series_uid: str, keys: Mapping[str, str]) -> set[str]:
    try:
        matches = client.search_for_instances(study_uid, series_uid or None, search_filters=dict(keys))
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == _NOT_FOUND:  # so do some servers tell that they do not know the study
            return set()
        if status >= _SERVER_ERROR or status in _PASSING:
            raise PeerUnreachable(f"{peer.name} answered the search with {status}") from error
        raise Rejected(f"{peer.name} answered the search with {status}: see that it permits searches") from error
    except requests.JSONDecodeError as error:
        raise Rejected(f"{peer.name} answered the search with what is no JSON") from error
    except requests.RequestException as error:
        raise PeerUnreachable(f"{peer.name}: {error}") from error
    return set(_uids(matches))


def _uids(matches: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for match in matches:
        yield from map(str, match.get(_SOP_INSTANCE_UID, {}).get("Value", []))
