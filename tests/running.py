"""A node as a site runs it: ``ainode serve`` in a process of its own, started, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import yaml

from node.domain.delivery import Delivery
from node.domain.job import Job
from node.domain.study import Study
from node.store.database import Database

# ``make soak``: the same tests at full size, for minutes.
SOAK = os.environ.get("AINODE_SOAK") == "1"


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(holds: Callable[[], object], what: str, *, seconds: float = 60.0) -> Any:
    """Wait until ``holds`` gives something true; returns it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class RunningNode:
    """One node on a directory of its own. ``sections`` replace those of its settings, ``node`` only the keys it has."""

    def __init__(self, root: Path, *, pacs_port: int, quiet: float = 1.0, **sections: Any) -> None:
        self.root = root
        self.port, self.api_port = free_port(), free_port()
        self.config = root / "node.yaml"
        self.settings: dict[str, Any] = {
            "node": {"ae_title": "AINODE", "host": "127.0.0.1", "port": self.port, "data_dir": str(root / "var"),
                     "min_free_mb": 64},
            "api": {"host": "127.0.0.1", "port": self.api_port},
            "assemble": {"quiet_seconds": quiet},
            "peers": {
                "CT1": {"ae_title": "CT1", "host": "127.0.0.1", "receive": True},
                "PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port, "send": True, "receive": True},
            },
            "routes": [{"name": "chest-ct", "when": {"Modality": "CT"}, "pipeline": "lung_density_ct",
                        "send_to": ["PACS"]}],
            "work": {"device": "cpu", "retry_seconds": 1},
            "deliver": {"retry_seconds": 1, "retry_max_seconds": 2},
        }  # fmt: skip
        self.settings["node"].update(sections.pop("node", {}))
        self.settings.update(sections)
        self.data_dir = Path(self.settings["node"]["data_dir"])
        self.write_settings()
        self.process: subprocess.Popen[bytes] | None = None

    def write_settings(self) -> None:
        """Write ``settings`` as they are now; read at the next start."""
        self.config.write_text(yaml.safe_dump(self.settings))

    @property
    def log(self) -> str:
        """What the node has logged so far, over all its starts."""
        return (self.root / "node.log").read_text(errors="replace")

    def command(self, *words: str) -> list[str]:
        """``ainode`` with this node's settings."""
        return [sys.executable, "-m", "node", "--config", str(self.config), *words]

    def configure(self, section: str, **keys: Any) -> None:
        """Set keys of a section, before the start."""
        settings = yaml.safe_load(self.config.read_text())
        settings[section].update(keys)
        self.config.write_text(yaml.safe_dump(settings))

    def start(self, stage: str = "serve", *, until: str = "/readyz") -> RunningNode:
        """Start it, or one stage of it, and wait until it is ready, or another open path is served.

        ``scp``, which has no API, is waited for until it listens, ``deliver`` not at all.
        """
        environ = {k: v for k, v in os.environ.items() if not k.startswith("AINODE_")}
        with (self.root / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(stage), stdout=log, stderr=log, env=environ, start_new_session=True
            )
        stages: dict[str, Callable[[], bool]] = {"scp": self._listens, "deliver": self.is_running}
        ready = stages.get(stage, lambda: self._serves(until))
        eventually(ready, f"the node is ready; its log:\n{self.log[-3000:]}")
        return self

    def _serves(self, path: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-3000:]
        try:
            return self.status(path) == 200
        except OSError:
            return False

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-3000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def peak_memory(self) -> int:
        """The largest resident set that the node's main process ever had, in bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    def kill(self) -> None:
        """``kill -9`` of the main process alone; its children have to notice by themselves."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(children, timeout=15)
        assert not alive, "a child outlives the node that was killed"

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        """End what runs, whatever the test has left."""
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def is_running(self) -> bool:
        """Whether the main process lives."""
        return self.process is not None and self.process.poll() is None

    def receivers(self) -> list[psutil.Process]:
        """The receivers that are processes of their own, as ``node.receivers`` wants them."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return [child for child in alive if "receiver" in child.cmdline()]

    def worker(self) -> psutil.Process:
        """The worker process."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return next(c for c in children if "worker" in c.cmdline())

    def runners(self) -> list[psutil.Process]:
        """The worker's children, one of which runs the job; another may be loading what it will need."""
        return [c for c in self.worker().children() if "spawn_main" in " ".join(c.cmdline())]

    def status(self, path: str) -> int:
        """The HTTP status of an open path."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def get(self, path: str) -> Any:
        """Ask the admin API."""
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        """Ask the admin API, or for ``/metrics``."""
        token = (self.data_dir / "api.token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api_port}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read(), "utf-8")

    def rows(self) -> tuple[list[Study], list[Job], list[Delivery]]:
        """Studies, jobs and deliveries, straight from the store."""
        database = Database(f"sqlite:///{self.data_dir}/ainode.db")
        try:
            with database.read() as tx:
                return tx.studies.latest(), tx.jobs.latest(), tx.deliveries.latest(limit=10_000)
        finally:
            database.close()

    def kept(self) -> set[str]:
        """SOPInstanceUIDs of the received instances that have a row."""
        database = Database(f"sqlite:///{self.data_dir}/ainode.db")
        try:
            with database.read() as tx:
                studies = tx.studies.latest()
                return {i.sop_instance_uid for s in studies for i in tx.instances.of_study(s.study_uid)}
        finally:
            database.close()

    def all_delivered(self) -> bool:
        """Whether there is something to deliver and all of it was delivered."""
        _, jobs, deliveries = self.rows()
        done = all(j.state.value in ("succeeded", "refused", "cancelled") for j in jobs)
        return bool(deliveries) and done and all(d.state.value == "delivered" for d in deliveries)


def modalities(paths: Iterable[Path]) -> dict[str, int]:
    """How many objects of each modality lie there."""
    from collections import Counter

    from pydicom import dcmread

    return dict(Counter(str(dcmread(p, specific_tags=["Modality"]).Modality) for p in paths))
