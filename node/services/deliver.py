"""A courier: claims what is due for one peer and sends it over one association."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from node.domain.delivery import Delivery, DeliveryStep
from node.domain.errors import LostLease, PeerUnreachable
from node.ports import InstanceFiles, Sender
from node.services.outbox import Batch, Outbox
from node.services.steps import move_delivery

log = logging.getLogger(__name__)

_GIVE_UP_LOOK = timedelta(seconds=60)
_NEVER = datetime.min.replace(tzinfo=UTC)


class Deliver:
    """Delivers to one peer, one batch at a time. A peer has a courier for each association that it may have at once,
    each on its own thread, so that a slow or dead peer delays nobody else.

    Args:
        outbox: shared by the couriers of the peer.
        owner: this process, as it is written into leases.
        batch: how many instances go over one association.
    """

    def __init__(self, outbox: Outbox, files: InstanceFiles, sender: Sender, *, owner: str, batch: int = 500) -> None:
        self._outbox = outbox
        self._files = files
        self._sender = sender
        self._owner = owner
        self._batch = batch
        self._rest_until = self._gave_up_at = _NEVER
        self._failures = 0

    def deliver(self) -> int:
        """Send one batch; returns how many deliveries were claimed.

        While the peer is down nothing is claimed, so that an outage of days leaves no heap of attempts behind.
        """
        now = self._outbox.clock.now()
        if now - self._gave_up_at >= _GIVE_UP_LOOK:
            self._gave_up_at = now
            self._give_up(now)
        if now < self._rest_until:
            return 0
        with self._outbox.breaker.entered(self._batch) as limit:
            if not limit:
                return 0
            claimed = self._claim(now, limit)
            if claimed:
                self._send(claimed)
        return len(claimed)

    def _claim(self, now: datetime, limit: int) -> list[Delivery]:
        outbox = self._outbox
        with outbox.write_unsynced() as tx:
            return tx.deliveries.claim(
                peer=outbox.peer.name,
                owner=self._owner,
                now=now,
                lease=outbox.lease,
                limit=limit,
                trial=limit == 1,
            )

    def _send(self, claimed: Sequence[Delivery]) -> None:
        outbox = self._outbox
        batch = Batch(outbox, claimed)
        ended: PeerUnreachable | None = PeerUnreachable("the association ended before this instance was answered")
        try:
            self._sender.send(
                outbox.peer,
                [self._files.absolute(d.path) for d in claimed],
                batch.answered,
                wanted=batch.wanted,
                beat=batch.beat,
            )
            ended = None
            self._failures = 0
        except PeerUnreachable as error:
            ended = error
            if batch.answers or not outbox.breaker.failed(error):
                self._rest(error)
        finally:
            batch.close(ended)

    def _rest(self, error: PeerUnreachable) -> None:
        """The peer answers others, or answered before it broke off: only this courier pauses."""
        self._failures += 1
        wait = self._outbox.patience.pause(self._failures, error)
        self._rest_until = self._outbox.clock.now() + wait
        log.warning("peer %s: %s; again in %.0f s", self._outbox.peer.name, error, wait.total_seconds())

    def _give_up(self, now: datetime) -> None:
        """What was owed for too long goes dead, tried or not."""
        outbox = self._outbox
        peer, limit = outbox.peer.name, outbox.patience.give_up
        with outbox.read() as tx:
            overdue = tx.deliveries.overdue(peer, now - limit)
            circuit = tx.circuits.all().get(peer)
        down = circuit.reason if circuit is not None else None
        for delivery in overdue:
            reason = f"gave up after {limit}: {delivery.reason or down or 'it was never its turn'}"
            log.error("peer %s: delivery %d is dead: %s", peer, delivery.id, reason)
            try:
                with outbox.write() as tx:
                    move_delivery(tx, delivery, DeliveryStep.GIVE_UP, now, reason=reason)
            except LostLease:
                continue  # another courier has it
