"""What a receiver process holds: memory, open files and threads, under load and under rudeness."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from tests import objects
from tests.rawpeer import CT_CONTEXT, RawPeer, associate_rq, p_data, pdu, pdv, store_rq
from tests.running import RunningNode, eventually

pytestmark = pytest.mark.slow

MIB = 1 << 20
LARGE = 512 * MIB
FRAGMENT = 1 << 16
LISTENER_AND_OTHER = 2
# What is opened and started as it is needed: connections of the database of three files each, and threads.
POOL_FILES, TICKER_THREADS = 18, 10
RUDE = [
    associate_rq() + p_data(pdv(1, 3, store_rq()), pdv(1, 0, bytes(60_000))),
    associate_rq() + p_data(pdv(1, 3, store_rq()), pdv(1, 0, bytes(60_000)))[:-1],
    associate_rq() + p_data(pdv(1, 3, pdv(1, 3, store_rq()))),
    associate_rq() + p_data(pdv(1, 3, store_rq(), 0xFFFFFFFF)),
    associate_rq() + pdu(4, b"", 0xFFFFFFFF),
    associate_rq() + p_data(pdv(1, 3, store_rq())) + pdu(7, bytes(4)),
    associate_rq(called="OTHER"),
    pdu(1, bytes(400_000)),
]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    raw = {"RAW": {"ae_title": "RAW", "host": "127.0.0.1", "receive": True}}
    running = RunningNode(tmp_path, pacs_port=1, quiet=3600, peers=raw, routes=[], node={"max_associations": 50})
    yield running.start("scp")
    running.close()


def receiver(node: RunningNode) -> psutil.Process:
    assert node.process is not None
    return psutil.Process(node.process.pid)


def send_large(peer: RawPeer, pixels: int) -> int:
    """The status of a multi-frame object that is made while it is sent."""
    head = objects.incoming(
        SOPInstanceUID="1.2.3.4", NumberOfFrames=pixels >> 19, Rows=512, Columns=512, PixelData=None
    ).dataset + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, pixels)
    peer.send(p_data(pdv(CT_CONTEXT, 3, store_rq("1.2.3.4"))), p_data(pdv(CT_CONTEXT, 0, head)))
    frame = p_data(pdv(CT_CONTEXT, 0, bytes(FRAGMENT)))
    for _ in range(pixels // FRAGMENT):
        peer.send(frame)
    peer.send(p_data(pdv(CT_CONTEXT, 2, b"")))
    return peer.status()


def test_a_large_object_beside_49_open_associations(node: RunningNode) -> None:
    before = node.peak_memory()
    data_set = objects.incoming(SOPInstanceUID="1.2.3.5", PixelData=bytes(100_000)).dataset
    with ExitStack() as stack:
        idle = [stack.enter_context(RawPeer(node.port)).associate() for _ in range(24)]
        slow = [stack.enter_context(RawPeer(node.port)).associate() for _ in range(25)]
        for number, peer in enumerate(slow):
            peer.send(p_data(pdv(CT_CONTEXT, 3, store_rq(f"1.2.4.{number}"))))
            peer.send(p_data(pdv(CT_CONTEXT, 0, data_set[:70_000]))[:-1])  # the PDU is not whole yet
        large = stack.enter_context(RawPeer(node.port)).associate()
        assert send_large(large, LARGE) == 0
        for peer in slow:
            peer.send(data_set[69_999:70_000], p_data(pdv(CT_CONTEXT, 2, data_set[70_000:])))
        assert [peer.status() for peer in slow] == [0xA900] * len(slow), "each had another SOPInstanceUID in it"
        assert [peer.echo() for peer in idle] == [0] * len(idle)
    peak = node.peak_memory()
    print(f"peak memory {peak / MIB:.1f} MiB, {before / MIB:.1f} MiB after the start")  # noqa: T201
    assert peak < 150 * MIB


def test_500_connections_and_rude_senders_leave_nothing_behind(node: RunningNode) -> None:
    process = receiver(node)
    with RawPeer(node.port).associate() as other:
        assert other.store("1.2.3.0") == 0
        rude(node, rounds=5)  # what is made once is made
        files, threads, before = process.num_fds(), process.num_threads(), process.memory_info().rss
        with ExitStack() as stack:
            for number in range(500):
                peer = stack.enter_context(RawPeer(node.port))
                with suppress(ConnectionError):
                    peer.send((b"", associate_rq(), b"GET / HTTP/1.1\r\n\r\n")[number % 3])
                if number % 100 == 0:
                    assert other.echo() == 0
            assert other.store("1.2.3.1") == 0
        rude(node, rounds=50)
        assert other.store("1.2.3.2") == 0

        def is_calm() -> bool:  # some connections may not even be accepted yet
            return (
                len(process.net_connections("tcp")) == LISTENER_AND_OTHER
                and process.num_fds() <= files + POOL_FILES
                and process.num_threads() <= threads + TICKER_THREADS
                and not list((node.data_dir / "tmp").iterdir())
            )

        eventually(is_calm, "connections, files and threads are given back")
        assert process.memory_info().rss - before < 32 * MIB
    assert "Traceback" not in node.log


def rude(node: RunningNode, *, rounds: int) -> None:
    for _ in range(rounds):
        for stream in RUDE:
            with RawPeer(node.port) as peer, suppress(ConnectionError):
                peer.send(stream)
