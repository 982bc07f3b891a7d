"""One instance owed to one peer: the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from node.domain.priority import Priority


class DeliveryState(StrEnum):
    """Where a delivery stands. ``DELIVERED`` is the peer's word, ``COMMITTED`` was verified.

    ``WITHDRAWN`` was not sent: patient or order were corrected before, and a later revision has its own; or a person
    has dismissed it.
    """

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    COMMITTED = "committed"
    DEAD = "dead"
    WITHDRAWN = "withdrawn"


class DeliveryStep(StrEnum):
    """What can happen to a delivery."""

    CLAIM = "claim"
    ACK = "ack"
    COMMIT = "commit"
    RETRY = "retry"
    LEASE_EXPIRED = "lease expired"
    REJECT = "reject"
    REQUEUE = "requeue"
    DISMISS = "dismiss"  # a person has looked at it, and nothing more is to be done
    WITHDRAW = "withdraw"  # it names the wrong patient or order, and nothing of its set has been sent
    MISSING = "missing"  # delivered, and the peer does not have it
    GIVE_UP = "give up"  # owed for too long, or delivered again and again and never verified


DELIVERY: Mapping[DeliveryState, Mapping[DeliveryStep, DeliveryState]] = {
    DeliveryState.PENDING: {
        DeliveryStep.CLAIM: DeliveryState.SENDING,
        DeliveryStep.GIVE_UP: DeliveryState.DEAD,
        DeliveryStep.WITHDRAW: DeliveryState.WITHDRAWN,
    },
    DeliveryState.SENDING: {
        DeliveryStep.ACK: DeliveryState.DELIVERED,
        DeliveryStep.RETRY: DeliveryState.PENDING,
        DeliveryStep.LEASE_EXPIRED: DeliveryState.PENDING,
        DeliveryStep.REJECT: DeliveryState.DEAD,
    },
    DeliveryState.DELIVERED: {
        DeliveryStep.COMMIT: DeliveryState.COMMITTED,
        DeliveryStep.MISSING: DeliveryState.PENDING,
        DeliveryStep.GIVE_UP: DeliveryState.DEAD,
    },
    DeliveryState.COMMITTED: {},
    DeliveryState.DEAD: {
        DeliveryStep.REQUEUE: DeliveryState.PENDING,
        DeliveryStep.DISMISS: DeliveryState.WITHDRAWN,
    },
    DeliveryState.WITHDRAWN: {},
}


@dataclass(frozen=True)
class Delivery:
    """One row of the outbox.

    ``position`` orders the instances of one job: what others refer to goes first, the SR last. ``attempt`` counts how
    often it was sent, or its sender died with it. ``status`` is the peer's last C-STORE status, None before the first
    answer; ``refusals`` is how often it was one that seldom passes. ``closes``: it ties the others of its job together
    and goes after them, the SR; ``rejects``: it withdraws earlier results, and goes only when all others of its job are
    there, the SR too. ``verify_at`` is when a delivered one is looked for (again), None where the peer's word is
    enough; ``transaction_uid`` is the storage commitment that was asked for it, ``missing`` is how often it was found
    not to be there.
    """

    id: int
    job_id: str
    study_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    peer: str
    state: DeliveryState
    attempt: int
    position: int
    created_at: datetime
    not_before: datetime
    owner: str | None = None
    lease_until: datetime | None = None
    delivered_at: datetime | None = None
    status: int | None = None
    reason: str | None = None
    priority: Priority = Priority.ROUTINE
    closes: bool = False
    verify_at: datetime | None = None
    transaction_uid: str | None = None
    missing: int = 0
    refusals: int = 0
    rejects: bool = False


def backoff(attempt: int, *, base: timedelta, cap: timedelta) -> timedelta:
    """Exponential backoff: ``base`` after the first attempt, doubled after each further one, at most ``cap``."""
    doublings: int = min(max(attempt - 1, 0), 20)
    return min(cap, base * (1 << doublings))


def jittered(wait: timedelta, drawn: float) -> timedelta:
    """``wait`` made shorter or longer by up to a quarter, so that what failed together is not tried again together.

    Args:
        drawn: a random number, at least 0 and less than 1; 0.5 changes nothing.
    """
    return wait * (0.75 + drawn / 2)
