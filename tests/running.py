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
    """One node on a directory of its own."""

    def __init__(self, root: Path, *, pacs_port: int, quiet: float = 1.0, **sections: Any) -> None:
        self.root = root
        self.port, self.api_port = free_port(), free_port()
        self.data_dir = root / "var"
        self.config = root / "node.yaml"
        settings: dict[str, Any] = {
            "node": {"ae_title": "AINODE", "host": "127.0.0.1", "port": self.port, "data_dir": str(self.data_dir),
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
        settings.update(sections)
        self.config.write_text(yaml.safe_dump(settings))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the node has logged so far, over all its starts."""
        return (self.root / "node.log").read_text(errors="replace")

    def command(self, *words: str) -> list[str]:
        """``ainode`` with this node's settings."""
        return [sys.executable, "-m", "node", "--config", str(self.config), *words]

    def start(self) -> RunningNode:
        """Start it and wait until it is ready."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("AINODE_")}
        with (self.root / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command("serve"), stdout=log, stderr=log, env=environ, start_new_session=True
            )
        eventually(self._ready, f"the node is ready; its log:\n{self.log[-3000:]}")
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-3000:]
        try:
            return self.status("/readyz") == 200
        except OSError:
            return False

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

    def worker(self) -> psutil.Process:
        """The worker process."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return next(c for c in children if "worker" in c.cmdline())

    def runner(self) -> psutil.Process:
        """The worker's child, which runs the jobs."""
        return next(c for c in self.worker().children() if "spawn_main" in " ".join(c.cmdline()))

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
        token = (self.data_dir / "api.token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api_port}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

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
