"""What was delivered is looked for at its peer: by a query here, by storage commitment in ``request_commitment``.

An instance moves on in the transaction that learns of it: found, it is committed; not found for too long, it is sent
again; not there after that either, again and again, or found in another study, it is dead with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Any

from node.domain.delivery import Delivery, DeliveryState, DeliveryStep
from node.domain.errors import PeerUnreachable, Permanent
from node.domain.peer import Peer
from node.domain.verification import RESENDS, Wanted, next_pause
from node.ports import Clock, Verifier
from node.repositories import Transaction, UnitOfWork
from node.services.patience import Patience
from node.services.steps import Move, move_deliveries

log = logging.getLogger(__name__)

# The instances of one job are looked for together; those that are sent already wait so long for the others.
TOGETHER = timedelta(seconds=60)
_AT_ONCE = 1000


class Pause:
    """Leaves a peer alone for a while that cannot be asked, or refuses to be."""

    def __init__(self, clock: Clock, peer: Peer, patience: Patience) -> None:
        self._clock = clock
        self._peer = peer
        self._patience = patience
        self._failures = 0
        self._until = datetime.min.replace(tzinfo=UTC)

    def is_over(self) -> bool:
        """Whether the peer may be asked now."""
        return self._clock.now() >= self._until

    def end(self) -> None:
        """It has answered."""
        self._failures = 0

    def begin(self, error: PeerUnreachable | Permanent) -> datetime:
        """It could not be asked; returns until when it is left alone."""
        self._failures += 1
        wait = self._patience.pause(self._failures, error)
        self._until = self._clock.now() + wait
        log.warning("peer %s cannot verify: %s; next try in %.0f s", self._peer.name, error, wait.total_seconds())
        return self._until


class VerifyByQuery:
    """Looks for what was delivered to one peer by asking it what it holds."""

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        verifier: Verifier,
        peer: Peer,
        patience: Patience,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._verifier = verifier
        self._peer = peer
        self._patience = patience
        self._pause = Pause(clock, peer, patience)
        self._within = timedelta(seconds=peer.verify_seconds)

    def verify(self) -> int:
        """Look for what is due, over one association; returns how many instances were looked for."""
        if not self._pause.is_over():
            return 0
        with self._read() as tx:
            due = due_together(tx, self._peer, self._clock.now())
            wanted = _wanted(tx, due)
        if not due:
            return 0
        try:
            held = self._verifier.held(self._peer, wanted)
            late = self._late(due, held)
            moved = self._verifier.elsewhere(self._peer, [w for w in wanted if w.sop_instance_uid in late])
        except (PeerUnreachable, Permanent) as error:
            until = self._pause.begin(error)
            with self._write() as tx:
                put_off(tx, due, self._clock.now(), until, str(error), self._patience)
            return len(due)
        self._pause.end()
        with self._write() as tx:
            self._judge(tx, due, held, late, moved)
        return len(due)

    def _late(self, due: Sequence[Delivery], held: Set[str]) -> frozenset[str]:
        now = self._clock.now()
        missing = (d for d in due if d.sop_instance_uid not in held)
        return frozenset(d.sop_instance_uid for d in missing if _waited(d, now) >= self._within)

    def _judge(
        self,
        tx: UnitOfWork,
        due: Sequence[Delivery],
        held: Set[str],
        late: Set[str],
        moved: Mapping[str, tuple[str, str]],
    ) -> None:
        now, reason = self._clock.now(), f"not listed by the peer {self._within} after it was delivered"
        outcomes: dict[Delivery, str | None] = {}
        for delivery in still_delivered(tx, due):
            uid = delivery.sop_instance_uid
            if uid in held:
                outcomes[delivery] = None
            elif uid in moved:
                # To send it again would make a second one of it, or change nothing.
                study_uid, series_uid = moved[uid]
                where = f"the peer has it in study {study_uid}, series {series_uid}, and not where it was sent"
                move_deliveries(tx, [_given_up(delivery, now, where)])
            elif uid in late:
                outcomes[delivery] = reason
            else:
                self._look_again(tx, delivery, now)
        settle(tx, outcomes, now, self._patience)

    def _look_again(self, tx: UnitOfWork, delivery: Delivery, now: datetime) -> None:
        waited = _waited(delivery, now)
        pause = next_pause(waited, base=self._patience.retry, cap=self._patience.retry_max)
        pause = max(min(pause, self._within - waited), timedelta(0))
        tx.deliveries.look_again([delivery], verify_at=now + pause, reason="the peer does not list it yet")


def _waited(delivery: Delivery, now: datetime) -> timedelta:
    return now - (delivery.delivered_at or now)


def due_together(tx: UnitOfWork, peer: Peer, now: datetime, *, lock: bool = False) -> list[Delivery]:
    """What is due to be looked for, without the jobs of which more is about to be sent."""
    due = tx.deliveries.to_verify(peer.name, now, limit=_AT_ONCE, lock=lock)
    unsent = tx.deliveries.unsent_jobs(peer.name, {d.job_id for d in due}) if due else set()
    late = {d.job_id for d in due if _waited(d, now) >= TOGETHER}
    return [d for d in due if d.job_id not in unsent or d.job_id in late]


def _wanted(tx: UnitOfWork, due: Sequence[Delivery]) -> list[Wanted]:
    kept = tx.instances.known(d.sop_instance_uid for d in due)
    return [
        Wanted(
            d.study_uid, kept[d.sop_instance_uid].series_uid if d.sop_instance_uid in kept else "", d.sop_instance_uid
        )
        for d in due
    ]


def still_delivered(tx: UnitOfWork, due: Sequence[Delivery]) -> list[Delivery]:
    """Those of some that nobody has moved meanwhile, and that nobody moves before this transaction ends."""
    attempts = {d.id: d.attempt for d in due}
    return [
        d for d in tx.deliveries.held(attempts) if d.state is DeliveryState.DELIVERED and d.attempt == attempts[d.id]
    ]


def settle(tx: UnitOfWork, outcomes: Mapping[Delivery, str | None], now: datetime, patience: Patience) -> None:
    """Move what is known of: the peer has it (None), or lacks it for a reason; then it goes out again, or is dead."""
    move_deliveries(tx, [_outcome(delivery, reason, now, patience) for delivery, reason in outcomes.items()])


def _outcome(delivery: Delivery, reason: str | None, now: datetime, patience: Patience) -> Move:
    if reason is None:
        said = f"the peer answered {delivery.status:04X}" if delivery.status else None
        return Move(delivery, DeliveryStep.COMMIT, now, {"verify_at": None, "reason": said})
    if delivery.missing >= RESENDS:
        return _given_up(delivery, now, f"gave up after it was sent {delivery.missing + 1} times: {reason}")
    log.warning("peer %s: delivery %d is sent again: %s", delivery.peer, delivery.id, reason)
    missing = delivery.missing + 1
    changes: dict[str, Any] = {
        "reason": reason,
        "missing": missing,
        "created_at": now,  # the time after which a delivery is given up runs from here
        "not_before": now + patience.pause(missing),
        "verify_at": None,
        "delivered_at": None,
        "transaction_uid": None,
    }
    return Move(delivery, DeliveryStep.MISSING, now, changes)


def put_off(
    tx: UnitOfWork, due: Sequence[Delivery], now: datetime, until: datetime, reason: str, patience: Patience
) -> None:
    """The peer cannot be asked about some; those of which that is so for too long are given up."""
    still = still_delivered(tx, due)
    tx.deliveries.look_again(still, verify_at=until, reason=reason)
    reason = f"never verified within {patience.give_up}: {reason}"
    move_deliveries(tx, [_given_up(d, now, reason) for d in still if _waited(d, now) >= patience.give_up])


def _given_up(delivery: Delivery, now: datetime, reason: str) -> Move:
    log.error("peer %s: delivery %d is dead: %s", delivery.peer, delivery.id, reason)
    return Move(delivery, DeliveryStep.GIVE_UP, now, {"reason": reason, "verify_at": None})
