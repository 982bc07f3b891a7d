"""The local engine: one spawned process, replaced when it dies or runs too long.

A worker has several, that share its device: while one job uses it, the next one is read and the results of the one
before are written, each in a process of its own. So whatever a job does to its process it does to no other job.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from node.domain.errors import ChildLost, TimedOut
from node.domain.job import JobInput, JobOutput
from node.domain.model import ModelVersion
from node.domain.trial import TrialInput, TrialOutput
from node.workers.memory import available_bytes, held_bytes, peak_bytes

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class WarmUp:
    """Asks a child to load a version to a device before its first job; it answers nothing.

    ``version_dir`` and ``trust_code`` are those of a `JobInput`.
    """

    model: ModelVersion
    device: str
    version_dir: Path | None = None
    trust_code: bool = False


@dataclass(frozen=True)
class Batch:
    """Jobs of one version that run together; the child answers with a list."""

    jobs: tuple[JobInput, ...]


class Sign(Enum):
    """What a child says before its answer: its job waits for the device, or goes on."""

    WAITS = "waits"
    GOES_ON = "goes on"


def _serve(pipe: Connection, parent: int, device: Path, warm_bytes: int, level: str, log_format: str) -> None:
    from node.workers import child

    child.main(pipe, parent, device, warm_bytes, level, log_format)


@dataclass
class Device:
    """What engines share: a file, locked by whoever uses the device, and the most memory that a job's process took."""

    lock: Path
    warm_bytes: int = 0  # of model files, whose versions a process keeps loaded; the latest used is always kept
    peak_bytes: int = 1 << 30  # of a process with torch and a volume, as long as no job has taken more


class LocalEngine:
    """Implements ``node.ports.Engine`` with one child process.

    Args:
        device: engines that are given the same one use it in turns.
    """

    def __init__(self, device: Device, *, log_level: str, log_format: str) -> None:
        self._device = device
        self._given = (device.lock, device.warm_bytes, log_level, log_format)
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._process.pid if self._process else None

    def has_room(self) -> bool:
        """Whether the memory that is free is enough for as much as any job of the device has taken so far."""
        held = 0 if self.pid is None else held_bytes(self.pid)
        return available_bytes() >= self._device.peak_bytes - held

    def warm(self, wanted: Iterable[WarmUp] = ()) -> None:
        """Start the child now, and have it load what is wanted, so that the first job waits for neither."""
        pipe = self._ready()
        for each in wanted:
            pipe.send(each)

    def run(self, job: JobInput, *, timeout: timedelta, beat: Callable[[], None]) -> JobOutput:
        """Run one job in the child; what ``beat`` raises ends the child and is raised.

        Raises:
            ChildLost: the child died, with its exit code.
            TimedOut: it ran past ``timeout`` and was killed; waiting for the device does not count.
        """
        output = self._answer(job, timeout, beat)
        assert isinstance(output, JobOutput)
        return output

    def run_batch(
        self, jobs: Sequence[JobInput], *, timeout: timedelta, beat: Callable[[], None]
    ) -> list[JobOutput | None]:
        """Run jobs of one version together in the child; None stands for one that has to run by itself.

        Raises as `run` does, for all of them.
        """
        outputs = self._answer(Batch(tuple(jobs)), timeout, beat)
        assert isinstance(outputs, list)
        return outputs

    def try_out(self, trial: TrialInput, *, timeout: timedelta, beat: Callable[[], None]) -> TrialOutput:
        """Try one version in the child. Raises as `run` does."""
        output = self._answer(trial, timeout, beat)
        assert isinstance(output, TrialOutput)
        return output

    def _answer(self, work: JobInput | Batch | TrialInput, timeout: timedelta, beat: Callable[[], None]) -> object:
        pipe = self._ready()
        done = False
        try:
            pipe.send(work)
            output = self._wait(pipe, timeout.total_seconds(), beat)
            done = True
            return output
        except TimeoutError:
            raise TimedOut(f"ran longer than {timeout.total_seconds():.0f} s and was stopped") from None
        except (EOFError, OSError):
            raise ChildLost(f"the process that ran the job died ({self._exit()})") from None
        finally:
            self._device.peak_bytes = max(self._device.peak_bytes, peak_bytes(self.pid or 0))
            if not done:
                self.close()

    def _wait(self, pipe: Connection, seconds: float, beat: Callable[[], None]) -> object:
        waiting = False
        while True:
            since = time.monotonic()
            said = pipe.recv() if pipe.poll(_POLL_SECONDS) else None
            if not waiting:
                seconds -= time.monotonic() - since
            if isinstance(said, Sign):
                waiting = said is Sign.WAITS
            elif said is not None:
                return said
            if seconds < 0:
                raise TimeoutError
            beat()

    def _ready(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, os.getpid(), *self._given), name="ainode-run", daemon=True
        )
        self._process.start()
        theirs.close()  # so that its death reads as end of file here
        return self._pipe

    def _exit(self) -> str:
        if self._process is None:
            return "never started"
        self._process.join(1.0)
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
