"""``ainode`` for tests that give many commands: each is a process of its own, forked from one that has imported it all.

    python -m tests.forked

reads a command from each line of standard input, as JSON, and answers with its exit status and what it printed. A fork
takes milliseconds, the imports of a command that runs a bundle several seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Self

from node.cli import main

_ALL = ("node.cli", "node.console", "node.core", "node.models_console", "node.offline", "pipelines.bundle.engine")


class Forked:
    """Runs commands of ``ainode``."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.forked"]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def __call__(self, config: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command, as ``subprocess.run`` would."""
        command = ["ainode", "--config", str(config), *words]
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()
        status, out, err = json.loads(self._server.stdout.readline())
        return subprocess.CompletedProcess(command, status, out, err)


def _run(command: Sequence[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            _become(command)
        _, ended = os.waitpid(child, 0)
        for file in (out, err):
            file.seek(0)
        return os.waitstatus_to_exitcode(ended), out.read(), err.read()


def _become(command: Sequence[str]) -> None:
    sys.argv = list(command)
    status: object = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:  # noqa: BLE001  (as the interpreter does with what nobody caught)
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Without taking down, module by module, all that was imported: that takes a second.
        os._exit(status if isinstance(status, int) else int(status is not None))


def _serve() -> None:
    for name in _ALL:
        importlib.import_module(name)
    for point in entry_points(group="ainode.pipelines"):
        point.load()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
