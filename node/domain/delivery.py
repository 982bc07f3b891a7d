"""One instance owed to one peer: the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from node.domain.priority import Priority


class DeliveryState(StrEnum):
    """Where a delivery stands. ``DELIVERED`` is the peer's word, ``COMMITTED`` was verified.

    ``WITHDRAWN`` was not sent, because patient or order were corrected before; a later revision has its own.
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
    WITHDRAW = "withdraw"  # it names the wrong patient or order, and nothing of its set has been sent
    MISSING = "missing"  # delivered, and the peer does not have it
    GIVE_UP = "give up"  # delivered again and again, and never verified


DELIVERY: Mapping[DeliveryState, Mapping[DeliveryStep, DeliveryState]] = {
    DeliveryState.PENDING: {
        DeliveryStep.CLAIM: DeliveryState.SENDING,
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
    DeliveryState.DEAD: {DeliveryStep.REQUEUE: DeliveryState.PENDING},
    DeliveryState.WITHDRAWN: {},
}


@dataclass(frozen=True)
class Delivery:
    """One row of the outbox.

    ``position`` orders the instances of one job: what others refer to goes first, the SR last. ``status`` is the
    peer's last C-STORE status, None before the first answer. ``closes``: the one that ties the others of its job
    together and goes after them, the SR. ``verify_at`` is when a delivered one is looked for (again), None where the
    peer's word is enough; ``transaction_uid`` is the storage commitment that was asked for it, ``missing`` is how often
    it was found not to be there.
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


class Verdict(StrEnum):
    """What a C-STORE status means for a delivery."""

    ACK = "ack"
    RETRY = "retry"
    REJECT = "reject"


def verdict(status: int) -> Verdict:
    """Read a C-STORE response status (PS3.4 B.2.3, PS3.7 annex C).

    Success and the warnings B000, B006 and B007 mean that the peer keeps the object; 0111 (duplicate SOP instance)
    means that it has it already. Out of resources (A7xx), processing failure (0110), resource limitation (0213) and
    not authorised (0124, often a peer that is being configured) may pass. Everything else will not.
    """
    if status in (0x0000, 0xB000, 0xB006, 0xB007, 0x0111):
        return Verdict.ACK
    if 0xA700 <= status <= 0xA7FF or status in (0x0110, 0x0124, 0x0213):
        return Verdict.RETRY
    return Verdict.REJECT


def backoff(attempt: int, *, base: timedelta, cap: timedelta) -> timedelta:
    """Exponential backoff: ``base`` after the first attempt, doubled after each further one, at most ``cap``."""
    doublings: int = min(max(attempt - 1, 0), 20)
    return min(cap, base * (1 << doublings))
