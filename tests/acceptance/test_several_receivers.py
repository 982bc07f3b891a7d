"""Several receivers on one port: each is killed, the others go on, and what must be counted is counted over all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from node.dicom.scu import StorageSender
from node.domain.errors import PeerUnreachable
from node.domain.peer import Peer
from tests import objects
from tests.running import RunningNode, eventually, free_port

pytestmark = pytest.mark.slow

RECEIVERS, SENDERS, OBJECTS = 2, 4, 60


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    running = RunningNode(tmp_path, pacs_port=free_port(), quiet=60)
    running.settings["node"] |= {"receivers": RECEIVERS, "max_associations": 5}
    running.settings["peers"]["CT1"]["max_associations"] = 4
    running.write_settings()
    yield running.start()
    running.close()


def associate(node: RunningNode, calling: str = "CT1") -> Association:
    ae = AE(ae_title=calling)
    ae.add_requested_context(Verification)
    ae.add_requested_context(CTImageStorage)
    return ae.associate("127.0.0.1", node.port, ae_title="AINODE")


def test_a_receiver_that_is_killed_takes_nothing_with_it_and_is_started_again(
    node: RunningNode, tmp_path: Path
) -> None:
    before = node.receivers()
    assert len(before) == RECEIVERS
    peer = Peer("NODE", "AINODE", "127.0.0.1", node.port, timeout_seconds=10)
    pixels = bytes(2 * 64 * 64)
    paths = [
        objects.write(
            tmp_path / f"{n}.dcm", objects.incoming(SOPInstanceUID=f"1.2.3.{n}", Rows=64, Columns=64, PixelData=pixels)
        )
        for n in range(SENDERS * OBJECTS)
    ]
    acknowledged: set[str] = set()
    enough = threading.Event()

    def send(mine: list[Path]) -> None:
        def on_status(index: int, status: int, comment: str) -> None:
            assert status == 0
            acknowledged.add(f"1.2.3.{mine[index].stem}")
            if len(acknowledged) >= len(paths) // 3:
                enough.set()

        with suppress(PeerUnreachable):
            StorageSender("CT1").send(peer, mine, on_status)

    threads = [threading.Thread(target=send, args=(paths[n::SENDERS],)) for n in range(SENDERS)]
    for thread in threads:
        thread.start()
    assert enough.wait(30)
    before[0].kill()
    for thread in threads:
        thread.join()
    assert acknowledged
    eventually(lambda: acknowledged <= node.kept(), "every acknowledged instance has a row")
    eventually(lambda: len(node.receivers()) == RECEIVERS, "the receiver is started again")
    assert before[1] in node.receivers()
    eventually(lambda: node.status("/readyz") == 200, "the node is ready")
    send(paths)
    eventually(lambda: len(node.kept()) == len(paths), "all of it came in the end")


def test_associations_are_counted_over_all_receivers(node: RunningNode) -> None:
    held = [associate(node) for _ in range(4)]
    assert all(association.is_established for association in held)
    assert associate(node).is_rejected, "the cap of the peer"
    held.append(associate(node, "PACS"))
    assert held[-1].is_established
    assert associate(node, "PACS").is_rejected, "the cap of the node"
    held.pop().release()
    held.append(associate(node, "PACS"))
    assert held[-1].is_established, "one was released"
    for receiver in node.receivers():
        receiver.kill()
    eventually(lambda: len(node.receivers()) == RECEIVERS, "the receivers are started again")
    eventually(lambda: node.status("/readyz") == 200, "the node is ready")
    again = eventually(lambda: (found := associate(node)).is_established and found, "what died is not counted")
    again.release()


def test_no_connection_is_taken_after_the_node_was_asked_to_stop(node: RunningNode) -> None:
    processes = node.receivers()
    held = associate(node)
    assert held.is_established
    held.release()
    assert node.stop() == 0
    assert not any(process.is_running() for process in processes)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port))
    assert "ERROR" not in node.log, node.log
