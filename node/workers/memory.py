"""How much memory this machine, or the container that the node runs in, still has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_KIB = 1 << 10


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can be taken without swapping: of the machine, or of its control group where that allows less."""
    return min(_available(proc, cgroup))


def _available(proc: Path, cgroup: Path) -> Iterator[int]:
    yield _field(proc / "meminfo", "MemAvailable:") * _KIB
    with suppress(OSError, ValueError):  # no control groups here, or no limit: "max"
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        # Cached files are given up when memory is wanted.
        yield limit - used + _field(cgroup / "memory.stat", "inactive_file")


def peak_bytes(pid: int) -> int:
    """The most that a process ever held in memory; 0 when it is gone."""
    return _of(pid, "VmHWM:")


def held_bytes(pid: int) -> int:
    """What a process holds in memory; 0 when it is gone."""
    return _of(pid, "VmRSS:")


def _of(pid: int, field: str) -> int:
    try:
        return _field(Path(f"/proc/{pid}/status"), field) * _KIB
    except (OSError, ValueError):
        return 0


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    raise ValueError(f"{path} has no {name}")
