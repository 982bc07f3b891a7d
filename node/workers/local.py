"""The local engine: one spawned process, replaced when it dies or runs too long."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from node.domain.errors import ChildLost, TimedOut
from node.domain.job import JobInput, JobOutput

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


def _serve(pipe: Connection, parent: int, level: str, log_format: str) -> None:
    from node.workers import child

    child.main(pipe, parent, level, log_format)


class LocalEngine:
    """Implements ``node.ports.Engine`` with one child process."""

    def __init__(self, *, log_level: str, log_format: str) -> None:
        self._log = (log_level, log_format)
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._process.pid if self._process else None

    def warm(self) -> None:
        """Start the child now, so that the first job does not wait for its imports."""
        self._ready()

    def run(self, job: JobInput, *, timeout: timedelta, beat: Callable[[], None]) -> JobOutput:
        """Run one job in the child; what ``beat`` raises ends the child and is raised.

        Raises:
            ChildLost: the child died, with its exit code.
            TimedOut: it ran past ``timeout`` and was killed.
        """
        pipe = self._ready()
        done = False
        try:
            pipe.send(job)
            output = self._wait(pipe, time.monotonic() + timeout.total_seconds(), beat)
            done = True
            return output
        except TimeoutError:
            raise TimedOut(f"ran longer than {timeout.total_seconds():.0f} s and was stopped") from None
        except (EOFError, OSError):
            raise ChildLost(f"the process that ran the job died ({self._exit()})") from None
        finally:
            if not done:
                self.close()

    def _wait(self, pipe: Connection, deadline: float, beat: Callable[[], None]) -> JobOutput:
        while not pipe.poll(_POLL_SECONDS):
            if time.monotonic() > deadline:
                raise TimeoutError
            beat()
        output = pipe.recv()
        assert isinstance(output, JobOutput)
        return output

    def _ready(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, os.getpid(), *self._log), name="ainode-run", daemon=True
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
