"""How fast results go out, side by side in one run: DCMTK's storescu and the outbox of the node, to the same receivers.

    python bench/delivery.py                275 secondary captures of 768 KiB, medians of five
    python bench/delivery.py --quick        a smoke run: 20 objects, one round

Each measurement starts its receiver anew on an empty folder. ``storescu`` is timed without its start. ``sender`` is the
SCU alone; ``outbox`` is what a running node does: rows claimed, files sent, every answer written with its event.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from ingestion.receivers import RECEIVERS, ROOT, BenchError, Running, environment, running, system_program

from node.clock import SystemClock
from node.dicom.scu import StorageSender
from node.domain.delivery import Delivery, DeliveryState
from node.domain.instance import Incoming
from node.domain.part10 import head
from node.domain.peer import Peer
from node.files.disk import DiskFiles
from node.services.breaker import Breaker
from node.services.deliver import Deliver
from node.services.outbox import Outbox
from node.services.patience import Patience
from node.store.database import Database

OBJECTS, QUICK = 275, 20
RECEIVING = ("orthanc", "dcmtk")
SENDERS = ("storescu", "sender", "outbox")
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_EXPLICIT = "1.2.840.10008.1.2.1"
_ROWS = 512  # and columns, of three bytes each
_SECONDS = timedelta(seconds=60)


def main() -> None:
    """Measure, print and write."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        files = corpus(Path(scratch) / "objects", QUICK if options.quick else OBJECTS)
        found = measured(files, Path(scratch), 1 if options.quick else options.repeat)
    for receiver, rates in found.items():
        for sender, rate in rates.items():
            ratio = rate / rates["storescu"]
            print(f"to {RECEIVERS[receiver].title:24} {sender:10} {rate:7.1f} objects/s {ratio:5.2f} x storescu")
    options.out.write_text(json.dumps({"objects": len(files), "objects_per_second": found}, indent=2) + "\n")
    print(f"written to {options.out}")


def measured(files: Sequence[Path], work: Path, repeat: int) -> dict[str, dict[str, float]]:
    """Objects per second, medians, by receiver and sender; the senders take turns in being first.

    Raises:
        BenchError: a receiver cannot run, or not all arrived.
    """
    rates: dict[str, dict[str, list[float]]] = {r: {s: [] for s in SENDERS} for r in RECEIVING}
    send: dict[str, Callable[[Running, Sequence[Path], Path], float]] = {
        "storescu": _storescu,
        "sender": _sender,
        "outbox": _outbox,
    }
    for turn in range(repeat):
        for receiver in RECEIVING:
            for number in range(len(SENDERS)):
                name = SENDERS[(turn + number) % len(SENDERS)]
                with running(RECEIVERS[receiver], work / "receiver") as at:
                    seconds = send[name](at, files, work)
                rates[receiver][name].append(len(files) / seconds)
    return {receiver: {name: median(of) for name, of in by.items()} for receiver, by in rates.items()}


def corpus(folder: Path, count: int) -> list[Path]:
    """Colour captures as the node makes them, without a patient: little noise, as overlays have."""
    from pydicom import Dataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    folder.mkdir(parents=True)
    pixels = random.Random(1).randbytes(_ROWS) * (3 * _ROWS)
    paths = []
    for number in range(count):
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID = _CAPTURE, f"2.25.1{number:06}"
        made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = "2.25.2", "2.25.3", "OT"
        made.PatientID, made.PatientName, made.InstanceNumber = "BENCH", "BENCH", number + 1
        made.Rows = made.Columns = _ROWS
        made.SamplesPerPixel, made.PlanarConfiguration, made.PhotometricInterpretation = 3, 0, "RGB"
        made.BitsAllocated = made.BitsStored = 8
        made.HighBit, made.PixelRepresentation, made.PixelData = 7, 0, pixels
        made["PixelData"].VR = "OB"
        encoded = DicomBytesIO()
        encoded.is_little_endian, encoded.is_implicit_VR = True, False
        write_dataset(encoded, made)
        path = folder / f"{number:04}.dcm"
        incoming = Incoming(_CAPTURE, made.SOPInstanceUID, _EXPLICIT, encoded.getvalue(), "BENCH")
        path.write_bytes(head(incoming) + incoming.dataset)
        paths.append(path)
    return paths


def _storescu(at: Running, files: Sequence[Path], work: Path) -> float:
    """Without the start of its process; with its association, as the others have one."""
    address = ["-aec", at.ae_title, "127.0.0.1", str(at.port)]
    begun = time.monotonic()
    _run("storescu", "--version")
    started = time.monotonic()
    _run("storescu", "--max-send-pdu", "131072", *address, *map(str, files))
    return time.monotonic() - started - (started - begun)


def _run(program: str, *arguments: str) -> None:
    path = system_program(program)
    if path is None:
        raise BenchError(f"DCMTK's {program} is not installed")
    subprocess.run([path, *arguments], env=environment(), check=True, capture_output=True)


def _peer(at: Running) -> Peer:
    return Peer("PACS", at.ae_title, "127.0.0.1", at.port, send=True)


def _sender(at: Running, files: Sequence[Path], work: Path) -> float:
    statuses: list[int] = []
    begun = time.monotonic()
    StorageSender("BENCH").send(_peer(at), files, lambda index, status, comment: statuses.append(status))
    seconds = time.monotonic() - begun
    if statuses != [0] * len(files):
        raise BenchError("not all objects were taken")
    return seconds


def _outbox(at: Running, files: Sequence[Path], work: Path) -> float:
    peer, clock, now = _peer(at), SystemClock(), datetime.now(UTC)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        database = Database(f"sqlite:///{scratch}/node.db")
        database.prepare()
        patience = Patience(_SECONDS, _SECONDS, timedelta(days=7), lambda: 0.5)
        sender = StorageSender("BENCH")
        breaker = Breaker(database.write, clock, sender, peer, patience)
        outbox = Outbox(
            database.write, database.write_unsynced, database.read, clock, peer, breaker, patience, _SECONDS
        )
        courier = Deliver(outbox, DiskFiles(files[0].parent, min_free_bytes=0), sender, owner="bench")
        courier.deliver()  # nothing: as for storescu, the start is not timed
        with database.write() as tx:
            tx.deliveries.add(_delivery(path, number, now) for number, path in enumerate(files))
        begun = time.monotonic()
        while courier.deliver():
            pass
        seconds = time.monotonic() - begun
        with database.read() as tx:
            counts = tx.deliveries.counts()
        database.close()
    if counts != {("PACS", DeliveryState.DELIVERED): len(files)}:
        raise BenchError("not all objects were delivered")
    return seconds


def _delivery(path: Path, number: int, now: datetime) -> Delivery:
    uid = f"2.25.1{number:06}"
    pending = DeliveryState.PENDING
    return Delivery(0, "job", "2.25.2", uid, _CAPTURE, _EXPLICIT, path.name, "PACS", pending, 0, number, now, now)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="rounds; odd, so that the median is one of them")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".cache" / "bench-results", help="what is sent and received"
    )
    parser.add_argument("--out", type=Path, help="the result file; WORK/delivery.json by default")
    options = parser.parse_args()
    options.work = options.work.absolute()
    options.out = options.out or options.work / "delivery.json"
    return options


if __name__ == "__main__":
    main()
