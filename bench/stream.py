"""A stream of studies through the whole node, and what the node adds to the network.

    python bench/stream.py                              a stream of 20 phantoms, jobs one by one and beside each other
    python bench/stream.py --study DIR                  and the node's overhead on that study
    python bench/stream.py --quick                      a smoke run: 3 studies

A node is started on an empty directory, with a pipeline whose network is a small U-Net with random weights. Objects
come in by C-STORE and the results leave by C-STORE, all on this machine. The overhead is the time from the answer to
the last object to the answer to the last result, without the quiet time and without the stages of the pipeline.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml
from ingestion.machine import Machine
from pydicom import dcmread
from streaming.pipeline import install

from node.dicom.scu import StorageSender
from node.dicom.sink import Sink
from node.domain.delivery import Delivery
from node.domain.ids import derived_uid
from node.domain.job import Job
from node.domain.peer import Peer
from node.store.database import Database
from pipelines.contract import BESIDE_THE_DEVICE
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom

ROOT = Path(__file__).resolve().parents[1]
_QUIET_SECONDS = 1.0
_LONGEST_SECONDS = 3600.0
_OURS = {"select", "read", "load", "compose", "check"}  # stages of the node; the others are the pipeline's


def main() -> None:
    """Measure, print and write."""
    options = _options()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": asdict(Machine.here(options.work)),
        "device": options.device,
        "streams": [],
    }
    studies = _phantoms(options.work / "studies", 3 if options.quick else options.studies)
    for beside in (1, 2):
        with node(options.work / f"beside-{beside}", options.device, beside) as running:
            result["streams"].append(_stream(running, studies, beside))
        print(json.dumps(result["streams"][-1]))
    if options.study is not None:
        files = sorted(path for path in options.study.rglob("*") if path.is_file())
        copies = [_renamed(files, options.work / f"copy-{n}", n) for n in range(1, 2 if options.quick else 4)]
        with node(options.work / "overhead", options.device, 2) as running:
            # The first one also loads the network.
            result["overhead"] = [_overhead(running, copy, n) for n, copy in enumerate(copies, 1)]
        print(json.dumps(result["overhead"], indent=1))
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--study", type=Path, help="a folder with one study")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench-stream" / "work")
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "bench-stream" / "result.json")
    return parser.parse_args()


def _phantoms(folder: Path, number: int) -> list[list[Path]]:
    specs = [PhantomSpec(shape=(100, 256, 256), spacing=(3.0, 1.4, 1.4), seed=f"bench {n}") for n in range(number)]
    return [write_series(make_phantom(spec), folder / str(n)) for n, spec in enumerate(specs)]


class Node:
    """A node that runs, and its PACS."""

    def __init__(self, port: int, data_dir: Path) -> None:
        self._peer = Peer("node", "AINODE", "127.0.0.1", port)
        self._url = f"sqlite:///{data_dir}/ainode.db"

    def send(self, files: Sequence[Path]) -> datetime:
        """Send files; returns when the last one was answered."""

        def answered(index: int, status: int, comment: str) -> None:
            if status != 0:
                raise SystemExit(f"{files[index]}: {status:04X} {comment}")

        StorageSender("BENCH").send(self._peer, files, answered)
        return datetime.now(UTC)

    def rows(self) -> tuple[list[Job], list[Delivery]]:
        """Jobs and deliveries."""
        database = Database(self._url)
        try:
            with database.read() as tx:
                return tx.jobs.latest(limit=1000), tx.deliveries.latest(limit=100_000)
        finally:
            database.close()

    def until(self, holds: Callable[[list[Job], list[Delivery]], bool]) -> tuple[list[Job], list[Delivery]]:
        """Wait; looks seldom, because looking takes the time of the node's cores."""
        deadline = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < deadline:
            jobs, deliveries = self.rows()
            if any(j.state.value in ("dead", "refused") for j in jobs):
                raise SystemExit(f"a job failed: {[j.reason for j in jobs if j.reason]}")
            if holds(jobs, deliveries):
                return jobs, deliveries
            time.sleep(1.0)
        raise SystemExit("the node did not finish")


@contextmanager
def node(folder: Path, device: str, beside: int) -> Iterator[Node]:
    """Start a node and a PACS in an empty folder, and end them."""
    folder.mkdir(parents=True)
    port, api, out = (_free_port() for _ in range(3))
    sink = Sink("PACS", out, folder / "pacs")
    settings = {
        "node": {"host": "127.0.0.1", "port": port, "data_dir": str(folder / "var"), "accept_unknown_peers": True},
        "api": {"port": api},
        "assemble": {"quiet_seconds": _QUIET_SECONDS, "evidence": False},
        "peers": {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": out, "send": True}},
        "routes": [{"name": "all", "pipeline": "bench", "send_to": ["PACS"]}],
        "work": {"device": device, "beside": beside},
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "node", "--config", str(folder / "node.yaml"), "serve"]
    sink.start()
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | install(folder / "installed"), stdout=log, stderr=log
        )
    try:
        _wait_for(port, process)
        yield Node(port, folder / "var")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        sink.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the node did not start; see node.log")


def _device_seconds(job: Job) -> float:
    timings = job.timings or {}
    return sum(seconds for stage, seconds in timings.items() if stage not in BESIDE_THE_DEVICE and stage != "wait")


def _stream(running: Node, studies: list[list[Path]], beside: int) -> dict[str, Any]:
    """Send everything, then let the node work it off."""
    for files in studies:
        running.send(files)
    jobs, _ = running.until(
        lambda jobs, _: len(jobs) == len(studies) and all(j.state.value == "succeeded" for j in jobs)
    )
    first = min(j.started_at for j in jobs if j.started_at)
    wall = (max(j.finished_at for j in jobs if j.finished_at) - first).total_seconds()
    device = sum(_device_seconds(job) for job in jobs)
    return {
        "beside": beside,
        "studies": len(studies),
        "wall_s": round(wall, 1),
        "studies_per_hour": round(3600 * len(studies) / wall),
        "device_busy": round(device / wall, 3),
        "device_s_per_study": round(device / len(studies), 2),
        "outside_s_per_study": round((wall - device) / len(studies), 2),
    }


def _overhead(running: Node, files: list[Path], number: int) -> dict[str, Any]:
    """One study, the ``number``-th of this node, from its last object in to its last result out."""
    last_in = running.send(files)
    jobs, deliveries = running.until(
        lambda jobs, deliveries: (
            len(jobs) == number
            and bool(deliveries)
            and all(j.state.value == "succeeded" for j in jobs)
            and all(d.delivered_at for d in deliveries)
        )
    )
    job = max(jobs, key=lambda j: j.created_at)
    mine = [d for d in deliveries if d.job_id == job.id]
    assert job.started_at is not None
    assert job.finished_at is not None
    last_out = max(d.delivered_at for d in mine if d.delivered_at)
    network = sum(seconds for stage, seconds in (job.timings or {}).items() if stage not in _OURS)
    total = (last_out - last_in).total_seconds()
    return {
        "total_s": round(total, 2),
        "network_s": round(network, 2),
        "overhead_s": round(total - network - _QUIET_SECONDS, 2),
        "until_claimed_s": round((job.started_at - last_in).total_seconds() - _QUIET_SECONDS, 2),
        "job_s": round((job.finished_at - job.started_at).total_seconds() - network, 2),
        "deliver_s": round((last_out - job.finished_at).total_seconds(), 2),
        "results": len(mine),
        "timings": dict(job.timings or {}),
    }


def _renamed(files: list[Path], folder: Path, number: int) -> list[Path]:
    """Copies that are another study."""
    folder.mkdir()
    for path in files:
        dataset = dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, derived_uid("bench", str(dataset[keyword].value), str(number)))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / path.name)
    return sorted(folder.iterdir())


if __name__ == "__main__":
    main()
