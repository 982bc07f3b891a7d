"""How soon a complete CT settles: from the last C-STORE response, as the sender has it, to the settling of the study.

    python bench/evidence.py [--study DIR] [--repeat 5]

Each run starts ``ainode scp`` anew on an empty folder, with a quiet time of 60 s, and sends the series by one
association, which is released. Without ``--study`` a phantom of 275 slices of 512 × 512 is made. The target is 1 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import yaml
from ingestion.machine import Machine
from ingestion.receivers import ROOT, SENDER_AE_TITLE, Receiver, Running, running

from node.dicom.scu import StorageSender
from node.dicom.send_dir import collect
from node.domain.peer import Peer
from node.store.database import Database
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom

QUIET_SECONDS = 60
TARGET_SECONDS = 1.0


def command(folder: Path, port: int) -> list[str]:
    """``ainode scp``, with the defaults but for the quiet time."""
    settings = {
        "node": {"host": "127.0.0.1", "port": port, "data_dir": str(folder / "store")},
        "assemble": {"quiet_seconds": QUIET_SECONDS},
        "peers": {"SENDER": {"ae_title": SENDER_AE_TITLE, "host": "127.0.0.1", "receive": True}},
    }
    config = folder / "node.yaml"
    config.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "node", "--config", str(config), "scp"]


AINODE = Receiver("ainode", "ainode", "AINODE", command, lambda: None, lambda: "")


def measure(files: list[Path], work: Path) -> float:
    """Seconds from the last response to the settling, of one run."""
    answered: list[datetime] = []

    def on_status(index: int, status: int, comment: str) -> None:
        if status != 0:
            raise SystemExit(f"{files[index]} was answered with {status:04X} {comment}")
        answered.append(datetime.now(UTC))

    with running(AINODE, work / "evidence") as at:
        peer = Peer("NODE", at.ae_title, "127.0.0.1", at.port)
        StorageSender(SENDER_AE_TITLE).send(peer, files, on_status)
        return (settled(at) - answered[-1]).total_seconds()


def settled(at: Running) -> datetime:
    """When the only study settled by evidence."""
    database = Database(f"sqlite:///{at.store}/ainode.db")
    try:
        for _ in range(10 * QUIET_SECONDS):
            with database.read() as tx:
                events = [event for study in tx.studies.latest() for event in tx.journal.of_study(study.study_uid)]
            for event in events:
                if event.step == "evidence":
                    return event.at
            time.sleep(0.1)
    finally:
        database.close()
    raise SystemExit(f"no evidence within the quiet time; the study says {[e.detail for e in events]}")


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="a folder with one complete CT series")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench-evidence")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print(Machine.here(options.work))
    with tempfile.TemporaryDirectory() as scratch:
        if options.study is None:
            write_series(make_phantom(PhantomSpec(shape=(275, 512, 512), spacing=(1.1, 0.7, 0.7))), Path(scratch))
        files = list(collect(options.study or Path(scratch)).files)
        os.sync()
        seconds = [measure(files, options.work) for _ in range(options.repeat)]
    median, worst = statistics.median(seconds), max(seconds)
    print(f"{len(files)} slices, {len(seconds)} runs: {', '.join(f'{second:.2f}' for second in seconds)} s")
    verdict = "pass" if worst < TARGET_SECONDS else "FAIL"
    print(f"{verdict}: median {median:.2f} s, worst {worst:.2f} s; target: under {TARGET_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
