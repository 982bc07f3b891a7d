"""A stage that runs as a process of its own, started again when it dies."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_STOP_SECONDS = 15
_PAUSES = (0.0, 1.0, 5.0, 15.0, 60.0)  # seconds before a start that follows a death, the longer the more deaths
_STEADY_SECONDS = 60  # a process that has run for so long has started well


@dataclass(frozen=True)
class Handed:
    """What a child is handed: a socket, and one end of a pipe whose other end ``attach`` takes, anew at each start."""

    listener: socket.socket
    attach: Callable[[socket.socket], None]


class Supervised:
    """A stage of ``ainode`` as a child of this process.

    Args:
        stage: the command, and more words that tell several of them apart in the log.
        config: the settings file that this process was given; the child reads the same and the same environment.
        handed: given to the child by ``--listener`` and ``--channel``, as file descriptors.
    """

    def __init__(self, stage: str, config: Path | None, handed: Handed | None = None) -> None:
        self.stage = stage
        self._handed = handed
        options = ["--config", str(config)] if config else []
        command = stage.split(maxsplit=1)[0]
        self._command = [sys.executable, "-m", "node", *options, command, "--with-parent", str(os.getpid())]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._deaths = 0
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process id, None before the start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process."""
        if self._handed is None:
            self._process = self._new({})
        else:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = self._new({"--listener": self._handed.listener, "--channel": theirs})
            self._handed.attach(ours)
        self._started = time.monotonic()

    def _new(self, handed: Mapping[str, socket.socket]) -> subprocess.Popen[bytes]:
        options = [word for option, given in handed.items() for word in (option, str(given.fileno()))]
        return subprocess.Popen(  # noqa: S603  (our own command line)
            [*self._command, *options], stdin=subprocess.DEVNULL, pass_fds=[given.fileno() for given in handed.values()]
        )

    def keep(self) -> None:
        """Start it again if it died; called by the ticker."""
        if self._stopping or self._process is None or (code := self._process.poll()) is None:
            return
        ran = time.monotonic() - self._started
        self._deaths = 1 if ran > _STEADY_SECONDS else self._deaths + 1
        pause = _PAUSES[min(self._deaths - 1, len(_PAUSES) - 1)]
        log.error("the %s ended (exit code %d) after %.0f s; started again in %.0f s", self.stage, code, ran, pause)
        time.sleep(pause)
        if not self._stopping:
            self.start()

    def problem(self) -> str | None:
        """What is wrong with it, None while it runs."""
        running = self._process is not None and self._process.poll() is None
        return None if running else f"the {self.stage} is not running"

    def terminate(self) -> None:
        """Ask it to end."""
        self._stopping = True
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        self.terminate()
        if self._process is None:
            return
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("the %s did not end within %d s and is killed", self.stage, _STOP_SECONDS)
            self._process.kill()
            self._process.wait()


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it dies: a parent that is killed cannot say so.

    Args:
        parent: its process id, told by itself: it may be dead before this process can ask who it was.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
