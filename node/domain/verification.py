"""Whether a peer has what it answered with success: what is asked, what it says, and how long that is waited for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from node.domain.commitment import FailureReason, Reference
from node.domain.errors import Rejected

# So often an instance that was delivered and is not there is sent again.
RESENDS: Final = 3
# A request for storage commitment that brought no report is repeated this often before the instances are sent again.
REQUESTS: Final = 2

# FailureReason (0008,1197) in words, PS3.3 C.14.1.1.
_MEANING: Final[Mapping[int, str]] = {
    FailureReason.PROCESSING_FAILURE: "processing failure",
    FailureReason.NO_SUCH_INSTANCE: "no such object instance",
    FailureReason.CLASS_INSTANCE_CONFLICT: "class/instance conflict",
    FailureReason.DUPLICATE_TRANSACTION_UID: "duplicate transaction UID",
    0x0122: "referenced SOP class not supported",
    0x0213: "resource limitation",
}


@dataclass(frozen=True)
class Wanted:
    """An instance to look for at a peer, with the unique keys of the levels above it (PS3.4 C.6.2.1)."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class AskedCommitment:
    """A storage commitment that we ask a peer for (PS3.4 annex J); durable before it is sent.

    ``peer`` is our name for it. ``instances`` are ids of deliveries, each with the attempt that is asked about: what
    was sent again since then is another one's. ``number`` counts the requests for the same attempts that the peer
    accepted, this one too. ``accepted_at``: when the peer answered the request with success; ``reported_at``: when its
    report came.
    """

    transaction_uid: str
    peer: str
    study_uid: str
    instances: Mapping[int, int]
    number: int
    asked_at: datetime
    accepted_at: datetime | None = None
    reported_at: datetime | None = None


@dataclass(frozen=True)
class CommitmentReport:
    """What a peer says of one transaction (PS3.4 table J.3-2): FailureReasons by what is not committed to."""

    transaction_uid: str
    committed: frozenset[Reference]
    failed: Mapping[Reference, int]


def failure_in_words(reason: int) -> str:
    """A FailureReason, for instance ``0112, no such object instance``."""
    return f"{reason:04X}, {_MEANING.get(reason, 'a reason that the standard does not name')}"


def next_pause(waited: timedelta, *, base: timedelta, cap: timedelta) -> timedelta:
    """How long to leave a peer alone that has not got it yet: the longer, the longer ago it was delivered."""
    return min(max(waited, base), cap)


def held(wanted: Sequence[Wanted], listed: Callable[..., Mapping[str, tuple[str, str]]]) -> set[str]:
    """The SOPInstanceUIDs of what is listed in its study and series.

    One question lists the instances of a series. Those that it does not name are asked for one by one, because a peer
    may list no more than so many (PS3.18 8.3.4.4 says so of QIDO-RS).

    Args:
        listed: asks for the instances of (study, series), or for one of them; StudyInstanceUID and SeriesInstanceUID
            of each that is named, by SOPInstanceUID.
    """
    found: set[str] = set()
    for place, of in groupby(sorted(wanted, key=_place), key=_place):
        uids = {each.sop_instance_uid for each in of}
        named = listed(*place) if len(uids) > 1 else {}
        found |= {uid for uid in uids if _is_there(place, named.get(uid))}
        found |= {uid for uid in uids - found if _is_there(place, listed(*place, uid).get(uid))}
    return found


def elsewhere(
    wanted: Sequence[Wanted], listed: Callable[[str], Mapping[str, tuple[str, str]]]
) -> dict[str, tuple[str, str]]:
    """Study and series, by SOPInstanceUID, of what is listed, and not where it was sent.

    Args:
        listed: as for ``held``, for one SOPInstanceUID, wherever it is; raises ``Rejected`` where that is no question
            to the peer.
    """
    found: dict[str, tuple[str, str]] = {}
    for each in wanted:
        try:
            place = listed(each.sop_instance_uid).get(each.sop_instance_uid)
        except Rejected:
            break
        if place and all(place) and not _is_there(_place(each), place):
            found[each.sop_instance_uid] = place
    return found


def _place(wanted: Wanted) -> tuple[str, str]:
    return wanted.study_uid, wanted.series_uid


def _is_there(wanted: tuple[str, str], place: tuple[str, str] | None) -> bool:
    """Without a SeriesInstanceUID any series will do."""
    return place is not None and place[0] == wanted[0] and wanted[1] in ("", place[1])
