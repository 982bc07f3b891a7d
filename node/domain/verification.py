"""Whether a peer has what it answered with success: what is asked, what it says, and how long that is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from node.domain.commitment import FailureReason, Reference

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
