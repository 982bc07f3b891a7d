"""One measurement: a fresh receiver, the associations of DCMTK's storescu, and what it cost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingestion.corpus import Corpus, share, warm
from ingestion.machine import MemoryWatch, cpu_seconds, is_connected
from ingestion.receivers import (
    MAX_PDU,
    SENDER_AE_TITLE,
    BenchError,
    Receiver,
    Running,
    environment,
    held,
    running,
    system_program,
)
from ingestion.report import Run

_CONNECT_LOOK_SECONDS = 0.0005
_CONNECT_SECONDS = 10.0
_SEND_SECONDS = 900.0
_SETTLE_SECONDS = 20.0
# A receiver that used less than this share of one core over a look has nothing left to do.
_IDLE_SHARE = 0.1
_IDLE_LOOK_SECONDS = 0.5


def measure(receiver: Receiver, corpus: Corpus, files: Sequence[Path], associations: int, work: Path) -> Run:
    """Send a corpus over so many associations at once, each with its share of the files.

    The clock runs from the first open connection to the exit of the last sender, so storescu's own start is left out
    and told apart (``start_seconds``). CPU time is the receiver's alone and counts on until it has nothing left to do.

    Raises:
        BenchError: the receiver does not start, a sender fails, or an object is missing afterwards.
    """
    folders = share(files, associations, work / "shares")
    warm(files)
    os.sync()  # what earlier measurements left to write must not be written in this one's time
    with running(receiver, work / "receiver") as at:
        before = cpu_seconds(at.pid)
        with MemoryWatch(at.pid) as memory:
            start_seconds, seconds = _send(folders, at, work)
            _wait_until_held(at, corpus)
            after = _cpu_when_idle(at.pid)
        return Run(
            receiver=receiver.key,
            corpus=corpus.name,
            associations=associations,
            objects=corpus.objects,
            bytes=sum(path.stat().st_size for path in files),
            seconds=seconds,
            start_seconds=start_seconds,
            cpu_seconds=after - before,
            peak_process_bytes=memory.peak_process,
            peak_total_bytes=memory.peak_total,
        )


def _send(folders: Sequence[Path], at: Running, work: Path) -> tuple[float, float]:
    """Seconds until the first connection, and from there to the exit of the last sender."""
    storescu = system_program("storescu")
    assert storescu is not None, "checked before the first measurement"
    command = [storescu, "-aet", SENDER_AE_TITLE, "-aec", at.ae_title, "--max-send-pdu", str(MAX_PDU)]
    command += ["--scan-directories", "127.0.0.1", str(at.port)]
    senders: list[subprocess.Popen[bytes]] = []
    with (work / "senders.log").open("wb") as log, ThreadPoolExecutor(1) as watch:
        # The first sender is connected while the others are still being started.
        connection = watch.submit(_connected_at, at.port)
        started = time.perf_counter()
        try:
            for folder in folders:
                senders.append(subprocess.Popen([*command, str(folder)], stdout=log, stderr=log, env=environment()))
            codes = [sender.wait(_SEND_SECONDS) for sender in senders]
            ended = time.perf_counter()
        except subprocess.TimeoutExpired:
            raise BenchError(f"a sender takes longer than {_SEND_SECONDS:.0f} s") from None
        finally:
            for sender in senders:
                sender.kill()
                sender.wait()
    if any(codes):
        tail = (work / "senders.log").read_text(errors="replace")[-500:]
        raise BenchError(f"storescu ends with {codes}: {tail}")
    connected = connection.result()
    return connected - started, ended - connected


def _connected_at(port: int) -> float:
    """When the first connection to a port was open."""
    deadline = time.monotonic() + _CONNECT_SECONDS
    while not is_connected(port):
        if time.monotonic() > deadline:
            raise BenchError(f"no sender has connected in {_CONNECT_SECONDS:.0f} s")
        time.sleep(_CONNECT_LOOK_SECONDS)
    return time.perf_counter()


def _wait_until_held(at: Running, corpus: Corpus) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (count := held(at.store, corpus.pixel_bytes)) != corpus.objects:
        if time.monotonic() > deadline:
            raise BenchError(f"acknowledged {corpus.objects} objects and holds {count}")
        time.sleep(_IDLE_LOOK_SECONDS)


def _cpu_when_idle(pid: int) -> float:
    """The CPU seconds that a receiver has used once it works no more, on rows for instance."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    used = cpu_seconds(pid)
    while True:
        time.sleep(_IDLE_LOOK_SECONDS)
        last, used = used, cpu_seconds(pid)
        if used - last < _IDLE_SHARE * _IDLE_LOOK_SECONDS or time.monotonic() > deadline:
            return used
