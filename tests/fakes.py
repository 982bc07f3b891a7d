"""Fakes of the ports where a real thing would make a test slow or vague: time, the network, the job process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from node.domain.errors import PeerUnreachable
from node.domain.job import JobInput, JobOutput
from node.domain.peer import Peer
from node.domain.trial import TrialInput, TrialOutput


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def tick(self, seconds: float) -> datetime:
        self.time += timedelta(seconds=seconds)
        return self.time


class FakeSender:
    """A peer that answers as told; ``down`` makes it unreachable, ``break_after`` cuts an association short."""

    def __init__(self) -> None:
        self.down = False
        self.break_after: int | None = None
        self.status: Callable[[Path], int] = lambda path: 0
        self.stored: list[str] = []
        self.calls = 0

    def send(self, peer: Peer, files: Sequence[Path], on_status: Callable[[int, int, str], None]) -> None:
        self.calls += 1
        if self.down:
            raise PeerUnreachable(f"{peer.name}: connection refused")
        for index, path in enumerate(files):
            if index == self.break_after:
                raise PeerUnreachable(f"{peer.name}: the association broke")
            status = self.status(path)
            if status == 0:
                self.stored.append(path.name)
            on_status(index, status, "")

    def echo(self, peer: Peer) -> None:
        if self.down:
            raise PeerUnreachable(f"{peer.name}: connection refused")


def _passes(trial: TrialInput) -> TrialOutput:
    return TrialOutput(None, {"verify": 0.1})


class FakeEngine:
    """Runs functions in place of a job process."""

    def __init__(
        self, run: Callable[[JobInput], JobOutput], try_out: Callable[[TrialInput], TrialOutput] = _passes
    ) -> None:
        self._run = run
        self._try_out = try_out
        self.jobs: list[JobInput] = []
        self.batches: list[list[str]] = []  # by StudyInstanceUID

    def run(self, job: JobInput, *, timeout: timedelta, beat: Callable[[], None]) -> JobOutput:
        self.jobs.append(job)
        beat()
        return self._run(job)

    def run_batch(
        self, jobs: Sequence[JobInput], *, timeout: timedelta, beat: Callable[[], None]
    ) -> list[JobOutput | None]:
        self.batches.append([job.study.study_uid for job in jobs])
        beat()
        return [self._run(job) for job in jobs]

    def has_room(self) -> bool:
        return True

    def try_out(self, trial: TrialInput, *, timeout: timedelta, beat: Callable[[], None]) -> TrialOutput:
        beat()
        return self._try_out(trial)

    def close(self) -> None:
        """Nothing to end."""
