"""After a crash: rows are rebuilt from disk, leases of the dead are released, nothing is deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from node.domain.commitment import Commitment, CommitmentState, CommitmentStep
from node.domain.delivery import Delivery, DeliveryStep
from node.domain.errors import AinodeError, LostLease
from node.domain.instance import Aside, Instance
from node.domain.job import Job
from node.domain.trial import Trial
from node.ports import Clock, InstanceFiles
from node.repositories import Transaction
from node.services.assemble import Assemble
from node.services.gate import release_trial
from node.services.steps import move_commitment, move_delivery
from node.services.work import release

log = logging.getLogger(__name__)

_BATCH = 500


class Recover:
    """Brings rows and disk together again.

    Args:
        read_kept, read_aside: rebuild a row from a file on disk; raise ``AinodeError`` when the file cannot be read.
        alive: whether the process that an owner names still runs (owners on other hosts count as alive: their lease
            tells).
        attempts: how often a job is claimed before it goes dead.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        files: InstanceFiles,
        *,
        read_kept: Callable[[str], Instance],
        read_aside: Callable[[str], Aside],
        alive: Callable[[str], bool],
        attempts: int,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._read_kept = read_kept
        self._read_aside = read_aside
        self._alive = alive
        self._attempts = attempts

    def index(self, assemble: Assemble) -> int:
        """Give a row to everything on disk that has none, also while objects arrive; returns how many there were."""
        count = 0
        for paths, read in (
            (iter(self._files.all_instances()), self._read_kept),
            (iter(self._files.all_asides()), self._read_aside),
        ):
            while chunk := list(islice(paths, _BATCH)):
                with self._read() as tx:
                    known = tx.instances.indexed(chunk)
                missing = [thing for path in chunk if path not in known for thing in self._try(read, path)]
                if missing:
                    assemble.index(missing)
                count += len(missing)
        if count:
            log.warning("indexed %d objects that were kept on disk but had no row", count)
        return count

    def _try(self, read: Callable[[str], Instance] | Callable[[str], Aside], path: str) -> Iterator[Instance | Aside]:
        try:
            yield read(path)
        except (AinodeError, OSError) as error:
            log.error("cannot index %s: %s", path, error)

    def leases(self) -> int:
        """Take back what is held by nobody: leases that are over, and those of processes that died on this host."""
        now = self._clock.now()
        with self._read() as tx:
            jobs = [j for j in tx.jobs.owned() if self._is_free(j.owner, j.lease_until, now)]
            deliveries = [d for d in tx.deliveries.owned() if self._is_free(d.owner, d.lease_until, now)]
            trials = [t for t in tx.trials.owned() if self._is_free(t.owner, t.lease_until, now)]
            reporting = tx.commitments.in_state(CommitmentState.REPORTING)
            commitments = [c for c in reporting if self._is_free(c.owner, c.lease_until, now)]
        return (
            sum(self._take_back_job(j, now) for j in jobs)
            + sum(self._take_back_delivery(d, now) for d in deliveries)
            + sum(self._take_back_commitment(c, now) for c in commitments)
            + sum(self._take_back_trial(t, now) for t in trials)
        )

    def _is_free(self, owner: str | None, lease_until: datetime | None, now: datetime) -> bool:
        return owner is None or lease_until is None or lease_until < now or not self._alive(owner)

    def _take_back_job(self, job: Job, now: datetime) -> bool:
        try:
            with self._write() as tx:
                release(tx, job, now, "its worker died", attempts=self._attempts)
        except LostLease:
            return False  # its holder finished it meanwhile
        return True

    def _take_back_trial(self, trial: Trial, now: datetime) -> bool:
        try:
            with self._write() as tx:
                release_trial(tx, trial, now, attempts=self._attempts)
        except LostLease:
            return False
        return True

    def _take_back_delivery(self, delivery: Delivery, now: datetime) -> bool:
        free: dict[str, Any] = {"owner": None, "lease_until": None, "not_before": now, "reason": "its sender died"}
        try:
            with self._write() as tx:
                move_delivery(tx, delivery, DeliveryStep.LEASE_EXPIRED, now, **free)
        except LostLease:
            return False
        return True

    def _take_back_commitment(self, commitment: Commitment, now: datetime) -> bool:
        free: dict[str, Any] = {
            "owner": None,
            "lease_until": None,
            "due_at": now,
            "reason": "its report was not answered",
        }
        try:
            with self._write() as tx:
                move_commitment(tx, commitment, CommitmentStep.LEASE_EXPIRED, now, None, **free)
        except LostLease:
            return False
        return True
