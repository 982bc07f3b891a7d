"""A valid association with bytes flipped, cut, repeated and spliced: what is acknowledged is what came whole."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis import target

from node.dicom import dimse, negotiate, wire
from node.dicom.negotiate import Context
from node.dicom.wire import LAST_DATA, MAX_PDU, Command, PduType, ProtocolError
from node.domain.instance import Answer
from node.files.disk import DiskFiles
from node.services.receive import Receive
from tests import objects
from tests.fakes import FakeClock
from tests.fuzzing import Failures, fuzz, serve
from tests.rawpeer import CT_CONTEXT, ECHO_CONTEXT, associate_rq, command, echo_rq, p_data, pdu, pdv, store_rq

C_STORE, C_CANCEL, RESPONSE = 0x0001, 0x0FFF, 0x8000
HEADER = 6


def stored(uid: str, pixels: int, fragment: int) -> list[bytes]:
    """The PDUs of a C-STORE, one for each fragment."""
    data_set = objects.incoming(SOPInstanceUID=uid, PixelData=bytes(pixels)).dataset
    starts = range(0, len(data_set), fragment)
    return [
        p_data(pdv(CT_CONTEXT, 3, store_rq(uid))),
        *(
            p_data(pdv(CT_CONTEXT, LAST_DATA if start == starts[-1] else 0, data_set[start : start + fragment]))
            for start in starts
        ),
    ]


# What a sender says from beginning to end, PDU by PDU.
RECORDED = [
    associate_rq(),
    *stored("1.2.3.4", 32, 4096),
    p_data(pdv(ECHO_CONTEXT, 3, echo_rq())),
    *stored("1.2.3.5", 3000, 700),
    *stored("1.2.3.6", 64, 100),
    pdu(PduType.RELEASE_RQ, bytes(4)),
]
# And what it may say besides, rightly or wrongly.
BESIDES = [
    pdu(PduType.ABORT, bytes(4)),
    pdu(PduType.RELEASE_RP, bytes(4)),
    associate_rq(version=2),
    associate_rq(user=struct.pack(">BBHHH", 0x53, 0, 4, 5, 5)),  # an asynchronous operations window
    p_data(pdv(ECHO_CONTEXT, 3, store_rq()), pdv(ECHO_CONTEXT, 2, b"no place for it")),
    p_data(pdv(CT_CONTEXT, 3, command(C_CANCEL, message_id=None, data_set=False))),
    p_data(pdv(CT_CONTEXT, 3, command(0x0020)), pdv(CT_CONTEXT, 2, b"an identifier")),
    p_data(pdv(ECHO_CONTEXT, 3, command(0x0020, sop_class=b"1.2.3\0")), pdv(ECHO_CONTEXT, 2, b"an identifier")),
    p_data(pdv(CT_CONTEXT, 3, command(C_STORE | RESPONSE))),
    p_data(pdv(CT_CONTEXT, 3, command(C_STORE, message_id=None))),
    p_data(pdv(CT_CONTEXT, 3, store_rq()), pdv(CT_CONTEXT, 0, b"half of it")),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The recorded association, changed in up to five places."""
    pdus = list(RECORDED)
    for _ in range(draw(st.integers(0, 2))):  # whole PDUs come twice, not at all or elsewhere
        at = draw(st.integers(0, len(RECORDED) - 1))
        others = draw(st.lists(st.sampled_from(RECORDED + BESIDES), max_size=2))
        pdus[at : at + draw(st.integers(0, 1))] = others
    stream = b"".join(pdus)
    for _ in range(draw(st.integers(0, 3))):
        at, count = draw(st.integers(0, len(stream))), draw(st.integers(1, 400))
        before, here, after = stream[:at], stream[at : at + count], stream[at + count :]
        changes = {
            "flip": bytes(byte ^ count & 0xFF for byte in here[:1]) + here[1:],
            "length": struct.pack(">I", draw(st.integers(0, 300) | st.integers(0, 0xFFFFFFFF))) + here[4:],
            "cut": here[draw(st.integers(1, 40)) :],
            "repeat": here * 2,
            "splice": draw(st.sampled_from(RECORDED + BESIDES)) + here,
        }
        stream = before + changes[draw(st.sampled_from(sorted(changes)))] + after
    return stream[: draw(st.none() | st.integers(0, len(stream)))]


def pdus_of(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each PDU that is whole and no larger than was agreed."""
    while len(stream) >= HEADER:
        kind, _, length = struct.unpack_from(">BBI", stream)
        body, stream = stream[HEADER : HEADER + length], stream[HEADER + length :]
        if len(body) < length or (kind == PduType.P_DATA and length > MAX_PDU):
            return
        yield kind, body


def objects_of(stream: bytes) -> Iterator[bytes]:
    """The data sets that an acceptor has to take: those of C-STOREs that end before the stream ends or breaks.

    A second reading of the standard, short because it has all of the stream before it.
    """
    pdus = pdus_of(stream)
    kind, body = next(pdus, (0, b""))
    if kind != PduType.ASSOCIATE_RQ:
        return
    try:
        contexts = accepted(memoryview(body))
        values: list[tuple[int, int, bytes]] = []
        for kind, body in pdus:
            if kind != PduType.P_DATA:
                return
            for context_id, control, fragment in wire.values(memoryview(body)):
                values.append((context_id, control, bytes(fragment)))
                request = checked(values, contexts)
                if request is None or not control & 2 or (control & 1 and request.has_data_set):
                    continue
                data_set = b"".join(part for _, control, part in values if not control & 1)
                if not contexts[context_id].storage and request.field not in (C_STORE, C_CANCEL):
                    dimse.decoded(context_id, request.encoded, data_set)
                elif contexts[context_id].storage and request.field == C_STORE:
                    yield data_set
                values.clear()
    except ProtocolError:
        return


def accepted(body: memoryview) -> Mapping[int, Context]:
    """The contexts that are negotiated."""
    asked = negotiate.proposal(body)
    if negotiate.refusal(asked):
        raise broken()
    return negotiate.agree(asked, dimse.SERVICES).contexts


def checked(values: list[tuple[int, int, bytes]], contexts: Mapping[int, Context]) -> Command | None:
    """The command set of the message whose values came so far, None where it is not whole."""
    commands = [fragment for _, control, fragment in values if control & 1]
    ends = [control & 3 for _, control, _ in values].count(3)
    if {context_id for context_id, _, _ in values} != {values[0][0]} or values[0][0] not in contexts:
        raise broken()
    whole = ends == 1 and values[len(commands) - 1][1] & 3 == 3
    if not whole and (ends or len(commands) < len(values)):
        raise broken()
    if not whole:
        return None
    request = Command(b"".join(commands))
    if request.field & RESPONSE or (request.message_id is None and request.field != C_CANCEL):
        raise broken()
    return request


def broken() -> ProtocolError:
    return ProtocolError(wire.AbortReason.NOT_SPECIFIED, "the acceptor ends it")


def acknowledged(answer: bytes) -> int:
    """How many C-STORE responses in an answer say success."""
    success = struct.pack("<HHIH", 0, 0x0900, 2, 0)
    pdvs = [wire.values(memoryview(body)) for kind, body in pdus_of(answer) if kind == PduType.P_DATA]
    commands = [bytes(encoded) for values in pdvs for _, _, encoded in values]
    return sum(Command(encoded).field == C_STORE | RESPONSE and success in encoded for encoded in commands)


@dataclass(frozen=True)
class Outcome:
    """What came of a stream: successes that the peer was told, answers that were given, files that lie there."""

    told: int
    answers: list[Answer]
    files: list[bytes]


def outcome(stream: bytes, *, silence: float | None = None) -> Outcome:
    """Serve a stream by a receiver on an empty folder; as ``serve``."""
    with tempfile.TemporaryDirectory() as folder, Failures():
        files = DiskFiles(Path(folder), min_free_bytes=0, sync=False)
        answers: list[Answer] = []
        receive = Receive(
            files,
            lambda uid: None,
            lambda uid: False,
            lambda kept: None,
            FakeClock(),
            on_answered=lambda peer, answer, size: answers.append(answer),
        )
        told = acknowledged(serve(stream, receive.begin, silence=silence))
        lie = [files.absolute(path).read_bytes() for path in (*files.all_instances(), *files.all_asides())]
        assert list(files.absolute("tmp").iterdir()) == []
    return Outcome(told, answers, lie)


@pytest.mark.filterwarnings("ignore")  # of pydicom, of values
@fuzz(mutated(), count=150)
def test_what_is_acknowledged_came_whole_and_is_kept(stream: bytes) -> None:
    found = outcome(stream)
    came = list(objects_of(stream))
    target(float(len(came)), label="objects")
    assert len(found.answers) == len(came)
    assert found.told <= [answer.status for answer in found.answers].count(0)
    assert all(any(file.endswith(data_set) for file in found.files) for data_set in came)
    assert all(any(file.endswith(data_set) for data_set in came) for file in found.files)


@pytest.mark.filterwarnings("ignore")  # of pydicom, of values
@fuzz(mutated(), count=30)
def test_a_peer_that_falls_silent_is_left_with_what_came_whole(stream: bytes) -> None:
    found = outcome(stream, silence=0.02)
    came = list(objects_of(stream))
    assert len(found.answers) <= len(came)
    assert found.told <= len(found.answers)
    assert all(any(file.endswith(data_set) for data_set in came) for file in found.files)


def test_the_recording_is_valid() -> None:
    assert len(list(objects_of(b"".join(RECORDED)))) == 3
