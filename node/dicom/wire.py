"""PDUs, PDVs and command sets as bytes (PS3.8 section 9.3 and annex E, PS3.7 section 6.3). No state but a read buffer.

What is read is never copied: a PDU's body is a view into the buffer of its association, and a fragment is a view into
that body, valid until the next PDU is read.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from enum import IntEnum

# The largest P-DATA-TF body that we offer to take, in bytes (PS3.8 annex D.1).
MAX_PDU = 131072

# Enough for 128 presentation contexts of 40 transfer syntaxes each; any other PDU but P-DATA-TF has four bytes.
_MAX_ASSOCIATE = 1 << 19
_FIXED = 4
_FIRST_BUFFER, _DATA_BUFFER = 1 << 13, 1 << 18

_HEADER = struct.Struct(">BBI")
_PDV = struct.Struct(">IBB")
_ELEMENT = struct.Struct("<HHI")

LAST_COMMAND, LAST_DATA = 0x03, 0x02

NO_DATA_SET = 0x0101  # CommandDataSetType (0000,0800)
_UI_LENGTH = 64


class PduType(IntEnum):
    """PS3.8 section 9.3.1."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNISED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolError(Exception):
    """The peer broke the protocol (Evt19 or an event that its state does not expect); ``reason`` goes into A-ABORT."""

    def __init__(self, reason: AbortReason, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class Closed(Exception):
    """The transport connection is closed (Evt17)."""


class Silent(Exception):
    """The peer let a deadline pass."""


class Wire:
    """A transport connection that is read PDU by PDU and written with a deadline.

    Args:
        connection: a connected socket; TLS, if any, is already spoken on it.

    ``in_step`` is whether it is known where the next PDU begins: after what was no PDU it is not.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
        self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        self._start = self._end = 0
        self._timeout = 0.0
        self.in_step = True

    def expect_data(self) -> None:
        """Take a buffer that holds two of the largest P-DATA-TF: a peer that is still to be admitted costs little."""
        self._resize(_DATA_BUFFER)

    def read(self, *, begins_by: float, seconds: float, ends_by: float = math.inf) -> tuple[PduType, memoryview]:
        """The next PDU: its type and its body, valid until the next call.

        Args:
            begins_by: when its first byte has to have come (``time.monotonic``).
            seconds: for the rest of it, once it has begun.
            ends_by: when all of it has to have come.

        Raises:
            ProtocolError: no PDU type, or a length that this type cannot have. Nothing of the body was read.
            Closed: by the peer.
            Silent: a deadline passed.
        """
        if self._start == self._end:
            self._receive(begins_by)
        by = min(ends_by, time.monotonic() + seconds)
        self._hold(_HEADER.size, by)
        number, _, length = _HEADER.unpack_from(self._buffer, self._start)
        try:
            kind = _checked(number, length)
        except ProtocolError:
            self.in_step = False
            raise
        self._hold(_HEADER.size + length, by)
        begin = self._start + _HEADER.size
        self._start = begin + length
        return kind, self._buffer[begin : self._start]

    def begins(self, *, by: float) -> bool:
        """Wait for the first byte of the next PDU; whether it came by then.

        Raises:
            Closed: by the peer.
        """
        try:
            if self._start == self._end:
                self._receive(by)
        except Silent:
            return False
        return True

    def send(self, data: bytes, *, by: float) -> None:
        """Write all of ``data``.

        Raises:
            Closed, Silent: as ``read``.
        """
        self._wait_until(by)
        try:
            self._connection.sendall(data)
        except TimeoutError:
            raise Silent("the peer takes no answer") from None
        except OSError as error:
            raise Closed(str(error)) from None

    def drain(self, by: float) -> None:
        """Throw away what comes until the peer closes the connection or the deadline passes (AA-6, AR-5, AA-2)."""
        try:
            while True:
                self._start = self._end = 0
                self._receive(by)
        except (Closed, Silent):
            return

    def _hold(self, count: int, by: float) -> None:
        """Have the next ``count`` bytes in the buffer, in one piece."""
        if self._start + count > self._buffer.nbytes:
            self._resize(max(count, self._buffer.nbytes))
        while self._end - self._start < count:
            self._receive(by)

    def _resize(self, size: int) -> None:
        """Move what is unread to the front, of a larger buffer if need be."""
        unread = self._buffer[self._start : self._end]
        if size > self._buffer.nbytes:
            self._buffer = memoryview(bytearray(size))
        self._buffer[: unread.nbytes] = unread
        self._start, self._end = 0, unread.nbytes

    def _receive(self, by: float) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        while True:
            self._wait_until(by)
            try:
                # A sender that leaves Nagle's algorithm on waits for our ACK before the last piece of each object; the
                # kernel delays it by 40 ms unless it is asked anew, as it forgets.
                if self._is_tcp:
                    self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                count = self._connection.recv_into(self._buffer[self._end :])
                break
            except TimeoutError:
                continue  # whether the deadline itself has passed is looked at above
            except OSError as error:
                raise Closed(str(error)) from None
        if count == 0:
            raise Closed("the peer closed the connection")
        self._end += count

    def _wait_until(self, by: float) -> None:
        """Let the socket wait no longer than ``by``, without a system call where what is set will do."""
        seconds = by - time.monotonic()
        if seconds <= 0:
            raise Silent("the peer is silent or too slow")
        if not seconds / 4 <= self._timeout <= seconds:
            self._timeout = seconds
            self._connection.settimeout(seconds)


def _checked(number: int, length: int) -> PduType:
    try:
        kind = PduType(number)
    except ValueError:
        raise ProtocolError(AbortReason.UNRECOGNISED_PDU, f"PDU type {number:#04x}") from None
    if kind is PduType.P_DATA:
        fits = length <= MAX_PDU
    elif kind in (PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC):
        fits = length <= _MAX_ASSOCIATE
    else:
        fits = length == _FIXED
    if not fits:
        raise ProtocolError(AbortReason.INVALID_PARAMETER, f"{kind.name} of {length} bytes")
    return kind


def values(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """The presentation data values of a P-DATA-TF: context ID, message control header and fragment (PS3.8 9.3.5).

    Raises:
        ProtocolError: they do not fill the PDU exactly.
    """
    position, end = 0, body.nbytes
    if end == 0:
        raise ProtocolError(AbortReason.INVALID_PARAMETER, "P_DATA without a presentation data value")
    while position < end:
        if end - position < _PDV.size:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "a presentation data value is cut off")
        length, context_id, control = _PDV.unpack_from(body, position)
        begin, position = position + _PDV.size, position + 4 + length
        if length < 2 or position > end:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, f"a presentation data value of {length} bytes")
        yield context_id, control, body[begin:position]


def messages(context_id: int, command: bytes, data_set: bytes, max_pdu: int) -> bytes:
    """A DIMSE message as P-DATA-TF PDUs of one fragment each.

    Args:
        max_pdu: the peer's maximum length (PS3.8 annex D.1), 0 for no maximum.
    """
    room = room_for(max_pdu)
    return fragments(context_id, command, LAST_COMMAND, room) + fragments(context_id, data_set, LAST_DATA, room)


def room_for(max_pdu: int) -> int:
    """The most bytes of a fragment, even (PS3.8 annex E.2), where the peer's maximum length is ``max_pdu``.

    None are longer than those that we take ourselves: larger ones gain nothing, and some that set no limit have one.
    """
    room = max(min(max_pdu or MAX_PDU, MAX_PDU) - _PDV.size, 1)
    return room & ~1 or room


def fragments(context_id: int, content: bytes | memoryview, control: int, room: int, *, ends: bool = True) -> bytes:
    """A part of a command or data set as P-DATA-TF PDUs of one fragment each; nothing for nothing.

    Args:
        control: ``LAST_COMMAND`` or ``LAST_DATA``.
        ends: whether it is the last part.
    """
    size = len(content)
    pdus: list[bytes | memoryview] = []
    for start in range(0, size, room):
        fragment = content[start : start + room]
        is_last = ends and start + room >= size
        pdus.append(_HEADER.pack(PduType.P_DATA, 0, len(fragment) + _PDV.size))
        pdus.append(_PDV.pack(len(fragment) + 2, context_id, control if is_last else control & ~2))
        pdus.append(fragment)
    return b"".join(pdus)


def release_rq() -> bytes:
    """A-RELEASE-RQ (PS3.8 9.3.6)."""
    return _HEADER.pack(PduType.RELEASE_RQ, 0, _FIXED) + bytes(_FIXED)


def release_rp() -> bytes:
    """A-RELEASE-RP (PS3.8 9.3.7)."""
    return _HEADER.pack(PduType.RELEASE_RP, 0, _FIXED) + bytes(_FIXED)


def abort(source: int, reason: int) -> bytes:
    """A-ABORT (PS3.8 9.3.8); source 0 is the service user, 2 the service provider, whose reason counts."""
    return _HEADER.pack(PduType.ABORT, 0, _FIXED) + bytes((0, 0, source, reason))


def reject(result: int, source: int, reason: int) -> bytes:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return _HEADER.pack(PduType.ASSOCIATE_RJ, 0, _FIXED) + bytes((0, result, source, reason))


class Command:
    """A command set (PS3.7 6.3.1, implicit VR little endian): what every message has, and C-STORE's UIDs.

    Raises:
        ProtocolError: it is no command set, or lacks CommandField, CommandDataSetType or, but for C-CANCEL, MessageID.
    """

    def __init__(self, encoded: bytes) -> None:
        elements = dict(_elements(encoded))
        self.encoded = encoded
        self.field = _us(elements, 0x0100, "CommandField")
        self.has_data_set = _us(elements, 0x0800, "CommandDataSetType") != NO_DATA_SET
        self.message_id = _us(elements, 0x0110, "MessageID") if 0x0110 in elements else None
        self.responds_to = _us(elements, 0x0120, "MessageIDBeingRespondedTo") if 0x0120 in elements else None
        self.status = _us(elements, 0x0900, "Status") if 0x0900 in elements else None
        self.comment = elements.get(0x0902, b"").decode("ascii", "replace").rstrip("\0 ")
        self.sop_class_uid = elements.get(0x0002, b"")
        self.sop_instance_uid = elements.get(0x1000, b"")


def _elements(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    position, end = 0, len(encoded)
    while position < end:
        if end - position < _ELEMENT.size:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "the command set is cut off")
        group, element, length = _ELEMENT.unpack_from(encoded, position)
        start, position = position + _ELEMENT.size, position + _ELEMENT.size + length
        if group != 0 or position > end:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "what came as a command set is none")
        yield element, encoded[start:position]


def _us(elements: Mapping[int, bytes], element: int, keyword: str) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise ProtocolError(AbortReason.INVALID_PARAMETER, f"the command set has no valid {keyword}")
    return int.from_bytes(value, "little")


_STATUS = struct.Struct("<HHIH HHIH HHIH HHIH")


def response(request: Command, status: int, comment: str = "") -> bytes:
    """The command set of a response that has no data set (PS3.7 9.3.1.2, 10.3.x): C-STORE-RSP and every refusal.

    Args:
        request: what is answered; its UIDs are given back as they came.
        comment: ErrorComment, at most 64 characters.
    """
    body = b"".join(
        (
            _element(0x0002, request.sop_class_uid),
            _STATUS.pack(
                *(0, 0x0100, 2, request.field | 0x8000),
                *(0, 0x0120, 2, request.message_id or 0),
                *(0, 0x0800, 2, NO_DATA_SET),
                *(0, 0x0900, 2, status),
            ),
            _element(0x0902, comment.encode("ascii", "replace")),
            _element(0x1000, request.sop_instance_uid),
        )
    )
    return _command(body)


_ECHO, _STORE = struct.Struct("<HHIH HHIH HHIH"), struct.Struct("<HHIH HHIH HHIH HHIH")
_DATA_SET = 0x0000  # CommandDataSetType: anything but 0101


def echo_request(message_id: int, sop_class_uid: str) -> bytes:
    """The command set of a C-ECHO-RQ (PS3.7 9.3.5.1)."""
    fixed = _ECHO.pack(*(0, 0x0100, 2, 0x0030), *(0, 0x0110, 2, message_id), *(0, 0x0800, 2, NO_DATA_SET))
    return _command(_element(0x0002, sop_class_uid.encode("ascii")) + fixed)


def store_request(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1.1) of medium priority."""
    fixed = _STORE.pack(
        *(0, 0x0100, 2, 0x0001), *(0, 0x0110, 2, message_id), *(0, 0x0700, 2, 0), *(0, 0x0800, 2, _DATA_SET)
    )
    uids = [_element(0x0002, sop_class_uid.encode("ascii")), _element(0x1000, sop_instance_uid.encode("ascii"))]
    return _command(uids[0] + fixed + uids[1])


def _command(body: bytes) -> bytes:
    return _ELEMENT.pack(0, 0, 4) + len(body).to_bytes(4, "little") + body


def _element(element: int, value: bytes) -> bytes:
    """Empty or overlong values are left out: they are optional in a response, and invalid."""
    if not value or len(value) > _UI_LENGTH:
        return b""
    padding = b"" if len(value) % 2 == 0 else b" " if element == 0x0902 else b"\0"
    return _ELEMENT.pack(0, element, len(value) + len(padding)) + value + padding
