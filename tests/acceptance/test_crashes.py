"""``kill -9`` of any process at any stage, then a restart: nothing acknowledged is lost, results arrive once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from node.dicom.scu import StorageSender
from node.dicom.sink import Sink
from node.domain.errors import PeerUnreachable
from node.domain.peer import Peer
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests.running import RunningNode, eventually, free_port, modalities

pytestmark = pytest.mark.slow

SLICES = 60


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A phantom that is analysed in a few seconds."""
    folder = tmp_path_factory.mktemp("phantom")
    return write_series(make_phantom(PhantomSpec(shape=(SLICES, 128, 128), spacing=(5.0, 2.8, 2.8))), folder)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Sink]:
    sink = Sink("PACS", free_port(), tmp_path / "pacs")
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture
def node(tmp_path: Path, pacs: Sink) -> Iterator[RunningNode]:
    running = RunningNode(tmp_path, pacs_port=pacs.port)
    yield running.start()
    running.close()


def send(node: RunningNode, files: list[Path], *, kill_after: int | None = None) -> list[str]:
    """Send files; returns the SOPInstanceUIDs that were acknowledged. With ``kill_after`` the node dies meanwhile."""
    acknowledged: list[str] = []
    killer: list[threading.Thread] = []

    def answered(index: int, status: int, comment: str) -> None:
        assert status == 0, comment
        acknowledged.append(str(dcmread(files[index], specific_tags=["SOPInstanceUID"]).SOPInstanceUID))
        if len(acknowledged) == kill_after:
            killer.append(threading.Thread(target=node.kill))
            killer[0].start()

    try:
        StorageSender("CT1").send(Peer("node", "AINODE", "127.0.0.1", node.port), files, answered)
    except PeerUnreachable:
        assert kill_after is not None
    for thread in killer:
        thread.join()
    return acknowledged


def results_are_there_once(node: RunningNode, pacs: Sink, tmp_path: Path) -> None:
    eventually(node.all_delivered, "all is delivered", seconds=120)
    _, _, deliveries = node.rows()
    assert set(pacs.stored) == {d.sop_instance_uid for d in deliveries}
    assert modalities((tmp_path / "pacs").glob("*.dcm")) == {"SR": 1, "SEG": 1, "OT": SLICES + 1}


def test_killed_while_receiving(node: RunningNode, pacs: Sink, study: list[Path], tmp_path: Path) -> None:
    acknowledged = send(node, study, kill_after=SLICES // 3)
    assert 0 < len(acknowledged) < SLICES
    node.start()
    assert set(acknowledged) <= node.kept()
    send(node, study)
    results_are_there_once(node, pacs, tmp_path)
    assert len(node.kept()) == SLICES


def test_killed_while_settling(node: RunningNode, pacs: Sink, study: list[Path], tmp_path: Path) -> None:
    send(node, study)
    node.kill()
    node.start()
    results_are_there_once(node, pacs, tmp_path)


@pytest.mark.parametrize("victim", ["node", pytest.param("worker", marks=pytest.mark.long), "runner"])
def test_killed_while_running(node: RunningNode, pacs: Sink, study: list[Path], tmp_path: Path, victim: str) -> None:
    send(node, study)
    eventually(lambda: any(j.state.value == "running" for j in node.rows()[1]), "the job runs")
    if victim == "node":
        node.kill()
        node.start()
    else:
        for process in [node.worker()] if victim == "worker" else node.runners():
            process.kill()
    results_are_there_once(node, pacs, tmp_path)
    (job,) = node.rows()[1]
    assert job.attempt == 2


@pytest.mark.long
def test_killed_while_delivering(study: list[Path], tmp_path: Path) -> None:
    pacs = Sink("PACS", free_port(), tmp_path / "pacs", seconds=0.05)
    pacs.start()
    node = RunningNode(tmp_path, pacs_port=pacs.port).start()
    try:
        send(node, study)
        eventually(lambda: len(pacs.stored) > SLICES // 3, "a third is delivered", seconds=120)
        node.kill()
        assert len(pacs.stored) < SLICES
        node.start()
        results_are_there_once(node, pacs, tmp_path)
    finally:
        node.close()
        pacs.stop()
    # What was answered in the last moment before is sent again, with the same bytes; the report is still the last.
    assert sum(pacs.stored.values()) < 1.5 * SLICES
    assert modalities([tmp_path / "pacs" / f"{pacs.order[-1]}.dcm"]) == {"SR": 1}


def test_the_pacs_is_down_for_a_while(node: RunningNode, pacs: Sink, study: list[Path], tmp_path: Path) -> None:
    pacs.stop()
    send(node, study)
    eventually(lambda: any(d.reason for d in node.rows()[2]), "a delivery was tried", seconds=120)
    assert all(d.state.value in ("pending", "sending") for d in node.rows()[2])
    assert node.status("/readyz") == 200
    pacs.start()
    results_are_there_once(node, pacs, tmp_path)
    assert set(pacs.stored.values()) == {1}


@pytest.mark.long
def test_a_dead_peer_delays_nobody_else(pacs: Sink, study: list[Path], tmp_path: Path) -> None:
    """The dead one is the worst kind: it takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        peers = {
            "CT1": {"ae_title": "CT1", "host": "127.0.0.1", "receive": True},
            "DEAD": {"ae_title": "DEAD", "host": "127.0.0.1", "port": mute.getsockname()[1], "send": True},
            "PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port, "send": True},
        }
        route = {"name": "chest-ct", "pipeline": "lung_density_ct", "send_to": ["DEAD", "PACS"]}
        node = RunningNode(tmp_path, pacs_port=pacs.port, peers=peers, routes=[route]).start()
        try:
            send(node, study)
            eventually(lambda: len(pacs.stored) == SLICES + 3, "the living peer has everything", seconds=60)
            waiting = {d.state.value for d in node.rows()[2] if d.peer == "DEAD"}
            assert waiting <= {"pending", "sending"}
        finally:
            node.close()


def test_own_results_that_come_back_are_recognised(
    node: RunningNode, pacs: Sink, study: list[Path], tmp_path: Path
) -> None:
    send(node, study)
    results_are_there_once(node, pacs, tmp_path)
    before = node.rows()
    back = sorted((tmp_path / "pacs").glob("*.dcm"))
    StorageSender("PACS").send(
        Peer("node", "AINODE", "127.0.0.1", node.port), back, lambda index, status, comment: None
    )
    studies, jobs, deliveries = node.rows()
    assert studies == before[0]
    assert len(jobs) == len(before[1])
    assert len(deliveries) == len(before[2])
