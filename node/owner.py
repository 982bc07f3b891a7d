"""Who holds a lease: a process of a host, named so that a later process with the same number is not taken for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_START_TIME_FIELD = 19  # of /proc/PID/stat, counted behind the command name (proc(5), field 22)


def _started(pid: int) -> str | None:
    """When a process of this host started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[_START_TIME_FIELD]


def me() -> str:
    """This process as ``host/pid/start``."""
    return f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"


def alive(owner: str) -> bool:
    """Whether an owner still runs. One on another host counts as alive: only its lease can tell."""
    host, _, rest = owner.partition("/")
    pid, _, started = rest.partition("/")
    if host != socket.gethostname() or not pid.isdigit():
        return True
    return _started(int(pid)) == started
