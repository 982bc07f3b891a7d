"""Waiting for the signal that ends a process."""

from __future__ import annotations

import signal
import time

_LOOK_SECONDS = 0.1


class Stop:
    """Set by SIGTERM and Ctrl-C.

    A plain flag that is looked at, and no ``threading.Event``: a handler that sets an event dead-locks where it
    interrupts the wait for it, and a wait without end sleeps on when the kernel gives the signal to another thread.
    """

    def __init__(self) -> None:
        self._set = False

    def listen(self) -> None:
        """Take SIGTERM and SIGINT; in the main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.set())

    def set(self) -> None:
        """Ask for the end."""
        self._set = True

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._set

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait until the end is asked for, at most so long; says whether it was."""
        deadline = time.monotonic() + seconds
        while not self._set and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return self._set
