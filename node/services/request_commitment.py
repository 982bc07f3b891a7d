"""Storage commitment asked of a peer (PS3.4 annex J): a request is a row before it is sent, its report durable before
it is answered, on whatever association it comes.

``RequestCommitments`` asks, where the outbox is; ``TakeReports`` hears, wherever associations are served.
"""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from node.domain.commitment import Reference
from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import InvalidRequest, PeerUnreachable, Permanent
from node.domain.events import Event, Subject
from node.domain.peer import Peer
from node.domain.verification import REQUESTS, AskedCommitment, CommitmentReport, failure_in_words, next_pause
from node.ports import Clock, CommitmentRequester
from node.repositories import Transaction, UnitOfWork
from node.services.patience import Patience
from node.services.verify import Pause, due_together, put_off, settle, still_delivered

log = logging.getLogger(__name__)

# A request of which it is not known whether it was sent is repeated after this.
_ANSWERED_WITHIN = timedelta(seconds=60)
_INVALID_ARGUMENT = 0x0115  # PS3.7 annex C.4.3


def new_transaction_uid() -> str:
    """A TransactionUID that nobody can guess (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


class TakeReports:
    """Takes what peers report. What it has returned from is durable."""

    def __init__(self, write: Transaction, clock: Clock, patience: Patience) -> None:
        self._write = write
        self._clock = clock
        self._patience = patience

    def take(self, calling: str, report: CommitmentReport) -> None:
        """Move what the report names: committed to, or to be sent again.

        The same report once more changes nothing, nor does what was not asked for in its transaction, or was sent
        again since. A report may come from another AE title than that which was asked: the TransactionUID is a secret.

        Raises:
            InvalidRequest: the transaction is none of ours.
        """
        with self._write() as tx:
            asked = tx.asked_commitments.get(report.transaction_uid)
            if asked is None:
                raise InvalidRequest(
                    "TransactionUID", "is none of ours", "Report what this node asked for", _INVALID_ARGUMENT
                )
            now = self._clock.now()
            named = {
                Reference(d.sop_class_uid, d.sop_instance_uid): d
                for d in tx.deliveries.held(asked.instances)
                if d.attempt == asked.instances[d.id] and d.state is DeliveryState.DELIVERED
            }
            said = report.committed | report.failed.keys()
            if asked.reported_at is None or said & named.keys():
                tx.asked_commitments.reported(asked.transaction_uid, now)
                detail = {"committed": len(report.committed), "failed": len(report.failed)}
                tx.journal.add(_event(asked, "report", now, detail))
            outcomes: dict[Delivery, str | None] = {
                delivery: f"the peer did not commit to it: {failure_in_words(report.failed[reference])}"
                if reference in report.failed
                else None
                for reference, delivery in named.items()
                if reference in said
            }
            settle(tx, outcomes, now, self._patience)
        if strange := len(said) - len(said & named.keys()):
            log.info(
                "report of %s on %s: %d of %d instances do not wait for it",
                calling,
                report.transaction_uid,
                strange,
                len(said),
            )


class RequestCommitments:
    """Asks one peer to commit to what it was sent.

    A request that brings no report within half of the peer's ``verify_seconds`` is repeated; when that brings none
    either, the instances are sent again.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        requester: CommitmentRequester,
        reports: TakeReports,
        peer: Peer,
        patience: Patience,
        *,
        new_uid: Callable[[], str] = new_transaction_uid,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._requester = requester
        self._reports = reports
        self._peer = peer
        self._patience = patience
        self._new_uid = new_uid
        self._pause = Pause(clock, peer, patience)
        self._report_within = timedelta(seconds=peer.verify_seconds) / REQUESTS

    def verify(self) -> int:
        """Ask for what is due, over one association; returns how many instances were asked for."""
        if not self._pause.is_over():
            return 0
        with self._read() as tx:
            if not due_together(tx, self._peer, self._clock.now()):
                return 0
        open_ = self._prepare()
        if not open_:
            return 0
        count = sum(map(len, open_.values()))
        try:
            self._requester.request(
                self._peer,
                {uid: [Reference(d.sop_class_uid, d.sop_instance_uid) for d in due] for uid, due in open_.items()},
                lambda uid, status, comment: self._answered(uid, open_.pop(uid), status, comment),
                self._reports.take,
            )
            self._pause.end()
        except (PeerUnreachable, Permanent) as error:
            until = self._pause.begin(error)
            with self._write() as tx:
                for due in open_.values():
                    put_off(tx, due, self._clock.now(), until, str(error), self._patience)
        return count

    def _prepare(self) -> dict[str, list[Delivery]]:
        """Write what is going to be asked for, a transaction for each job; what was asked for in vain is sent again."""
        requests: dict[str, list[Delivery]] = {}
        with self._write() as tx:
            now = self._clock.now()
            groups: defaultdict[tuple[str, int], list[Delivery]] = defaultdict(list)
            due = due_together(tx, self._peer, now, lock=True)
            numbers = {uid: _number(tx, uid) for uid in {d.transaction_uid for d in due}}
            in_vain = [d for d in due if numbers[d.transaction_uid] > REQUESTS]
            why = f"asked {REQUESTS} times to commit to it, the peer reported nothing"
            settle(tx, dict.fromkeys(in_vain, why), now, self._patience)
            for delivery in due:
                if (number := numbers[delivery.transaction_uid]) <= REQUESTS:
                    groups[delivery.job_id, number].append(delivery)
            for (_, number), due in groups.items():
                asked = AskedCommitment(
                    self._new_uid(), self._peer.name, due[0].study_uid, {d.id: d.attempt for d in due}, number, now
                )
                tx.asked_commitments.add(asked)
                tx.journal.add(_event(asked, "request", now, {"number": number}))
                tx.deliveries.look_again(due, transaction_uid=asked.transaction_uid, verify_at=now + _ANSWERED_WITHIN)
                requests[asked.transaction_uid] = due
        return requests

    def _answered(self, transaction_uid: str, due: Sequence[Delivery], status: int, comment: str) -> None:
        with self._write() as tx:
            now = self._clock.now()
            if status == 0:
                tx.asked_commitments.accepted(transaction_uid, now)
                tx.deliveries.look_again(still_delivered(tx, due), verify_at=now + self._report_within, reason=None)
                return
            reason = f"asked to commit to it, the peer answered {status:04X} {comment}".strip()
            log.warning("peer %s: %s", self._peer.name, reason)
            waited = now - (due[0].delivered_at or now)
            at = now + next_pause(waited, base=self._patience.retry, cap=self._patience.retry_max)
            put_off(tx, due, now, at, reason, self._patience)


def _number(tx: UnitOfWork, transaction_uid: str | None) -> int:
    """Which request comes after this one, of those that the peer accepted."""
    before = tx.asked_commitments.get(transaction_uid) if transaction_uid else None
    if before is None:
        return 1
    was_heard = before.accepted_at is not None or before.reported_at is not None
    return before.number + 1 if was_heard else before.number


def _event(asked: AskedCommitment, step: str, at: datetime, detail: Mapping[str, Any]) -> Event:
    return Event(
        subject=Subject.COMMITMENT,
        subject_id=asked.transaction_uid,
        study_uid=asked.study_uid,
        step=step,
        at=at,
        detail={"peer": asked.peer, "instances": len(asked.instances), **detail},
    )
