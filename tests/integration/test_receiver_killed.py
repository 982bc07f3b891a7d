"""``kill -9`` of a receiver in mid-stream: what it acknowledged is there, whole; what it did not can be sent again."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from node.dicom.scu import StorageSender
from node.domain.errors import PeerUnreachable
from node.domain.peer import Peer
from node.files.disk import DiskFiles
from node.services.receive import read_kept
from tests import objects

SENDERS, OBJECTS = 4, 25


@contextmanager
def receiver(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], Peer]]:
    command = [sys.executable, "-m", "tests.integration.receiver", str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Peer("NODE", "AINODE", "127.0.0.1", int(process.stdout.readline()), timeout_seconds=10)
        process.kill()


def make(directory: Path) -> dict[Path, str]:
    """Objects of about half a megabyte, and the digests of their data sets."""
    made = {}
    for number in range(SENDERS * OBJECTS):
        pixels = number.to_bytes(2, "little") * (512 * 512)
        sent = objects.incoming(SOPInstanceUID=f"1.2.3.{number}", Rows=512, Columns=512, PixelData=pixels)
        made[objects.write(directory / f"{number}.dcm", sent)] = hashlib.sha256(sent.dataset).hexdigest()
    return made


@pytest.mark.parametrize("kill_after", [1, 17, 60])
def test_every_acknowledged_instance_is_on_disk_and_whole(tmp_path: Path, kill_after: int) -> None:
    made = make(tmp_path)
    paths = list(made)
    data_dir = tmp_path / "var"
    acknowledged: list[Path] = []
    enough = threading.Event()

    def send(peer: Peer, mine: list[Path]) -> None:
        def on_status(index: int, status: int, comment: str) -> None:
            assert status == 0
            acknowledged.append(mine[index])
            if len(acknowledged) >= kill_after:
                enough.set()

        with suppress(PeerUnreachable):
            StorageSender("CT1").send(peer, mine, on_status)

    with receiver(data_dir) as (process, peer):
        threads = [threading.Thread(target=send, args=(peer, paths[n::SENDERS])) for n in range(SENDERS)]
        for thread in threads:
            thread.start()
        assert enough.wait(30)
        process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert kill_after <= len(acknowledged) < len(paths), "it was to be killed in mid-stream"

    files = DiskFiles(data_dir, min_free_bytes=0)
    kept = {read_kept(files, path).sop_instance_uid: files.digest(path) for path in files.all_instances()}
    for path in acknowledged:
        assert kept[f"1.2.3.{path.stem}"] == made[path]

    with receiver(data_dir) as (_, peer):
        statuses: list[int] = []
        StorageSender("CT1").send(peer, paths, lambda index, status, comment: statuses.append(status))
        assert statuses == [0] * len(paths)
        assert list(files.absolute("tmp").iterdir()) == []
    assert sorted(files.digest(path) for path in files.all_instances()) == sorted(made.values())
    assert list(files.all_asides()) == []
