"""A peer that speaks the DICOM upper layer byte by byte, and wrongly where a test wants it (PS3.8 section 9.3)."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

from tests import objects

VERIFICATION = "1.2.840.10008.1.1"
CT_CONTEXT, ECHO_CONTEXT = 1, 3
C_STORE, C_ECHO = 0x0001, 0x0030


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU; ``length`` is what it says of its body."""
    return struct.pack(">BBI", kind, 0, len(body) if length is None else length) + body


def pdv(context_id: int, control: int, fragment: bytes, length: int | None = None) -> bytes:
    """A presentation data value; ``length`` is what it says of itself."""
    return struct.pack(">IBB", len(fragment) + 2 if length is None else length, context_id, control) + fragment


def p_data(*values: bytes) -> bytes:
    """A P-DATA-TF."""
    return pdu(4, b"".join(values))


def associate_rq(
    *,
    called: str = "AINODE",
    version: int = 1,
    application: str = "1.2.840.10008.3.1.1.1",
    user: bytes = b"",
    more: tuple[tuple[int, str], ...] = (),
) -> bytes:
    """An A-ASSOCIATE-RQ for CT storage, Verification and ``more``, all in explicit VR little endian."""
    contexts = b"".join(
        _item(0x20, bytes((number, 0, 0, 0)) + _item(0x30, uid.encode()) + _item(0x40, objects.EXPLICIT.encode()))
        for number, uid in ((CT_CONTEXT, objects.CT), (ECHO_CONTEXT, VERIFICATION), *more)
    )
    information = _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3") + user
    fixed = struct.pack(">HH16s16s32x", version, 0, called.ljust(16).encode(), b"RAW".ljust(16))
    return pdu(1, fixed + _item(0x10, application.encode()) + contexts + _item(0x50, information))


def command(field: int, *, message_id: int | None = 1, data_set: bool = True, **uids: bytes) -> bytes:
    """A command set; ``sop_class`` and ``sop_instance`` are its UIDs."""
    elements = [_element(0x0100, struct.pack("<H", field)), _element(0x0800, b"\0\0" if data_set else b"\1\1")]
    if message_id is not None:
        elements.append(_element(0x0110, struct.pack("<H", message_id)))
    if "sop_class" in uids:
        elements.append(_element(0x0002, uids["sop_class"]))
    if "sop_instance" in uids:
        elements.append(_element(0x1000, uids["sop_instance"]))
    body = b"".join(elements)
    return _element(0x0000, struct.pack("<I", len(body))) + body


def store_rq(uid: str = "1.2.3.4") -> bytes:
    """A C-STORE-RQ for a CT image."""
    return command(C_STORE, sop_class=_padded(objects.CT), sop_instance=_padded(uid))


def echo_rq() -> bytes:
    """A C-ECHO-RQ."""
    return command(C_ECHO, data_set=False, sop_class=_padded(VERIFICATION))


class RawPeer:
    """A connection to the node."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def read(self) -> tuple[int, bytes] | None:
        """The next PDU: type and body; None where the connection is closed."""
        header = self._exactly(6)
        if header is None:
            return None
        kind, _, length = struct.unpack(">BBI", header)
        return kind, self._exactly(length) or b""

    def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                return None
            if not more:
                return None
            data += more
        return data

    def associate(self) -> Self:
        """Associate as CT sender."""
        self.send(associate_rq())
        answer = self.read()
        assert answer is not None
        assert answer[0] == 2
        return self

    def status(self) -> int:
        """The status of the next response.

        Raises:
            ConnectionError: the connection is closed.
        """
        answer = self.read()
        if answer is None:
            raise ConnectionResetError("the node closed the connection")
        assert answer[0] == 4, answer
        at = answer[1].index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
        return int.from_bytes(answer[1][at : at + 2], "little")

    def echo(self) -> int:
        self.send(p_data(pdv(ECHO_CONTEXT, 3, echo_rq())))
        return self.status()

    def store(self, uid: str = "1.2.3.4") -> int:
        data_set = objects.incoming(SOPInstanceUID=uid).dataset
        self.send(p_data(pdv(CT_CONTEXT, 3, store_rq(uid))), p_data(pdv(CT_CONTEXT, 2, data_set)))
        return self.status()

    def abort(self) -> tuple[int, int]:
        """Source and reason of the A-ABORT that comes now, with the connection closed behind us."""
        answer = self.read()
        assert answer is not None
        assert answer[0] == 7, answer
        return answer[1][2], answer[1][3]


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)
