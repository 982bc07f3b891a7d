"""Storage commitment (PS3.4 annex J): a request is a row before it is answered, judged later, and reported until heard.

Three services meet in the database, in whatever processes they run: ``AskCommitment`` where associations are served,
``JudgeCommitments`` where the rows of instances are written, ``ReportCommitments`` where the peer can be told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from node.domain.commitment import Commitment, CommitmentState, CommitmentStep, FailureReason, Reference
from node.domain.delivery import backoff
from node.domain.errors import LostLease, PeerUnreachable
from node.domain.instance import Instance
from node.domain.manifest import Manifest, ManifestKind
from node.domain.peer import Peer
from node.ports import Clock, InstanceFiles
from node.repositories import Transaction
from node.services.steps import commitment_event, move_commitment

log = logging.getLogger(__name__)

# An instance that was acknowledged a moment ago has no row yet; so long it is waited for.
ROWS_WITHIN = timedelta(seconds=10)
_FREE: Final[dict[str, Any]] = {"owner": None, "lease_until": None}


class AskCommitment:
    """Takes requests. What it has returned from is durable."""

    def __init__(self, write: Transaction, clock: Clock) -> None:
        self._write = write
        self._clock = clock

    def ask(self, transaction_uid: str, peer: str, references: Sequence[Reference]) -> None:
        """Take a request, and what it names as a manifest of its studies.

        The same request once more is reported once more. Another request under the same TransactionUID fails, for
        every instance, as PS3.3 C.14.1.1 has it.
        """
        named = tuple(dict.fromkeys(references))
        with self._write() as tx:
            now = self._clock.now()  # when the write lock was had: who looks for what is new looks back a little only
            asked = Commitment(0, transaction_uid, peer, named, CommitmentState.ASKED, now, now + ROWS_WITHIN)
            earlier = tx.commitments.of_transaction(transaction_uid)
            first = earlier[0] if earlier else None
            if first is not None and first.peer == peer and set(first.references) == set(named):
                if first.state in (CommitmentState.REPORTED, CommitmentState.DEAD):
                    again: dict[str, Any] = {"asked_at": now, "due_at": asked.due_at, "failures": {}, "reason": None}
                    move_commitment(tx, first, CommitmentStep.ASK_AGAIN, now, None, **again)
                return
            if first is not None:
                failures = {r.sop_instance_uid: int(FailureReason.DUPLICATE_TRANSACTION_UID) for r in named}
                asked = Commitment(0, transaction_uid, peer, named, CommitmentState.OWED, now, now, failures)
            else:
                uids = frozenset(r.sop_instance_uid for r in named)
                tx.manifests.add([Manifest(ManifestKind.COMMITMENT, transaction_uid, None, peer, now, uids)])
            tx.commitments.add(asked)
            tx.journal.add(commitment_event(asked, "ask", None, now))


class JudgeCommitments:
    """Decides for each named instance whether we are responsible for it.

    Args:
        give_up: how long after the request its report is owed.
    """

    def __init__(
        self, write: Transaction, read: Transaction, clock: Clock, files: InstanceFiles, *, give_up: timedelta
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._give_up = give_up

    def judge(self, *, index_is_whole: bool = True) -> int:
        """Judge what can be judged by now; returns how many commitments were.

        Args:
            index_is_whole: whether a missing row may mean a missing instance; not while rows are rebuilt from disk.
        """
        with self._read() as tx:
            asked = tx.commitments.in_state(CommitmentState.ASKED)
        return sum(self._judge_one(commitment, index_is_whole) for commitment in asked)

    def _judge_one(self, commitment: Commitment, index_is_whole: bool) -> bool:
        now = self._clock.now()
        with self._read() as tx:
            rows = tx.instances.known(r.sop_instance_uid for r in commitment.references)
        waited = index_is_whole and now >= commitment.due_at
        if not waited and any(r.sop_instance_uid not in rows for r in commitment.references):
            return False
        failures = self._failures(commitment, rows)
        studies = {row.study_uid for row in rows.values()}
        with self._write() as tx:
            move_commitment(
                tx,
                commitment,
                CommitmentStep.JUDGE,
                now,
                studies.pop() if len(studies) == 1 else None,
                failures=failures,
                due_at=now,
                attempt=0,
            )
        return True

    def _failures(self, commitment: Commitment, rows: Mapping[str, Instance]) -> dict[str, int]:
        """FailureReasons by SOPInstanceUID."""
        try:
            sizes = self._files.secure(row.path for row in rows.values())
        except OSError as error:
            # Not tried again: the kernel takes pages that it could not write for clean, and says so the next time.
            log.error("commitment %s: kept objects cannot be synced: %s", commitment.transaction_uid, error.strerror)
            return {r.sop_instance_uid: int(FailureReason.PROCESSING_FAILURE) for r in commitment.references}
        failures = {r.sop_instance_uid: _failure(r, rows.get(r.sop_instance_uid), sizes) for r in commitment.references}
        return {uid: int(reason) for uid, reason in failures.items() if reason is not None}

    def give_up(self) -> int:
        """Give up the oldest reports that are owed for too long; returns how many."""
        now = self._clock.now()
        with self._write() as tx:
            late = [c for c in tx.commitments.in_state(CommitmentState.OWED) if c.asked_at + self._give_up <= now]
            for commitment in late:
                reason = (
                    f"gave up after {self._give_up}: {commitment.reason or 'no association of the peer to tell it on'}"
                )
                log.error("commitment %s of %s: %s", commitment.transaction_uid, commitment.peer, reason)
                move_commitment(tx, commitment, CommitmentStep.GIVE_UP, now, None, reason=reason)
        return len(late)


def _failure(reference: Reference, row: Instance | None, sizes: Mapping[str, int]) -> FailureReason | None:
    """Why we are not responsible for an instance; None where we are."""
    if row is None or row.path not in sizes:
        return FailureReason.NO_SUCH_INSTANCE
    if row.sop_class_uid != reference.sop_class_uid:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    if sizes[row.path] != row.size:
        return FailureReason.PROCESSING_FAILURE
    return None


class ReportCommitments:
    """Tells peers what became of their requests, until they have heard it.

    Args:
        owner: this process, as it is written into leases.
        lease: how long one report may take.
        retry, retry_max: the pause after the first attempt that failed, doubled after each further one, and its cap.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        *,
        owner: str,
        lease: timedelta,
        retry: timedelta,
        retry_max: timedelta,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._owner = owner
        self._lease = lease
        self._retry = retry
        self._retry_max = retry_max

    def claim(self, peer: str) -> Commitment | None:
        """Take the oldest report that is due for a calling AE title; follow it by ``answered`` or ``failed``."""
        now = self._clock.now()
        with self._read() as tx:
            if not tx.commitments.is_due(peer, now):
                return None
        with self._write() as tx:
            return tx.commitments.claim(peer=peer, owner=self._owner, now=now, lease=self._lease)

    def answered(self, commitment: Commitment, status: int, comment: str = "") -> None:
        """The peer answered the N-EVENT-REPORT; with anything but success it is told again later."""
        if status == 0:
            self._move(commitment, CommitmentStep.ACK, self._clock.now(), reason=None)
        else:
            self.failed(commitment, f"the peer answered {status:04X} {comment}".strip())

    def failed(self, commitment: Commitment, reason: str) -> None:
        """The peer was not told."""
        now = self._clock.now()
        wait = backoff(commitment.attempt, base=self._retry, cap=self._retry_max)
        log.warning("commitment %s of %s: %s", commitment.transaction_uid, commitment.peer, reason)
        self._move(commitment, CommitmentStep.RETRY, now, reason=reason, due_at=now + wait)

    def tell(self, peer: Peer, report: Callable[[Peer, Commitment], tuple[int, str]]) -> int:
        """Tell one peer, on associations of ours, all that is due; returns how many reports were tried.

        Args:
            report: sends one; gives status and ErrorComment of the answer, or raises ``PeerUnreachable``.
        """
        tried = 0
        while (commitment := self.claim(peer.ae_title)) is not None:
            tried += 1
            try:
                self.answered(commitment, *report(peer, commitment))
            except PeerUnreachable as error:
                self.failed(commitment, str(error))
                break
        return tried

    def _move(self, commitment: Commitment, step: CommitmentStep, at: datetime, **changes: Any) -> None:
        try:
            with self._write() as tx:
                move_commitment(tx, commitment, step, at, None, **_FREE, **changes)
        except LostLease as error:
            log.warning("%s", error)  # it took longer than its lease: the peer is told once more
