"""What goes to one peer over one association: who is next, what was answered, and what becomes of the rest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from node.domain.delivery import Delivery, DeliveryStep
from node.domain.errors import LostLease, PeerDeclines, PeerUnreachable
from node.domain.peer import Peer, Verify
from node.domain.status import FEW, Verdict, in_words, meaning
from node.ports import Clock
from node.repositories import Transaction
from node.services.breaker import Breaker
from node.services.patience import Patience
from node.services.steps import Move, move_deliveries

log = logging.getLogger(__name__)

_FREE: Final[dict[str, Any]] = {"owner": None, "lease_until": None}
# Answers are written together, so often.
_WRITTEN_WITHIN = timedelta(seconds=0.25)
# So often it is looked for something more urgent.
_LOOK = timedelta(seconds=2)


class Breaks:
    """On which objects a peer breaks off though it takes others, which is not so of one that is down.

    A hint in memory; how often it was so is in the row. The first break of each after a start of the node is not
    counted.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._before: dict[int, int] = {}

    def answered(self, delivery_id: int, *, taken: bool) -> None:
        """The peer answered one; ``taken``: it keeps it."""
        self._before.pop(delivery_id, None)
        self._taken += taken

    def again(self, delivery_id: int) -> bool:
        """It broke off on this one: whether it did so before, and has taken others since."""
        taken, before = self._taken, self._before.get(delivery_id)
        self._before[delivery_id] = taken
        return before is not None and taken > before


@dataclass(frozen=True)
class Outbox:
    """What the couriers of one peer share; ``lease`` is for how long a delivery is taken at a time.

    ``write_unsynced`` is for claims, and for answers while more are to come: what a power cut loses of them is sent
    again as the same bytes, and waiting for the disk would hold up whoever else writes to it.
    """

    write: Transaction
    write_unsynced: Transaction
    read: Transaction
    clock: Clock
    peer: Peer
    breaker: Breaker
    patience: Patience
    lease: timedelta
    breaks: Breaks = field(default_factory=Breaks)


class Batch:
    """Deliveries that one courier has claimed, in sending order. ``answers`` counts what the peer said."""

    def __init__(self, outbox: Outbox, claimed: Sequence[Delivery]) -> None:
        self.answers = 0
        self._outbox = outbox
        self._open = dict(enumerate(claimed))
        self._unwritten: list[tuple[Delivery, int, str, datetime]] = []
        self._in_vain: set[str] = set()  # jobs of which an instance has to be sent again
        self._lacking: set[str] = set()  # and those of which one was not taken
        self._sent: int | None = None
        now = outbox.clock.now()
        self._written_at = self._looked_at = now
        self._keep_at = now + outbox.lease / 2
        self._is_overtaken = False
        self._writer = ThreadPoolExecutor(1, "answers")
        self._writing: Future[None] | None = None

    def wanted(self, index: int) -> bool:
        """Whether it is its turn: what closes a job waits for all others of it, and all for what is more urgent."""
        delivery = self._open[index]
        if self._is_ahead(delivery) or self._is_late(delivery):
            return False
        self._sent = index
        return True

    def _is_ahead(self, delivery: Delivery) -> bool:
        """Whether others of its job go first: for what closes it, all before; what rejects needs them to be taken."""
        if not delivery.closes:
            return False
        job, place = delivery.job_id, (delivery.closes, delivery.position)
        unanswered = any(d.job_id == job and (d.closes, d.position) < place for d in self._open.values())
        return unanswered or job in self._in_vain or (delivery.rejects and job in self._lacking)

    def _is_late(self, delivery: Delivery) -> bool:
        now = self._outbox.clock.now()
        if not self._is_overtaken and now - self._looked_at >= _LOOK:
            self._looked_at = now
            with self._outbox.read() as tx:
                self._is_overtaken = tx.deliveries.is_due_above(self._outbox.peer.name, delivery.priority, now)
        return self._is_overtaken

    def answered(self, index: int, status: int, comment: str) -> None:
        """Take one answer; it is written soon."""
        delivery, now = self._open.pop(index), self._outbox.clock.now()
        self._sent = None
        self.answers += 1
        self._outbox.breaker.answered()
        if (verdict := meaning(status).verdict) is not Verdict.ACK:
            self._lacking.add(delivery.job_id)
        if verdict is Verdict.RETRY:
            self._in_vain.add(delivery.job_id)
        self._outbox.breaks.answered(delivery.id, taken=verdict is Verdict.ACK)
        self._unwritten.append((delivery, status, comment, now))
        if now - self._written_at >= _WRITTEN_WITHIN:
            self._write_soon(now)
        self.beat()

    def beat(self) -> None:
        """Keep the leases of what has not been answered yet."""
        now, lease = self._outbox.clock.now(), self._outbox.lease
        if now < self._keep_at:
            return
        self._keep_at = now + lease / 2
        with self._outbox.write() as tx:
            tx.deliveries.heartbeat(list(self._open.values()), now=now, lease=lease)
        self._open.update({i: replace(d, lease_until=now + lease) for i, d in self._open.items()})

    def close(self, ended: PeerUnreachable | None) -> None:
        """The association is over; ``ended`` is why, where it ended early.

        What was in flight then waits on its own, so that an object on which the peer chokes does not hold up others.
        """
        with self._writer:
            if self._writing is not None:
                self._writing.result()
        now, back = self._outbox.clock.now(), [self._said(*answer) for answer in self._unwritten]
        for index, delivery in self._open.items():
            if ended is not None and index == self._sent:
                back.append(self._broke_off(delivery, ended, now))
            else:
                # It was not sent at all, which is no attempt.
                why = delivery.reason if ended is None else str(ended)
                changes = {"reason": why, "attempt": delivery.attempt - 1, **_FREE}
                back.append(Move(delivery, DeliveryStep.RETRY, now, changes))
        self._open.clear()
        self._unwritten.clear()
        self._take(back, self._outbox.write)

    def _write_soon(self, now: datetime) -> None:
        """On a thread beside the one that sends: others may be writing for longer than an object takes.

        The latest answer stays for ``close``, whose transaction makes all of these durable.
        """
        if self._writing is not None:
            if not self._writing.done():
                return
            self._writing.result()
        self._written_at = now
        unwritten, self._unwritten = self._unwritten[:-1], self._unwritten[-1:]
        moves = [self._said(*answer) for answer in unwritten]
        self._writing = self._writer.submit(self._take, moves, self._outbox.write_unsynced)

    def _take(self, moves: list[Move], write: Transaction) -> None:
        """All in one transaction; where somebody else has one of the deliveries by now, each in its own."""
        if not moves:
            return
        try:
            with write() as tx:
                move_deliveries(tx, moves)
        except LostLease as error:
            if len(moves) == 1:
                log.warning("peer %s: %s", self._outbox.peer.name, error)
                return
            for move in moves:
                self._take([move], write)

    def _said(self, delivery: Delivery, status: int, comment: str, at: datetime) -> Move:
        """What an answer means for its delivery: the step that the table of statuses says."""
        found, said, peer = meaning(status), f"the peer answered {in_words(status, comment)}", self._outbox.peer
        refusals = delivery.refusals + (found.tries is not None)
        changes: dict[str, Any] = {"reason": said if status else None, "status": status, "refusals": refusals, **_FREE}
        if found.verdict is Verdict.ACK:
            changes |= {"delivered_at": at, "verify_at": None if peer.verify is Verify.NONE else at}
            return Move(delivery, DeliveryStep.ACK, at, changes)
        if found.verdict is Verdict.RETRY and (found.tries is None or refusals < found.tries):
            return self._again(delivery, said, at, changes)
        if found.tries is not None:
            changes["reason"] = f"{said}, {refusals} times"
        return self._dead(delivery, at, changes)

    def _broke_off(self, delivery: Delivery, ended: PeerUnreachable, at: datetime) -> Move:
        """It was in flight. Where the peer takes others, and breaks off on this one again and again, it is dead."""
        if isinstance(ended, PeerDeclines) or not self._outbox.breaks.again(delivery.id):
            return self._again(delivery, str(ended), at)
        refusals = delivery.refusals + 1
        if refusals < FEW:
            return self._again(delivery, str(ended), at, {"refusals": refusals})
        changes = {"reason": f"{ended}, {refusals} times, while it took others", "refusals": refusals, **_FREE}
        return self._dead(delivery, at, changes)

    def _dead(self, delivery: Delivery, at: datetime, changes: Mapping[str, Any]) -> Move:
        log.error("peer %s: delivery %d is dead: %s", self._outbox.peer.name, delivery.id, changes["reason"])
        return Move(delivery, DeliveryStep.REJECT, at, changes)

    def _again(
        self, delivery: Delivery, reason: str, at: datetime, changes: Mapping[str, Any] = MappingProxyType({})
    ) -> Move:
        """It was sent in vain, and is sent again after a pause of its own."""
        not_before = at + self._outbox.patience.pause(delivery.attempt)
        return Move(delivery, DeliveryStep.RETRY, at, {**changes, "reason": reason, "not_before": not_before, **_FREE})
