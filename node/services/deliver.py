"""The outbox of one peer: claim what is due, send it over one association, keep what the peer said of each instance."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from node.domain.delivery import Delivery, DeliveryStep, Verdict, backoff, verdict
from node.domain.errors import PeerUnreachable
from node.domain.peer import Peer, Verify
from node.ports import Clock, InstanceFiles, Sender, Transaction, UnitOfWork
from node.services.steps import move_delivery

log = logging.getLogger(__name__)

_FREE: Final[dict[str, Any]] = {"owner": None, "lease_until": None}


class Deliver:
    """Delivers to one peer. Each peer has its own, on its own thread, so a dead peer delays nobody else.

    Args:
        owner: this process, as it is written into leases.
        give_up: how long after its creation a delivery that finds no peer goes dead.
        batch: how many instances go over one association.
    """

    def __init__(
        self,
        write: Transaction,
        clock: Clock,
        files: InstanceFiles,
        sender: Sender,
        peer: Peer,
        *,
        owner: str,
        lease: timedelta,
        retry: timedelta,
        retry_max: timedelta,
        give_up: timedelta,
        batch: int = 500,
    ) -> None:
        self._write = write
        self._clock = clock
        self._files = files
        self._sender = sender
        self._peer = peer
        self._owner = owner
        self._lease = lease
        self._retry = retry
        self._retry_max = retry_max
        self._give_up = give_up
        self._batch = batch
        self._proven, self._failures = False, 0
        self._pause_until = datetime.min.replace(tzinfo=UTC)

    def deliver(self) -> int:
        """Send one batch; returns how many deliveries were claimed.

        Until the peer has proved to be there one delivery alone is tried, with growing pauses while it is not; the
        others wait unclaimed, so that an outage of days leaves no heap of attempts behind.
        """
        now = self._clock.now()
        if now < self._pause_until:
            return 0
        with self._write() as tx:
            claimed = tx.deliveries.claim(
                peer=self._peer.name,
                owner=self._owner,
                now=now,
                lease=self._lease,
                limit=self._batch if self._proven else 1,
            )
        if not claimed:
            return 0
        open_ = dict(enumerate(claimed))
        reason = "the association ended before this instance was answered"
        try:
            self._sender.send(
                self._peer,
                [self._files.absolute(d.path) for d in claimed],
                lambda index, status, comment: self._answered(open_, index, status, comment),
            )
            self._proven, self._failures = True, 0
        except PeerUnreachable as error:
            reason = str(error)
            self._proven, self._failures = False, self._failures + 1
            wait = backoff(self._failures, base=self._retry, cap=self._retry_max)
            self._pause_until = self._clock.now() + wait
            log.warning("peer %s: %s; next try in %.0f s", self._peer.name, reason, wait.total_seconds())
        except OSError as error:
            reason = f"a stored result cannot be read: {error.strerror or type(error).__name__}"
            log.error("peer %s: %s", self._peer.name, reason)
        self._again(list(open_.values()), reason)
        return len(claimed)

    def _answered(self, open_: dict[int, Delivery], index: int, status: int, comment: str) -> None:
        """Write one answer at once, and keep the leases of what has not been sent yet."""
        delivery = open_.pop(index)
        now = self._clock.now()
        said = f"the peer answered {status:04X} {comment}".strip()
        match verdict(status):
            case Verdict.ACK:
                with self._write() as tx:
                    move_delivery(
                        tx,
                        delivery,
                        DeliveryStep.ACK,
                        now,
                        status=status,
                        reason=said if status else None,
                        delivered_at=now,
                        verify_at=None if self._peer.verify is Verify.NONE else now,
                        **_FREE,
                    )
            case Verdict.RETRY:
                self._again([delivery], said, status=status)
            case Verdict.REJECT:
                with self._write() as tx:
                    self._reject(tx, delivery, said, status=status)
        if any(d.lease_until and d.lease_until - now < self._lease / 2 for d in open_.values()):
            with self._write() as tx:
                tx.deliveries.heartbeat(list(open_.values()), now=now, lease=self._lease)
            open_.update({i: replace(d, lease_until=now + self._lease) for i, d in open_.items()})

    def _again(self, deliveries: list[Delivery], reason: str, *, status: int | None = None) -> None:
        """Put deliveries back, or give them up when they are too old; a peer that cannot be reached pauses as a whole,
        so only an instance that the peer itself turned down waits on its own."""
        if not deliveries:
            return
        now = self._clock.now()
        with self._write() as tx:
            for delivery in deliveries:
                if now - delivery.created_at > self._give_up:
                    self._reject(tx, delivery, f"gave up after {self._give_up}: {reason}", status=status)
                    continue
                wait = backoff(delivery.attempt, base=self._retry, cap=self._retry_max) if status else timedelta(0)
                move_delivery(
                    tx,
                    delivery,
                    DeliveryStep.RETRY,
                    now,
                    status=status,
                    reason=reason,
                    not_before=now + wait,
                    **_FREE,
                )

    def _reject(self, tx: UnitOfWork, delivery: Delivery, reason: str, *, status: int | None) -> None:
        log.error("peer %s: delivery %d is dead: %s", self._peer.name, delivery.id, reason)
        move_delivery(tx, delivery, DeliveryStep.REJECT, self._clock.now(), status=status, reason=reason, **_FREE)
