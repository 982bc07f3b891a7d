"""One measurement: a fresh process of a reader, one read of a series that is in the page cache."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.machine import MemoryWatch

from reading import readers

_READ_SECONDS = 900.0


class ReadError(Exception):
    """A reader did not read; the text is the end of what it said."""


@dataclass(frozen=True)
class Run:
    """One read. ``peak_bytes`` is the most that the reader's processes held, shared memory once, imports included.

    ``sum`` of the values tells whether two readers read the same.
    """

    reader: str
    corpus: str
    version: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    voxels: int
    sum: float
    dtype: str


def measure(reader: str, corpus: str, folder: Path, log: Path) -> Run:
    """Let a reader read a folder.

    Raises:
        ReadError: it ended without an answer.
    """
    for file in folder.iterdir():
        file.read_bytes()
    command = [sys.executable, "-W", "ignore", str(Path(readers.__file__)), reader, str(folder)]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            ready = _answer(process, log)
            with MemoryWatch(process.pid) as memory:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                answer = _answer(process, log)
            process.wait(_READ_SECONDS)
        finally:
            process.kill()
    # A thread pool's peak is that of its process; with other processes it is their sum, which is polled.
    peak = max(memory.peak_process, memory.peak_total)
    return Run(reader=reader, corpus=corpus, peak_bytes=peak, **ready, **answer)


def _answer(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ReadError(log.read_text(errors="replace")[-500:])
    answer: dict[str, Any] = json.loads(line)
    return answer
