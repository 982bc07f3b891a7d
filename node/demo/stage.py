"""The stage of the demo: a node as a site would run it (its own process, its own settings file), and a small PACS."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import yaml

from node.dicom.sink import Sink
from node.domain.errors import InvalidInput, TimedOut
from node.domain.peer import Peer

SENDER = "DEMO-CT"
_MARK = ".ainode-demo"
_START_SECONDS = 60
_STOP_SECONDS = 30


@dataclass(frozen=True)
class Stage:
    """A running node and its PACS."""

    node: Peer
    url: str
    token: str
    pacs: Sink
    log: Path

    def get(self, path: str) -> Any:
        """Ask the admin API, as an administrator's program would."""
        request = urllib.request.Request(  # noqa: S310  (our own address)
            f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)


def empty(out: Path) -> Path:
    """Make the demo's folder, emptied of what an earlier demo left.

    Raises:
        InvalidInput: the folder holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARK).exists():
        raise InvalidInput("--out", f"{out} is not empty and not from a demo", "Name another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()
    return out.absolute()


@contextmanager
def staged(out: Path) -> Iterator[Stage]:
    """Start the PACS and the node; stop both afterwards."""
    pacs = Sink("PACS", 0, out / "pacs")
    pacs.start()
    port, api_port = free_port(11112), free_port(8080)
    config = out / "node.yaml"
    config.write_text(yaml.safe_dump(_settings(out, port, api_port, pacs.port), sort_keys=False))
    log = out / "node.log"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("AINODE_")}
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "node", "--config", str(config), "serve", "--with-parent", str(os.getpid())]
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environ, start_new_session=True)  # noqa: S603
    try:
        url = f"http://127.0.0.1:{api_port}"
        _await(process, url, log)
        token = (out / "var" / "api.token").read_text().strip()
        yield Stage(Peer("node", "AINODE", "127.0.0.1", port, send=True), url, token, pacs, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        pacs.stop()


def _settings(out: Path, port: int, api_port: int, pacs_port: int) -> dict[str, Any]:
    return {
        "node": {
            "ae_title": "AINODE",
            "host": "127.0.0.1",
            "port": port,
            "data_dir": str(out / "var"),
            "min_free_mb": 256,
        },
        "api": {"host": "127.0.0.1", "port": api_port},
        "assemble": {"quiet_seconds": 2},
        "peers": {
            SENDER: {"ae_title": SENDER, "host": "127.0.0.1", "receive": True},
            "PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port, "send": True},
        },
        "routes": [
            {"name": "chest-ct", "when": {"Modality": "CT"}, "pipeline": "lung_density_ct", "send_to": ["PACS"]}
        ],
    }


def free_port(wanted: int) -> int:
    """``wanted`` if nobody has it, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise InvalidInput("port", "no port is free", "Stop something that listens")


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise TimedOut(f"the node ended at once; its log is {log}:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise TimedOut(f"the node was not ready within {_START_SECONDS} s; its log is {log}")
