"""A storage commitment that a peer asks for (PS3.4 annex J): what it named, what became of it, the report that is owed.

The reasons of failures are those of FailureReason (0008,1197), PS3.3 C.14.1.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum


class CommitmentState(StrEnum):
    """Where a commitment stands."""

    ASKED = "asked"  # answered with success, not judged yet
    OWED = "owed"  # judged, the peer has to be told
    REPORTING = "reporting"
    REPORTED = "reported"
    DEAD = "dead"


class CommitmentStep(StrEnum):
    """What can happen to a commitment."""

    JUDGE = "judge"
    CLAIM = "claim"
    ACK = "ack"
    RETRY = "retry"
    LEASE_EXPIRED = "lease expired"
    GIVE_UP = "give up"
    ASK_AGAIN = "ask again"  # the peer repeats its request, as it does where it missed our answer or our report


COMMITMENT: Mapping[CommitmentState, Mapping[CommitmentStep, CommitmentState]] = {
    CommitmentState.ASKED: {CommitmentStep.JUDGE: CommitmentState.OWED},
    CommitmentState.OWED: {
        CommitmentStep.CLAIM: CommitmentState.REPORTING,
        CommitmentStep.GIVE_UP: CommitmentState.DEAD,
    },
    CommitmentState.REPORTING: {
        CommitmentStep.ACK: CommitmentState.REPORTED,
        CommitmentStep.RETRY: CommitmentState.OWED,
        CommitmentStep.LEASE_EXPIRED: CommitmentState.OWED,
    },
    CommitmentState.REPORTED: {CommitmentStep.ASK_AGAIN: CommitmentState.ASKED},
    CommitmentState.DEAD: {CommitmentStep.ASK_AGAIN: CommitmentState.ASKED},
}


class FailureReason(IntEnum):
    """Why an instance is not committed to."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION_UID = 0x0131


@dataclass(frozen=True, order=True)
class Reference:
    """An instance as a peer names it: ReferencedSOPClassUID and ReferencedSOPInstanceUID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Commitment:
    """One request of a peer.

    ``peer`` is the calling AE title. ``due_at`` is when a judgement may fail what has no row yet, then when the report
    may be tried (again). ``failures`` are FailureReasons by SOPInstanceUID; what is not among them, once it has been
    judged, is committed to.
    """

    id: int
    transaction_uid: str
    peer: str
    references: tuple[Reference, ...]
    state: CommitmentState
    asked_at: datetime
    due_at: datetime
    failures: Mapping[str, int] = field(default_factory=dict)
    attempt: int = 0
    owner: str | None = None
    lease_until: datetime | None = None
    reason: str | None = None

    @property
    def committed(self) -> tuple[Reference, ...]:
        """What we are responsible for, once it has been judged."""
        return tuple(r for r in self.references if r.sop_instance_uid not in self.failures)

    @property
    def failed(self) -> tuple[tuple[Reference, int], ...]:
        """What we are not, each with its FailureReason."""
        return tuple(
            (r, self.failures[r.sop_instance_uid]) for r in self.references if r.sop_instance_uid in self.failures
        )
