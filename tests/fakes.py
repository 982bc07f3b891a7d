"""Fakes of the ports where a real thing would make a test slow or vague: time, the network, the job process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from node.domain.commitment import Reference
from node.domain.errors import PeerDeclines, PeerUnreachable
from node.domain.job import JobInput, JobOutput
from node.domain.peer import Peer
from node.domain.status import Verdict, verdict
from node.domain.trial import TrialInput, TrialOutput
from node.domain.verification import CommitmentReport, Wanted
from node.ports import every, idle


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
    """A peer that answers as told; ``down`` makes it unreachable, ``break_after`` cuts an association short.

    So does every object that ``breaks`` names. ``declines`` is what it says to all; ``echoes`` counts the probes.
    """

    def __init__(self) -> None:
        self.down = False
        self.declines: PeerDeclines | None = None
        self.break_after: int | None = None
        self.status: Callable[[Path], int] = lambda path: 0
        self.stored: list[str] = []
        self.breaks: set[str] = set()
        self.echoes = self.calls = 0

    def send(
        self,
        peer: Peer,
        files: Sequence[Path],
        on_status: Callable[[int, int, str], None],
        *,
        wanted: Callable[[int], bool] = every,
        beat: Callable[[], None] = idle,
    ) -> None:
        self.calls += 1
        if self.down:
            raise PeerUnreachable(f"{peer.name}: connection refused")
        for index, path in enumerate(files):
            if not wanted(index):
                continue
            if self.declines is not None:
                raise self.declines
            if index == self.break_after or path.name in self.breaks:
                raise PeerUnreachable(f"{peer.name}: the association broke")
            status = self.status(path)
            beat()
            if verdict(status) is Verdict.ACK:
                self.stored.append(path.name)
            on_status(index, status, "")

    def echo(self, peer: Peer) -> None:
        self.echoes += 1
        if self.declines is not None:
            raise self.declines
        if self.down:
            raise PeerUnreachable(f"{peer.name}: connection refused")


class FakeVerifier:
    """A peer that lists what it is told to hold; ``refuses`` is an error that it answers with.

    ``moved``: StudyInstanceUID and SeriesInstanceUID of what it has elsewhere, by SOPInstanceUID.
    """

    def __init__(self, *held: str) -> None:
        self.holds = set(held)
        self.moved: dict[str, tuple[str, str]] = {}
        self.refuses: Exception | None = None
        self.asked: list[tuple[str, ...]] = []

    def held(self, peer: Peer, wanted: Sequence[Wanted]) -> set[str]:
        self.asked.append(tuple(each.sop_instance_uid for each in wanted))
        if self.refuses is not None:
            raise self.refuses
        return {each.sop_instance_uid for each in wanted} & self.holds

    def elsewhere(self, peer: Peer, wanted: Sequence[Wanted]) -> dict[str, tuple[str, str]]:
        return {
            each.sop_instance_uid: self.moved[each.sop_instance_uid]
            for each in wanted
            if each.sop_instance_uid in self.moved
        }


class FakeRequester:
    """A peer that is asked for storage commitment: ``status`` is its answer, ``report`` what it reports at once.

    ``asked`` are the SOPInstanceUIDs by TransactionUID, in the order in which they were asked for.
    """

    def __init__(self) -> None:
        self.asked: dict[str, tuple[str, ...]] = {}
        self.status = 0x0000
        self.refuses: Exception | None = None
        self.report: Callable[[str, Sequence[Reference]], CommitmentReport | None] = lambda uid, named: None

    def request(
        self,
        peer: Peer,
        transactions: Mapping[str, Sequence[Reference]],
        answered: Callable[[str, int, str], None],
        reported: Callable[[str, CommitmentReport], None],
    ) -> None:
        for uid, named in transactions.items():
            if self.refuses is not None:
                raise self.refuses
            self.asked[uid] = tuple(each.sop_instance_uid for each in named)
            answered(uid, self.status, "")
        for uid, named in transactions.items():
            if (report := self.report(uid, named)) is not None:
                reported(peer.ae_title, report)


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
