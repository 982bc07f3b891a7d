"""One association, as its requestor (PS3.8 section 9.2, Sta4 to Sta7), on the thread that calls; for what we send.

pynetdicom, which serves for the rest of what we ask peers, passes every PDU through three threads and two queues, and
spends more time on that than the network does; here a file goes straight to the socket.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context

from node.dicom import wire
from node.dicom.associate import check_certificate, context_for, name_of
from node.dicom.negotiate import APPLICATION_CONTEXT, ourselves
from node.dicom.tls import Certificates
from node.dicom.wire import AbortReason, Closed, Command, PduType, ProtocolError, Silent, Wire
from node.domain.errors import PeerUnreachable
from node.domain.peer import Peer
from node.ports import idle

_SERVICE_USER = 0  # PS3.8 table 9-26
_ACCEPTED = 0
# What is read of a file and written to the socket at once, in bytes; the peer has its time-out for each.
_PART = 1 << 18
_RELEASE_SECONDS = 5.0


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE that is to be sent: its P-DATA-TF PDUs, some at a time."""

    context_id: int
    message_id: int
    uid: str
    parts: Iterable[bytes]


class Requestor:
    """An association with a peer; a context manager that releases it, or aborts it where something was raised.

    Args:
        contexts: abstract syntaxes with the transfer syntaxes that are proposed for each, at most 128; one abstract
            syntax may come several times.
        ae_title: ours, the calling one.
        tls: ours; a peer with ``tls`` is not called without them.

    ``accepted`` gives the ID of the presentation context by abstract and transfer syntax.

    Raises:
        InvalidInput: the peer has no port, or wants TLS and there are no certificates.
        PeerUnreachable: no connection, a rejection, an abort, another peer's certificate, or no answer in time.
    """

    def __init__(
        self,
        peer: Peer,
        contexts: Sequence[tuple[str, Sequence[str]]],
        *,
        ae_title: str,
        tls: Certificates | None = None,
    ) -> None:
        self._peer = peer
        self._message_id = 0
        self._socket = self._connect(context_for(peer, tls))
        try:
            check_certificate(self._socket, peer)
            self._wire = Wire(self._socket)
            self.accepted, max_pdu = self._negotiate(contexts, ae_title)
            self._room = wire.room_for(max_pdu)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Requestor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(Closed, Silent, ProtocolError):
            by = time.monotonic() + min(self._peer.timeout_seconds, _RELEASE_SECONDS)
            if kind is None:
                self._wire.send(wire.release_rq(), by=by)
                self._wire.read(begins_by=by, seconds=_RELEASE_SECONDS, ends_by=by)
            else:
                self._wire.send(wire.abort(_SERVICE_USER, 0), by=by)
        self._socket.close()

    def echo(self, context_id: int, sop_class_uid: str) -> int:
        """C-ECHO; the status.

        Raises:
            PeerUnreachable: the association broke, or there was no answer in time.
        """
        try:
            message_id = self._next()
            command = wire.echo_request(message_id, sop_class_uid)
            self._send(wire.fragments(context_id, command, wire.LAST_COMMAND, self._room))
            return self._answer(context_id, message_id).status or 0
        except (Closed, Silent, ProtocolError) as error:
            raise PeerUnreachable(f"{name_of(self._peer)} did not answer the C-ECHO: {error}") from None

    def request(self, context_id: int, uids: tuple[str, str], content: BinaryIO, size: int) -> StoreRequest:
        """A C-STORE of a data set in the transfer syntax of its context, to be sent by ``store``.

        Args:
            uids: SOPClassUID and SOPInstanceUID.
            content: at the beginning of the data set, which has ``size`` bytes; read when it is sent.
        """
        message_id = self._next()
        return StoreRequest(context_id, message_id, uids[1], self._parts(context_id, message_id, uids, content, size))

    def _parts(
        self, context_id: int, message_id: int, uids: tuple[str, str], content: BinaryIO, size: int
    ) -> Iterator[bytes]:
        head = wire.fragments(context_id, wire.store_request(message_id, *uids), wire.LAST_COMMAND, self._room)
        part = max(_PART // self._room, 1) * self._room
        for start in range(0, max(size, 1), part):
            data = content.read(min(part, size - start))
            if len(data) < min(part, size - start):
                raise OSError("the file ends early")
            ends = start + part >= size
            yield head + wire.fragments(context_id, memoryview(data), wire.LAST_DATA, self._room, ends=ends)
            head = b""

    def store(
        self, request: StoreRequest, beat: Callable[[], None], meanwhile: Callable[[], None] = idle
    ) -> tuple[int, str]:
        """Send a request; the status and the peer's comment.

        Args:
            beat: called after each part of it.
            meanwhile: called when all is sent and the answer is still to come.

        Raises:
            PeerUnreachable: the association broke, or there was no answer in time.
            OSError: the content cannot be read to its end; the association is of no use any more.
        """
        try:
            for part in request.parts:
                self._send(part)
                beat()
            meanwhile()
            answer = self._answer(request.context_id, request.message_id)
        except (Closed, Silent, ProtocolError) as error:
            raise PeerUnreachable(f"{name_of(self._peer)} gave no answer to {request.uid}: {error}") from None
        return answer.status or 0, answer.comment

    def _connect(self, context: ssl.SSLContext | None) -> socket.socket:
        peer = self._peer
        try:
            connection = socket.create_connection((peer.host, peer.port or 0), timeout=peer.timeout_seconds)
        except OSError as error:
            raise PeerUnreachable(f"{name_of(peer)}: no connection: {error.strerror or error}") from None
        # A command and its answer are small, and waiting to fill a segment costs 40 ms each.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return connection
        try:
            return context.wrap_socket(connection, server_hostname=peer.host)
        except OSError as error:
            connection.close()
            raise PeerUnreachable(f"{name_of(peer)}: no connection: {error.strerror or error}") from None

    def _negotiate(
        self, contexts: Sequence[tuple[str, Sequence[str]]], ae_title: str
    ) -> tuple[Mapping[tuple[str, str], int], int]:
        peer, by = self._peer, time.monotonic() + self._peer.timeout_seconds
        try:
            self._wire.send(_proposal(peer, contexts, ae_title), by=by)
            kind, body = self._wire.read(begins_by=by, seconds=peer.timeout_seconds, ends_by=by)
        except Silent:
            raise PeerUnreachable(f"{name_of(peer)}: did not answer within {peer.timeout_seconds:g} s") from None
        except (Closed, ProtocolError) as error:
            # By TLS 1.3 a client is connected before the server has looked at its certificate.
            refused = "refused our certificate, " if isinstance(self._socket, ssl.SSLSocket) else ""
            raise PeerUnreachable(f"{name_of(peer)}: {refused}aborted the association, or failed: {error}") from None
        if kind is PduType.ABORT:
            raise PeerUnreachable(f"{name_of(peer)}: aborted the association")
        try:
            return _agreed(kind, body, contexts)
        except ProtocolError as error:
            raise PeerUnreachable(f"{name_of(peer)}: {error}") from None

    def _next(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _send(self, data: bytes) -> None:
        self._wire.send(data, by=time.monotonic() + self._peer.timeout_seconds)

    def _answer(self, context_id: int, message_id: int) -> Command:
        """The response to a request.

        Raises:
            Closed, Silent: the association broke, or nothing came.
            ProtocolError: something else came.
        """
        gathered = bytearray()
        by = time.monotonic() + self._peer.timeout_seconds
        while True:
            kind, body = self._wire.read(begins_by=by, seconds=self._peer.timeout_seconds)
            if kind is PduType.ABORT:
                raise Closed("the peer aborted the association")
            if kind is not PduType.P_DATA:
                raise ProtocolError(AbortReason.UNEXPECTED_PDU, f"{kind.name} in place of an answer")
            for came_in, control, fragment in wire.values(body):
                gathered += fragment
                if came_in != context_id or not control & 1:
                    raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "what came is no answer")
                if control & 2:
                    answer = Command(bytes(gathered))
                    if answer.responds_to != message_id or answer.status is None:
                        raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "an answer to another request")
                    return answer


def _proposal(peer: Peer, contexts: Sequence[tuple[str, Sequence[str]]], ae_title: str) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title = ae_title
    primitive.called_ae_title = peer.ae_title
    proposed: list[Any] = []
    for number, (abstract, transfer) in enumerate(contexts):
        context = build_context(abstract, list(transfer))
        context.context_id = 2 * number + 1
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    primitive.user_information = ourselves(min(peer.max_pdu, wire.MAX_PDU))
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _agreed(
    kind: PduType, body: memoryview, contexts: Sequence[tuple[str, Sequence[str]]]
) -> tuple[Mapping[tuple[str, str], int], int]:
    """Accepted presentation contexts of an A-ASSOCIATE-AC (PS3.8 9.3.3), and the peer's maximum length.

    Raises:
        ProtocolError: it is none; where it is an A-ASSOCIATE-RJ it says what that says.
    """
    pdu = bytes((kind, 0)) + body.nbytes.to_bytes(4, "big") + bytes(body)
    try:
        if kind is PduType.ASSOCIATE_AC:
            answer: Any = A_ASSOCIATE_AC()
            answer.decode(pdu)
            accepted = {
                (contexts[c.context_id // 2][0], str(c.transfer_syntax[0])): int(c.context_id)
                for c in answer.to_primitive().presentation_context_definition_results_list
                if c.result == _ACCEPTED
            }
            return accepted, int(answer.user_information.maximum_length or 0)
        rejection = A_ASSOCIATE_RJ()
        rejection.decode(pdu)
        said = rejection.to_primitive()
        why = f"rejected the association: {said.reason_str} ({said.result_str})"
    except Exception as error:
        # As in negotiation: pynetdicom's decoders raise whatever the bytes lead them to.
        raise ProtocolError(AbortReason.INVALID_PARAMETER, f"no answer to an A-ASSOCIATE-RQ: {error!r}") from error
    raise ProtocolError(AbortReason.NOT_SPECIFIED, why)
