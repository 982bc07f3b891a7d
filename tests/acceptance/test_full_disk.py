"""A disk that fills up, a real one (a small tmpfs): 0xA700, a red light, nothing lost, and on when there is room."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests import objects, peers
from tests.rawpeer import CT_CONTEXT, RawPeer, p_data, pdv, store_rq
from tests.running import RunningNode, eventually

pytestmark = pytest.mark.slow

DISK_MB, OBJECT_MB = 24, 1
MANY = 40  # objects whose rows find no room in the pages that the database has
OUT_OF_RESOURCES = 0xA700
RAW = {"RAW": {"ae_title": "RAW", "host": "127.0.0.1", "receive": True}}


class Disk:
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def grow(self) -> None:
        """Let it hold twice as much."""
        size = f"remount,size={2 * DISK_MB}m"
        subprocess.run([peers.program("mount"), "-o", size, self.folder], check=True)

    def fill(self) -> None:
        """Leave not one byte."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def clear(self) -> None:
        """Give back what was filled."""
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = [peers.program("mount"), "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    yield Disk(folder)
    subprocess.run([peers.program("umount"), "-l", folder], check=True)


def a_node(disk: Disk, root: Path, min_free_mb: int, stage: str = "serve") -> RunningNode:
    at = {"data_dir": str(disk.folder / "var"), "min_free_mb": min_free_mb}
    return RunningNode(root, pacs_port=1, quiet=3600, peers=RAW, routes=[], node=at).start(stage)


def store(peer: RawPeer, uid: str, size: int = OBJECT_MB << 20) -> int:
    """The status of a C-STORE of ``size`` bytes of pixels."""
    data_set = objects.incoming(SOPInstanceUID=uid, PixelData=bytes(size)).dataset
    peer.send(p_data(pdv(CT_CONTEXT, 3, store_rq(uid))))
    for start in range(0, len(data_set), 60_000):
        peer.send(p_data(pdv(CT_CONTEXT, 0, data_set[start : start + 60_000])))
    peer.send(p_data(pdv(CT_CONTEXT, 2, b"")))
    return peer.status()


@contextmanager
def writing_held_up(node: RunningNode) -> Iterator[None]:
    """Nobody else can write to the database meanwhile."""
    with closing(sqlite3.connect(node.data_dir / "ainode.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def lies(node: RunningNode) -> set[str]:
    return {path.stem for path in (node.data_dir / "instances").rglob("*.dcm")}


def test_below_the_watermark_senders_are_told_to_come_back(disk: Disk, tmp_path: Path) -> None:
    node = a_node(disk, tmp_path, min_free_mb=8)
    try:
        with RawPeer(node.port).associate() as peer:
            statuses = {f"1.2.3.{n}": store(peer, f"1.2.3.{n}") for n in range(DISK_MB)}
            kept = {uid for uid, status in statuses.items() if status == 0}
            assert set(statuses.values()) == {0, OUT_OF_RESOURCES}
            assert lies(node) == kept
            assert node.status("/readyz") == 503
            eventually(lambda: node.kept() == kept, "all that was acknowledged has rows")
            assert peer.echo() == 0
            disk.grow()
            refused = next(uid for uid, status in statuses.items() if status)
            assert store(peer, refused) == 0, "there is room: it goes on by itself"
            assert node.status("/readyz") == 200
            eventually(lambda: refused in node.kept(), "what came after it has a row")
    finally:
        node.close()


def test_a_disk_without_one_byte(disk: Disk, tmp_path: Path) -> None:
    """No watermark, and the disk fills up before the rows of what was acknowledged are written."""
    node = a_node(disk, tmp_path, min_free_mb=0)
    try:
        with RawPeer(node.port).associate() as peer:
            with writing_held_up(node):
                acknowledged = {f"1.2.3.{n}" for n in range(MANY)}
                assert {store(peer, uid, 1000) for uid in acknowledged} == {0}
                disk.fill()
                assert node.kept() == set()
            eventually(lambda: "cannot write the rows of" in node.log, "the rows were tried")
            assert store(peer, "1.2.4.1") == OUT_OF_RESOURCES
            assert node.status("/readyz") == 503
            assert lies(node) == acknowledged
            assert list((node.data_dir / "tmp").iterdir()) == []
            disk.clear()
            eventually(lambda: node.kept() == acknowledged, "the rows come later")
            assert node.status("/readyz") == 200
    finally:
        node.close()


def test_the_disk_fills_up_within_an_object(disk: Disk, tmp_path: Path) -> None:
    node = a_node(disk, tmp_path, min_free_mb=0, stage="scp")
    try:
        with RawPeer(node.port).associate() as peer:
            data_set = objects.incoming(PixelData=bytes(100_000)).dataset
            peer.send(p_data(pdv(CT_CONTEXT, 3, store_rq())), p_data(pdv(CT_CONTEXT, 0, data_set[:50_000])))
            eventually(lambda: list((node.data_dir / "tmp").iterdir()), "the object has begun")
            disk.fill()
            peer.send(p_data(pdv(CT_CONTEXT, 2, data_set[50_000:])))
            assert peer.status() == OUT_OF_RESOURCES
            assert list((node.data_dir / "tmp").iterdir()) == []
            disk.clear()
            assert store(peer, "1.2.3.4") == 0
            eventually(lambda: node.kept() == {"1.2.3.4"}, "it has a row")
    finally:
        node.close()


def test_a_start_on_a_full_disk_gives_the_rows_when_there_is_room(disk: Disk, tmp_path: Path) -> None:
    node = a_node(disk, tmp_path, min_free_mb=0, stage="scp")
    try:
        with RawPeer(node.port).associate() as peer, writing_held_up(node):
            acknowledged = {f"1.2.3.{n}" for n in range(MANY)}
            assert {store(peer, uid, 1000) for uid in acknowledged} == {0}
            node.kill()
            disk.fill()
        node.start("scp")
        eventually(lambda: "the index could not be rebuilt" in node.log, "the rows were tried")
        assert node.kept() == set()
        disk.clear()
        eventually(lambda: node.kept() == acknowledged, "the rows come later")
    finally:
        node.close()
