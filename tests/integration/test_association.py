"""The upper layer of the receiver, byte by byte: rude peers get what PS3.8 says, and cost nobody else anything."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pynetdicom import AE, build_role

from node.dicom.scp import StorageSCP
from node.domain.instance import Aside, Instance
from node.files.disk import DiskFiles
from node.services.receive import Receive
from tests import objects, peers
from tests.fakes import FakeClock
from tests.rawpeer import (
    CT_CONTEXT,
    ECHO_CONTEXT,
    RawPeer,
    associate_rq,
    command,
    echo_rq,
    p_data,
    pdu,
    pdv,
    store_rq,
)

SECONDS = 1.0
PROVIDER, USER = 2, 0
ABORT = pdu(7, bytes(4))
RELEASE = pdu(5, bytes(4))
DATA_SET = objects.incoming().dataset


class Node:
    """A receiver with short deadlines."""

    def __init__(self, data_dir: Path) -> None:
        self.files = DiskFiles(data_dir, min_free_bytes=0)
        self.told: list[Instance | Aside] = []
        self.released: list[tuple[str, frozenset[str]]] = []
        receive = Receive(
            self.files, lambda uid: None, lambda uid: False, self.told.append, FakeClock(), max_bytes=1 << 20
        )
        self.scp = StorageSCP(
            "AINODE",
            "127.0.0.1",
            0,
            receive.store,
            lambda calling: True,
            begin=receive.begin,
            on_released=lambda calling, studies: self.released.append((calling, studies)),
            timeout=SECONDS,
            pdu_timeout=SECONDS,
            artim=SECONDS,
        )

    def call(self) -> RawPeer:
        return RawPeer(self.scp.port)

    def is_unharmed(self) -> bool:
        """Nothing half-written is left, and others are served."""
        with self.call().associate() as peer:
            served = peer.echo() == 0
        deadline = time.monotonic() + 5
        while list(self.files.absolute("tmp").iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return served and not list(self.files.absolute("tmp").iterdir())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "var")
    node.scp.start()
    yield node
    node.scp.stop(grace=0)


def test_stores_and_echoes_in_turn_then_release(node: Node) -> None:
    with node.call().associate() as peer:
        assert [peer.store("1.2.3.4"), peer.echo(), peer.store("1.2.3.5"), peer.echo()] == [0, 0, 0, 0]
        assert node.released == []
        peer.send(RELEASE)
        assert peer.read() == (6, bytes(4))
    assert node.is_unharmed()
    assert len(node.told) == 2
    assert node.released == [("RAW", frozenset({"1.2.3"}))]


def test_an_object_that_comes_byte_by_byte(node: Node) -> None:
    with node.call().associate() as peer:
        half = len(DATA_SET) // 2
        stream = p_data(pdv(CT_CONTEXT, 1, store_rq()[:9]), pdv(CT_CONTEXT, 3, store_rq()[9:])) + p_data(
            pdv(CT_CONTEXT, 0, DATA_SET[:half]), pdv(CT_CONTEXT, 0, b""), pdv(CT_CONTEXT, 2, DATA_SET[half:])
        )
        for byte in stream:
            peer.send(bytes((byte,)))
        assert peer.status() == 0
    (kept,) = node.files.all_instances()
    assert node.files.absolute(kept).read_bytes().endswith(DATA_SET)


BROKEN = [
    pytest.param(pdu(9, b""), (PROVIDER, 1), id="unknown PDU"),
    pytest.param(pdu(4, b"", 0xFFFFFFFF), (PROVIDER, 6), id="PDU of 4 GiB"),
    pytest.param(pdu(4, b"", 131073), (PROVIDER, 6), id="PDU larger than agreed"),
    pytest.param(pdu(5, bytes(8)), (PROVIDER, 6), id="long A-RELEASE-RQ"),
    pytest.param(p_data(), (PROVIDER, 6), id="no PDV"),
    pytest.param(p_data(b"\0\0\0"), (PROVIDER, 6), id="half a PDV"),
    pytest.param(p_data(pdv(1, 3, b"", 1)), (PROVIDER, 6), id="PDV of one byte"),
    pytest.param(p_data(pdv(1, 3, b"", 0xFFFFFFFF)), (PROVIDER, 6), id="PDV of 4 GiB"),
    pytest.param(p_data(pdv(1, 3, store_rq(), 400)), (PROVIDER, 6), id="PDV longer than its PDU"),
    pytest.param(p_data(pdv(1, 3, pdv(1, 3, store_rq()))), (PROVIDER, 6), id="PDV within a PDV"),
    pytest.param(p_data(pdv(99, 3, store_rq())), (PROVIDER, 6), id="unknown context"),
    pytest.param(p_data(pdv(1, 2, DATA_SET)), (PROVIDER, 5), id="data before command"),
    pytest.param(p_data(pdv(1, 3, store_rq()), pdv(1, 3, store_rq())), (PROVIDER, 5), id="command for data"),
    pytest.param(p_data(pdv(1, 3, store_rq()), pdv(3, 2, DATA_SET)), (PROVIDER, 5), id="data of another context"),
    pytest.param(p_data(pdv(1, 1, b"x"), pdv(3, 3, echo_rq())), (PROVIDER, 5), id="command within a command"),
    pytest.param(p_data(pdv(1, 3, b"no command at all")), (PROVIDER, 6), id="text for a command"),
    pytest.param(p_data(pdv(1, 3, b"")), (PROVIDER, 6), id="empty command"),
    pytest.param(p_data(pdv(1, 3, store_rq()[:-3])), (PROVIDER, 6), id="cut command"),
    pytest.param(p_data(pdv(1, 3, command(0x8001))), (PROVIDER, 5), id="response to nothing"),
    pytest.param(p_data(pdv(1, 3, command(1, message_id=None))), (PROVIDER, 6), id="no MessageID"),
    pytest.param(p_data(pdv(1, 1, bytes(65537))), (PROVIDER, 0), id="endless command"),
    pytest.param(associate_rq(), (PROVIDER, 2), id="A-ASSOCIATE-RQ again"),
    pytest.param(pdu(2, bytes(100)), (PROVIDER, 2), id="A-ASSOCIATE-AC"),
    pytest.param(pdu(6, bytes(4)), (PROVIDER, 2), id="A-RELEASE-RP"),
    pytest.param(p_data(pdv(1, 3, store_rq()))[:-5], (USER, 0), id="stalls within a PDU"),
    pytest.param(p_data(pdv(1, 3, store_rq()), pdv(1, 0, DATA_SET)), (USER, 0), id="stalls within an object"),
    pytest.param(b"", (USER, 0), id="says nothing"),
]


@pytest.mark.parametrize(("sent", "abort"), BROKEN)
def test_a_broken_protocol_ends_in_an_abort_and_harms_nobody(node: Node, sent: bytes, abort: tuple[int, int]) -> None:
    with node.call().associate() as other, node.call().associate() as peer:
        peer.send(sent)
        if abort == (USER, 0):
            time.sleep(SECONDS / 2)
            assert other.echo() == 0, "it is not silent, and stays"
        assert peer.abort() == abort
        assert other.store() == 0
    assert node.is_unharmed()
    assert node.released == []
    assert len(node.told) == 1


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (associate_rq(called="OTHER"), (3, bytes((0, 1, 1, 7)))),
        (associate_rq(version=2), (3, bytes((0, 1, 2, 2)))),
        (associate_rq(application="1.2.3"), (3, bytes((0, 1, 1, 2)))),
        (pdu(1, b"garbage"), (7, bytes((0, 0, PROVIDER, 6)))),
        (pdu(1, b"", 1 << 31), (7, bytes((0, 0, PROVIDER, 6)))),
        (associate_rq()[:-1] + b"\xff", (7, bytes((0, 0, PROVIDER, 6)))),
        (p_data(pdv(1, 3, store_rq())), (7, bytes((0, 0, PROVIDER, 2)))),
        (b"GET / HTTP/1.1\r\n\r\n", (7, bytes((0, 0, PROVIDER, 1)))),
        (ABORT, None),
        (associate_rq()[:50], None),
    ],
    ids=["called", "version", "application", "garbage", "2 GiB", "odd", "no request", "HTTP", "abort", "stall"],
)
def test_what_comes_before_an_association(node: Node, sent: bytes, answer: tuple[int, bytes] | None) -> None:
    with node.call() as peer:
        peer.send(sent)
        assert peer.read() == answer
    assert node.is_unharmed()


@pytest.mark.parametrize(
    "before",
    [
        associate_rq(),
        associate_rq() + p_data(pdv(1, 1, store_rq()[:10])),
        associate_rq() + p_data(pdv(1, 3, store_rq())),
        associate_rq() + p_data(pdv(1, 3, store_rq()), pdv(1, 0, DATA_SET)),
        associate_rq() + p_data(pdv(1, 3, store_rq()), pdv(1, 0, DATA_SET))[:-4],
        associate_rq() + p_data(pdv(1, 3, store_rq("1.2.3.9")), pdv(1, 2, DATA_SET)),
        associate_rq() + RELEASE,
        associate_rq() + pdu(9, b""),
        associate_rq(called="OTHER"),
    ],
    ids=[
        "associated",
        "in a command",
        "command",
        "in an object",
        "in a PDU",
        "answered",
        "released",
        "aborted",
        "rejected",
    ],
)
@pytest.mark.parametrize("end", [ABORT, b"", RELEASE], ids=["abort", "gone", "release"])
def test_an_end_in_every_state_leaves_nothing(node: Node, before: bytes, end: bytes) -> None:
    with node.call() as peer:
        peer.send(before, end)
        peer.socket.shutdown(socket.SHUT_WR)
        while peer.read() is not None:
            pass
    assert node.is_unharmed()
    assert list(node.files.all_instances()) == []
    assert all(studies == frozenset() for _, studies in node.released)


AGAIN = (7, bytes((0, 0, PROVIDER, 2)))
UNRECOGNISED = (7, bytes((0, 0, PROVIDER, 1)))


@pytest.mark.parametrize(
    ("last", "then", "answers"),
    [
        (RELEASE, associate_rq(), [(6, bytes(4)), AGAIN]),
        (RELEASE, associate_rq() + associate_rq(), [(6, bytes(4)), AGAIN, AGAIN]),
        (RELEASE, RELEASE + p_data(b"odd") + pdu(2, bytes(9)) + associate_rq(), [(6, bytes(4)), AGAIN]),
        (RELEASE, pdu(9, b"") + associate_rq(), [(6, bytes(4)), UNRECOGNISED]),
        (RELEASE, ABORT + associate_rq(), [(6, bytes(4))]),
        (pdu(6, bytes(4)), associate_rq(), [AGAIN, AGAIN]),
        (pdu(9, b""), associate_rq(), [UNRECOGNISED]),
        (RELEASE, RELEASE[:-1], [(6, bytes(4))]),
    ],
    ids=["once", "twice", "after others", "no PDU", "abort", "aborted", "out of step", "cut"],
)
def test_what_comes_after_the_end(node: Node, last: bytes, then: bytes, answers: list[tuple[int, bytes]]) -> None:
    """Sta13: an A-ASSOCIATE-RQ and what is no PDU are answered with A-ABORT (AA-7), all else is thrown away."""
    with node.call().associate() as peer:
        peer.send(last, then)
        peer.socket.shutdown(socket.SHUT_WR)
        assert [peer.read() for _ in answers] == answers
        assert peer.read() is None
    assert node.is_unharmed()


@pytest.mark.parametrize("begun", [b"", associate_rq()], ids=["before an association", "within one"])
def test_a_dribble_is_held_to_the_deadline_of_its_pdu(node: Node, begun: bytes) -> None:
    """It is never silent for long, and yet comes to an end: ARTIM, or the time for one PDU."""
    with node.call() as peer, node.call().associate() as other:
        peer.send(begun, pdu(4 if begun else 1, b"", 60_000))
        peer.socket.settimeout(SECONDS / 20)
        answer, deadline = b"", time.monotonic() + 30
        with suppress(ConnectionError):
            while not answer.endswith(pdu(7, bytes(4))):  # A-ABORT by the service user; Sta13 goes on for ARTIM
                assert time.monotonic() < deadline
                with suppress(TimeoutError):
                    peer.send(b"\0")
                    if not (more := peer.socket.recv(1 << 16)):
                        break
                    answer += more
        assert answer[:1] == (b"\2" if begun else b"")
        assert answer[-10:] == (pdu(7, bytes(4)) if begun else b"")
        assert other.abort() == (USER, 0), "nothing came from it for as long"
    assert node.is_unharmed()


def test_refusals_that_an_association_survives(node: Node) -> None:
    with node.call().associate() as peer:
        peer.send(p_data(pdv(ECHO_CONTEXT, 3, store_rq()), pdv(ECHO_CONTEXT, 2, DATA_SET)))
        assert peer.status() == 0x0122
        peer.send(p_data(pdv(CT_CONTEXT, 3, command(0x0020)), pdv(CT_CONTEXT, 2, b"identifier")))
        assert peer.status() == 0x0211
        peer.send(p_data(pdv(CT_CONTEXT, 3, command(0x0FFF, message_id=None, data_set=False))))  # C-CANCEL
        peer.send(p_data(pdv(CT_CONTEXT, 3, store_rq())))
        for _ in range(20):
            peer.send(p_data(pdv(CT_CONTEXT, 0, bytes(100_000))))
        peer.send(p_data(pdv(CT_CONTEXT, 2, b"")))
        assert peer.status() == 0xA700, "larger than it may be"
        assert peer.store() == 0
    assert node.is_unharmed()


def test_silent_connections_cost_nothing_and_block_nobody(node: Node) -> None:
    before = psutil.Process().memory_info().rss
    with ExitStack() as stack:
        other = stack.enter_context(node.call().associate())
        silent = []
        for number in range(200):
            silent.append(stack.enter_context(node.call()))
            if number % 50 == 0:
                assert other.echo() == 0
        assert threading.active_count() < 100
        assert other.store() == 0
        assert silent[-1].read() is None, "ARTIM ends it"
        assert node.is_unharmed()
    assert psutil.Process().memory_info().rss - before < 30 << 20


def test_window_and_roles_are_negotiated(node: Node) -> None:
    ae = AE("RAW")
    ae.add_requested_context(objects.CT, objects.EXPLICIT)
    ae.add_requested_context(objects.CT, objects.IMPLICIT)
    ae.add_requested_context("1.2.276.0.99.1", ["1.2.3.99", objects.EXPLICIT])
    ae.add_requested_context("1.2.840.10008.1.1")
    from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation

    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 5
    role = build_role(objects.CT, scu_role=True, scp_role=True)
    assoc = ae.associate("127.0.0.1", node.scp.port, ae_title="AINODE", ext_neg=[window, role])
    assert assoc.is_established
    try:
        assert assoc.acceptor.asynchronous_operations == (1, 1)
        assert assoc.acceptor.role_selection[objects.CT].scp_role
        assert assoc.acceptor.maximum_length == 131072
        accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}
        assert ("1.2.276.0.99.1", "1.2.3.99") in accepted
        assert len(accepted) == 4
        data_set = objects.dataset()
        data_set.file_meta = dcmread_meta()
        assert assoc.send_c_echo().Status == 0
        assert assoc.send_c_store(data_set).Status == 0
        assert assoc.send_c_echo().Status == 0
    finally:
        assoc.release()


def dcmread_meta() -> object:
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = objects.EXPLICIT
    return meta


@pytest.mark.peer
@pytest.mark.parametrize("name", ["storescu", "dcmsend"])
def test_dcmtk_sends(node: Node, tmp_path: Path, name: str) -> None:
    files = [
        objects.write(tmp_path / f"{number}.dcm", objects.incoming(SOPInstanceUID=f"1.2.3.{number}"))
        for number in range(20)
    ]
    called = [peers.program(name), "-aec", "AINODE", "127.0.0.1", str(node.scp.port), *map(str, files)]
    done = subprocess.run(called, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {dcmread(node.files.absolute(path)).SOPInstanceUID for path in node.files.all_instances()} == {
        f"1.2.3.{number}" for number in range(20)
    }
    assert [studies for _, studies in node.released] == [frozenset({"1.2.3"})]


def test_memory_does_not_grow_with_the_object(tmp_path: Path) -> None:
    pixels = 64 << 20
    head = objects.incoming(PixelData=None).dataset + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, pixels)
    called = [sys.executable, "-m", "tests.integration.receiver", str(tmp_path / "var")]
    with subprocess.Popen(called, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stdout is not None
            with RawPeer(int(process.stdout.readline())).associate() as peer:
                assert peer.store("1.2.3.5") == 0
                before = psutil.Process(process.pid).memory_info().rss
                peer.send(p_data(pdv(CT_CONTEXT, 3, store_rq())), p_data(pdv(CT_CONTEXT, 0, head)))
                for _ in range(pixels >> 16):
                    peer.send(p_data(pdv(CT_CONTEXT, 0, bytes(1 << 16))))
                peer.send(p_data(pdv(CT_CONTEXT, 2, b"")))
                assert peer.status() == 0
            peak = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) << 10
        finally:
            process.kill()
    assert peak - before < 8 << 20
    assert peak < 150 << 20
