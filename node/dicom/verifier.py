"""Whether a peer holds what it was sent: C-FIND at IMAGE level in the Study Root model (PS3.4 annex C)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from node.dicom.query import Find, finding, listed
from node.dicom.tls import Certificates
from node.domain.peer import Peer
from node.domain.verification import Wanted


class QueryVerifier:
    """Implements ``node.ports.Verifier``.

    One query lists the instances of a series. Those that it does not name are asked for one by one, because an archive
    may list no more than so many.

    Args:
        ae_title: ours, the calling one.
        tls: for peers that are called by TLS.
    """

    def __init__(self, ae_title: str, tls: Certificates | None = None) -> None:
        self._ae_title = ae_title
        self._tls = tls

    def held(self, peer: Peer, wanted: Sequence[Wanted]) -> set[str]:
        """As ``Verifier``; over one association."""
        series: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for each in wanted:
            series[each.study_uid, each.series_uid].add(each.sop_instance_uid)
        with finding(peer, self._ae_title, self._tls) as find:
            return {uid for (study, of), uids in series.items() for uid in _held(find, study, of, uids)}


def _held(find: Find, study_uid: str, series_uid: str, wanted: set[str]) -> set[str]:
    held = wanted & listed(find, study_uid, series_uid) if len(wanted) > 1 else set()
    return held | {uid for uid in wanted - held if uid in listed(find, study_uid, series_uid, uid)}
