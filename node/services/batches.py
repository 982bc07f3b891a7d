"""Which jobs run together: several studies of one version of images go through its network at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import Lock

from node.domain.job import Hold, Job, JobOutput
from node.domain.model import ModelVersion
from node.domain.priority import Priority
from node.repositories import UnitOfWork


class Batches:
    """What the workers of one device know of versions that take several studies at once; their first jobs told it.

    Args:
        most: jobs that run together; with 1 each runs by itself.
        wait: how long a job may wait for others. An urgent one never does, and never runs with others.
    """

    def __init__(self, most: int = 1, wait: timedelta = timedelta(0)) -> None:
        self._most = most
        self._wait = wait
        self._lock = Lock()
        self._models: set[ModelVersion] = set()

    def learn(self, job: Job, output: JobOutput) -> None:
        """Remember what a run said of its version."""
        if output.batches and self._most > 1:
            with self._lock:
                self._models.add(job.model)

    def hold(self, tx: UnitOfWork, now: datetime) -> Hold | None:
        """What is left waiting, because it has not waited long and there are not enough of it yet."""
        if not self._wait:
            return None
        with self._lock:
            models = list(self._models)
        few = frozenset(model.digest for model in models if tx.jobs.untried(model) < self._most)
        return Hold(few, now - self._wait) if few else None

    def room(self, first: Job) -> int:
        """How many jobs may join a claimed one."""
        alone = first.attempt > 1 or first.priority is Priority.STAT
        with self._lock:
            return 0 if alone or first.model not in self._models else self._most - 1
