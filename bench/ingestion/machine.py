"""What Linux says in ``/proc`` about this machine, its connections and a tree of processes."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_PROC = Path("/proc")
_ESTABLISHED, _LISTEN = "01", "0A"
_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024
_POLL_SECONDS = 0.05
# Adding up a process's mappings takes the longer the larger it is, and holds up its page faults meanwhile: so watching
# is idle for this many times as long as it has looked.
_PAUSE_PER_LOOK = 20


def listens(port: int) -> bool:
    """Whether somebody listens on a TCP port. Asks the kernel, since a connection would count as an association."""
    return any(local == port and state == _LISTEN for local, state in _sockets())


def is_connected(port: int) -> bool:
    """Whether a TCP connection to a local port is open."""
    return any(local == port and state == _ESTABLISHED for local, state in _sockets())


def _sockets() -> Iterator[tuple[int, str]]:
    """Local port and state of every TCP socket."""
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError), (_PROC / "net" / table).open() as lines:
            next(lines)
            for line in lines:
                fields = line.split(maxsplit=4)
                yield int(fields[1].rpartition(":")[2], 16), fields[3]


def tree(pid: int) -> list[int]:
    """A process and its descendants, those included that have ended and were not waited for yet."""
    found = [pid]
    for parent in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in (_PROC / str(parent) / "task").iterdir():
                with suppress(FileNotFoundError, ProcessLookupError):
                    found += map(int, (thread / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a tree of processes; of ended ones too, once their parent has waited for them."""
    ticks = 0
    for process in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            # utime, stime, cutime and cstime are fields 14 to 17 (proc(5)); the name, field 2, may hold spaces.
            fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


class MemoryWatch:
    """Polls a tree of processes while the ``with`` block runs.

    ``peak_process`` is the largest resident set that any of them ever had, its start-up included (VmHWM);
    ``peak_total`` the largest sum over all of them, shared pages counted once (Pss). Both in bytes.
    """

    def __init__(self, pid: int) -> None:
        self.peak_process = self.peak_total = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory watch", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        pause = 0.0
        while not self._done.wait(max(_POLL_SECONDS, pause)):
            before = time.perf_counter()
            self._look()
            pause = _PAUSE_PER_LOOK * (time.perf_counter() - before)

    def _look(self) -> None:
        processes = tree(self._pid)
        self.peak_process = max(self.peak_process, *(_kib(p, "status", "VmHWM:") * _KIB for p in processes))
        self.peak_total = max(self.peak_total, sum(_kib(p, "smaps_rollup", "Pss:") for p in processes) * _KIB)


def _kib(pid: int, file: str, key: str) -> int:
    """A number of a file in ``/proc/PID``; 0 for a process that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in (_PROC / str(pid) / file).read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1])
    return 0


@dataclass(frozen=True)
class Machine:
    """Where a bench ran. ``load`` is the load average of the minute before it, which should be near 0."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    file_system: str
    disk: str
    load: float

    @classmethod
    def here(cls, folder: Path) -> Machine:
        """This machine; the file system and disk are those of ``folder``."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        device, file_system = _mount(folder)
        return cls(
            cpu=_cpu_model(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(memory, 1),
            kernel=f"{platform.system()} {platform.release()}",
            file_system=file_system,
            disk=device,
            load=round(os.getloadavg()[0], 2),
        )


def _cpu_model() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _mount(folder: Path) -> tuple[str, str]:
    """Device and type of the file system that holds a folder."""
    mounts = [line.split() for line in (_PROC / "self" / "mounts").read_text().splitlines()]
    holding = [mount for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    device, _, file_system, *_ = max(holding, key=lambda mount: len(mount[1]))
    return device, file_system
