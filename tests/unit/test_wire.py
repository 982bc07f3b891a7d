"""The upper layer's parser: any bytes at all get an answer of the protocol, and soon.

``make fuzz`` looks for minutes.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode

from node.dicom import wire
from node.dicom.association import State
from node.dicom.wire import AbortReason, Closed, Command, ProtocolError, Silent, Wire
from node.domain.instance import Answer, StoreRequest
from tests import objects
from tests.fuzzing import HANG_SECONDS, Failures, associated, fuzz, running, serve
from tests.rawpeer import associate_rq, command, echo_rq, p_data, pdu, pdv, store_rq


class Counted:
    """An object writer that keeps nothing, and knows whether it was ended."""

    def __init__(self, request: StoreRequest) -> None:
        self.ends = 0
        self.size = 0

    def write(self, fragment: memoryview) -> None:
        assert self.ends == 0
        self.size += len(fragment)

    def finish(self) -> Answer:
        self.ends += 1
        return Answer(0)

    def abandon(self) -> None:
        self.ends += 1


def served(stream: bytes) -> tuple[list[Counted], bytes]:
    """The writers that an association opens for a stream, and what it answers."""
    opened: list[Counted] = []

    def begin(request: StoreRequest) -> Counted:
        opened.append(Counted(request))
        return opened[-1]

    return opened, serve(stream, begin)


def test_a_peer_that_takes_no_answer_is_left(caplog: pytest.LogCaptureFixture) -> None:
    association, theirs = associated(Counted, seconds=0.5, buffer=4096)
    theirs.settimeout(0.1)
    with theirs, running(association), suppress(ConnectionError):
        theirs.sendall(associate_rq())
        requests, at, deadline = p_data(pdv(3, 3, echo_rq())) * 100, 0, time.monotonic() + HANG_SECONDS
        while association.state is not State.AWAITING_CLOSE:
            assert time.monotonic() < deadline
            with suppress(TimeoutError):
                at = (at + theirs.send(requests[at:])) % len(requests)
    assert "aborted: the peer takes no answer" in caplog.text


def test_a_whole_association() -> None:
    store = p_data(pdv(1, 3, store_rq()), pdv(1, 2, b"data set"))
    opened, answer = served(associate_rq() + store + p_data(pdv(3, 3, echo_rq())) + pdu(5, bytes(4)))
    assert [(writer.ends, writer.size) for writer in opened] == [(1, 8)]
    kinds = []
    while answer:
        kind, _, length = struct.unpack_from(">BBI", answer)
        kinds.append(kind)
        answer = answer[6 + length :]
    assert kinds == [2, 4, 4, 6]


FIELDS = st.sampled_from([0x0001, 0x0020, 0x0021, 0x0030, 0x0100, 0x0130, 0x0140, 0x0FFF, 0x8001, 0xFFFF])
COMMANDS = st.one_of(
    st.just(store_rq()),
    st.just(echo_rq()),
    st.builds(
        lambda field, message_id, data_set, uid: command(
            field, message_id=message_id, data_set=data_set, sop_class=uid
        ),
        FIELDS,
        st.none() | st.integers(0, 0xFFFF),
        st.booleans(),
        st.binary(max_size=80),
    ),
    st.binary(max_size=200),
)


@st.composite
def changed(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of a valid kind, with some of them replaced or cut off."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


VALUES = st.builds(
    pdv,
    st.sampled_from([1, 1, 1, 3, 5, 255]),
    st.integers(0, 3) | st.integers(0, 255),
    changed(COMMANDS) | st.binary(max_size=300),
    st.none() | st.none() | st.integers(0, 0xFFFFFFFF),
)
BEGUN = p_data(pdv(1, 3, store_rq()))
PDUS = st.one_of(
    st.just(BEGUN),
    st.binary(max_size=50).map(lambda data: p_data(pdv(1, 0, data))),
    st.binary(max_size=50).map(lambda data: p_data(pdv(1, 2, data))),
    st.binary(max_size=50).map(lambda data: BEGUN + p_data(pdv(1, 0, data), pdv(1, 2, data))),
    st.just(p_data(pdv(3, 3, echo_rq()))),
    st.lists(VALUES, min_size=1, max_size=4).map(lambda values: p_data(*values)),
    st.builds(pdu, st.integers(0, 8), st.binary(max_size=64), st.none() | st.integers(0, 0xFFFFFFFF)),
    st.just(pdu(5, bytes(4))),
    changed(st.just(associate_rq())),
)
STREAMS = st.builds(
    lambda first, rest: first + b"".join(rest),
    st.just(associate_rq()) | st.just(associate_rq()) | changed(st.just(associate_rq())) | st.binary(max_size=300),
    st.lists(PDUS | st.binary(max_size=100), max_size=8),
)


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
@fuzz(STREAMS)
def test_any_stream_ends_in_order(stream: bytes) -> None:
    with Failures():
        opened, answer = served(stream)
    assert all(writer.ends == 1 for writer in opened), "every object is answered or abandoned, once"
    assert answer[:1] in (b"", b"\2", b"\3", b"\7")


@fuzz(st.binary(max_size=400) | changed(COMMANDS))
def test_any_bytes_are_a_command_or_a_protocol_error(encoded: bytes) -> None:
    try:
        request = Command(encoded)
    except ProtocolError:
        return
    answer = Command(wire.response(request, 0xA700, "full"))  # as it lacks no element that every command has
    assert answer.field == request.field | 0x8000
    assert not answer.has_data_set


@given(st.binary(min_size=1, max_size=5000), st.sampled_from([0, 7, 64, 4096]))
def test_a_message_comes_out_as_it_went_in(data_set: bytes, max_pdu: int) -> None:
    sent = wire.messages(3, echo_rq(), data_set, max_pdu)
    got = {True: b"", False: b""}
    last = []
    while sent:
        kind, _, length = struct.unpack_from(">BBI", sent)
        assert kind == 4
        assert max_pdu == 0 or length <= max_pdu
        for context_id, control, fragment in wire.values(memoryview(sent)[6 : 6 + length]):
            assert context_id == 3
            got[bool(control & 1)] += fragment
            last.append(control)
        sent = sent[6 + length :]
    assert got == {True: echo_rq(), False: data_set}
    assert [control for control in last if control & 2] == [3, 2]


def test_a_response_says_what_the_request_was() -> None:
    request = Command(store_rq())
    encoded = wire.response(request, 0xC000, "SOPInstanceUID: é")
    ds = decode(BytesIO(encoded), True, True)
    assert ds.CommandGroupLength == len(encoded) - 12
    assert (ds.CommandField, ds.MessageIDBeingRespondedTo, ds.Status) == (0x8001, 1, 0xC000)
    assert (ds.AffectedSOPClassUID, ds.AffectedSOPInstanceUID) == (objects.CT, "1.2.3.4")
    assert ds.ErrorComment == "SOPInstanceUID: ?"


def test_deadlines_of_a_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = Wire(ours)
        with pytest.raises(Silent):
            reader.read(begins_by=time.monotonic() + 0.1, seconds=9)
        theirs.sendall(b"\4\0")
        with pytest.raises(Silent):
            reader.read(begins_by=time.monotonic() + 9, seconds=0.1)
        with pytest.raises(Silent):
            reader.read(begins_by=time.monotonic() + 9, seconds=9, ends_by=time.monotonic() + 0.1)
        theirs.sendall(struct.pack(">I", 1 << 20))
        with pytest.raises(ProtocolError) as caught:
            reader.read(begins_by=time.monotonic() + 9, seconds=9)
        assert caught.value.reason is AbortReason.INVALID_PARAMETER
        theirs.close()
        with pytest.raises(Closed):
            Wire(ours).read(begins_by=time.monotonic() + 9, seconds=9)
