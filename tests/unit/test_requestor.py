"""The requestor's side of an association, with peers that do what they like."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO

import pytest

from node.dicom import negotiate, wire
from node.dicom.requestor import Requestor
from node.dicom.wire import Closed, Command, PduType, Wire
from node.domain.errors import PeerUnreachable
from node.domain.peer import Peer
from tests import objects

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CONTEXTS = [(CAPTURE, (objects.EXPLICIT,)), (CAPTURE, (objects.IMPLICIT,))]
UIDS = (CAPTURE, "1.2.3")
Script = Callable[["Acceptor"], None]


class Acceptor:
    """One connection, on a thread of its own, by a script; ``data`` is what came of the data set."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.data = b""
        self.lengths: list[int] = []
        self.last: PduType | None = None
        self.peer = Peer("PACS", "PACS", "127.0.0.1", self._listener.getsockname()[1], timeout_seconds=2)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.connection, self.wire = connection, Wire(connection)
            with suppress(Closed):
                self._script(self)

    def read(self) -> tuple[PduType, bytes]:
        by = time.monotonic() + 5
        kind, body = self.wire.read(begins_by=by, seconds=5)
        self.last = kind
        return kind, bytes(body)

    def send(self, data: bytes) -> None:
        self.wire.send(data, by=time.monotonic() + 5)

    def accept(self, max_pdu: int = 0) -> None:
        _, body = self.read()
        agreed = negotiate.agree(negotiate.proposal(memoryview(body)), [])
        # The maximum length is the first user information: 51H, its length of four, then it (PS3.8 D.1).
        start = agreed.accept.index(b"\x51\x00\x00\x04") + 4
        self.send(agreed.accept[:start] + struct.pack(">I", max_pdu) + agreed.accept[start + 4 :])

    def request(self) -> Command:
        """One C-STORE, to its end."""
        command, is_last = b"", False
        while not is_last:
            kind, body = self.read()
            assert kind is PduType.P_DATA
            self.lengths.append(len(body))
            for _, control, fragment in wire.values(memoryview(body)):
                if control & 1:
                    command += fragment
                else:
                    self.data += fragment
                    is_last = bool(control & 2)
        return Command(command)

    def answer(self, command: Command, status: int = 0, comment: str = "", context: int = 1) -> None:
        response = wire.response(command, status, comment)
        self.send(wire.fragments(context, response, wire.LAST_COMMAND, 1000))

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def accepting() -> Iterator[Callable[[Script], Acceptor]]:
    made: list[Acceptor] = []

    def start(script: Script) -> Acceptor:
        made.append(Acceptor(script))
        return made[-1]

    yield start
    for each in made:
        each.close()


def store(peer: Peer, content: bytes = b"data") -> tuple[int, str]:
    with Requestor(peer, CONTEXTS, ae_title="AINODE") as association:
        context = association.accepted[CAPTURE, objects.EXPLICIT]
        return association.store(association.request(context, UIDS, BytesIO(content), len(content)), lambda: None)


@pytest.mark.parametrize("max_pdu", [0, 17, 4096, 16384, 1 << 20])
@pytest.mark.parametrize("size", [2, 4090, 1 << 18, (1 << 18) + 2, 700_000])
def test_what_is_stored_comes_whole_in_pdus_that_the_peer_takes(
    accepting: Callable[[Script], Acceptor], max_pdu: int, size: int
) -> None:
    if max_pdu == 17 and size > 5000:
        size = 5000  # many small ones are slow and show no more

    def script(acceptor: Acceptor) -> None:
        acceptor.accept(max_pdu)
        command = acceptor.request()
        assert (command.sop_class_uid.rstrip(b"\0"), command.sop_instance_uid) == (CAPTURE.encode(), b"1.2.3\0")
        acceptor.answer(command, 0xB000, "coerced")
        acceptor.read()
        acceptor.send(wire.release_rp())

    acceptor = accepting(script)
    content = bytes(range(256)) * (size // 256 + 1)
    assert store(acceptor.peer, content[:size]) == (0xB000, "coerced")
    acceptor.close()
    assert acceptor.data == content[:size]
    assert max_pdu == 0 or max(acceptor.lengths) <= max_pdu
    assert acceptor.last is PduType.RELEASE_RQ


def after_accepting(then: Callable[[Acceptor, Command], None]) -> Script:
    def script(acceptor: Acceptor) -> None:
        acceptor.accept()
        then(acceptor, acceptor.request())

    return script


def another_id(acceptor: Acceptor, command: Command) -> None:
    command.message_id = 999
    acceptor.answer(command)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (lambda a, c: a.send(wire.abort(0, 0)), "aborted"),
        (lambda a, c: a.send(wire.release_rq()), "RELEASE_RQ in place of an answer"),
        (lambda a, c: a.connection.close(), "closed the connection"),
        (lambda a, c: a.send(b"GET / HTTP/1.1\r\n"), "PDU type"),
        (lambda a, c: a.answer(c, context=3), "what came is no answer"),
        (another_id, "an answer to another request"),
        (lambda a, c: a.send(wire.fragments(1, b"junk", wire.LAST_COMMAND, 100)), "command set"),
        (lambda a, c: time.sleep(2.2), "silent or too slow"),
    ],
)
def test_what_is_no_answer_breaks_the_association(
    accepting: Callable[[Script], Acceptor], then: Callable[[Acceptor, Command], None], said: str
) -> None:
    acceptor = accepting(after_accepting(then))
    with pytest.raises(PeerUnreachable, match=f"gave no answer to 1.2.3: .*{said}"):
        store(acceptor.peer)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (lambda a: (a.read(), a.send(wire.abort(0, 0))), "aborted the association"),
        (lambda a: (a.read(), a.send(wire.reject(2, 3, 2))), "rejected the association: .*[Ll]ocal limit"),
        (lambda a: (a.read(), a.send(b"\x02\x00\x00\x00\x00\x04junk")), "no answer to an A-ASSOCIATE-RQ"),
        (lambda a: (a.read(), a.send(b"HTTP/1.1 400 Bad")), "PDU type"),
        (lambda a: a.read(), "closed the connection|reset"),
    ],
)
def test_what_is_no_agreement_is_told(accepting: Callable[[Script], Acceptor], script: Script, said: str) -> None:
    with pytest.raises(PeerUnreachable, match=said):
        store(accepting(script).peer)


def test_a_file_that_ends_early_aborts_the_association(accepting: Callable[[Script], Acceptor]) -> None:
    def script(acceptor: Acceptor) -> None:
        acceptor.accept()
        acceptor.read()

    acceptor = accepting(script)
    with (
        pytest.raises(OSError, match="ends early"),
        Requestor(acceptor.peer, CONTEXTS, ae_title="AINODE") as association,
    ):
        association.store(association.request(1, UIDS, BytesIO(b"short"), 100), lambda: None)
    acceptor.close()
    assert acceptor.last is PduType.ABORT
