"""Which jobs of one worker run beside each other."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from node.domain.job import Job


class Beside:
    """Lets a job begin beside those that run already.

    A job that was tried before runs alone, and is not overtaken by others: so it has all the memory that there is, and
    what happens to the machine then happens because of it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: list[Job] = []

    def begin(
        self, claim: Callable[[bool], Job | None], has_room: Callable[[], bool], *, spare: bool = False
    ) -> Job | None:
        """Claim the next job, if one may begin now.

        Args:
            spare: to begin only beside another, so that single jobs find the one process that is warm.
            claim: takes whether only a job that was never tried will do.
            has_room: whether there is memory for one job more.
        """
        with self._lock:
            if self._running and (_was_tried(self._running[0]) or not has_room()):
                return None
            if spare and not self._running:
                return None
            job = claim(bool(self._running))
            if job is not None:
                self._running.append(job)
            return job

    def end(self, job: Job) -> None:
        """Say that a job no longer runs."""
        with self._lock:
            self._running.remove(job)


def _was_tried(job: Job) -> bool:
    """Whether a claimed job, whose attempt is counted, was claimed before."""
    return job.attempt > 1
