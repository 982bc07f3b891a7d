"""Whose turn it is to use the device, among the children of a worker."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path


class DeviceTurn:
    """A lock between processes, which the kernel opens when its holder dies, however it dies.

    Args:
        path: a file that all who share the device name.
        waits: called with True before a wait, and with False after it.
    """

    def __init__(self, path: Path, waits: Callable[[bool], None]) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._waits = waits
        self._taken = False

    def take(self) -> float:
        """Wait for it, unless it is taken already; returns the seconds waited."""
        if self._taken:
            return 0.0
        since = time.monotonic()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._waits(True)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._waits(False)
            return time.monotonic() - since
        finally:
            self._taken = True
        return 0.0

    def leave(self) -> None:
        """Give it to the next; nothing where it is not taken."""
        if self._taken:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._taken = False
