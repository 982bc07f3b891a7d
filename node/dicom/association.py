"""One association, as its acceptor: the upper layer state machine of PS3.8 section 9.2 on a thread of its own.

==========================================  ============================  ===========================  ==========
event                                       in Sta2 (awaiting request)    in Sta6 (established)        then
==========================================  ============================  ===========================  ==========
Evt6 A-ASSOCIATE-RQ                         AE-6: AC (AE-7), RJ (AE-8)    AA-8                         Sta6, Sta13
Evt10 P-DATA-TF                             AA-1                          DT-2: a fragment             Sta6
Evt12 A-RELEASE-RQ                          AA-1                          AR-2, AR-4: A-RELEASE-RP     Sta13
Evt3, Evt4, Evt13: a PDU for requestors     AA-1                          AA-8                         Sta13
Evt16 A-ABORT                               AA-2: close                   AA-3: close                  Sta1
Evt17 connection closed                     AA-5                          AA-4                         Sta1
Evt18 ARTIM expired                         AA-2: close                                                Sta1
Evt19 unrecognised or invalid PDU           AA-1                          AA-8                         Sta13
Evt15 A-ABORT request of ours               AA-2: close                   AA-1                         Sta13
==========================================  ============================  ===========================  ==========

AA-1 and AA-8 send A-ABORT. Where the peer broke the protocol its source is the service provider, with the reason, in
Sta2 too (the standard has the service user there, whose reason means nothing); where we end the association, silence
for too long among it, it is the service user. In Sta13 whatever comes is thrown away until the peer closes the
connection or ARTIM expires (AA-6, AR-5, AA-2). Sta3 and Sta8, which await the local user, take no time here: the user
answers at once. The states of a requestor do not occur.

Within Sta6 a message is command fragments, then data set fragments, of one presentation context (PS3.8 annex E), and
the next one is read after the answer: the window of operations is 1. The fragments of a C-STORE data set go straight
to its writer, as views into the read buffer.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from node.dicom import dimse, negotiate, wire
from node.dicom.admission import Caller, Rejection
from node.dicom.dimse import Handler, Request
from node.dicom.negotiate import Agreement, Context, Proposal
from node.dicom.tls import certificate_subject
from node.dicom.wire import AbortReason, Closed, Command, PduType, ProtocolError, Silent, Wire
from node.domain.instance import Answer, StoreRequest

log = logging.getLogger(__name__)

_SERVICE_USER, _SERVICE_PROVIDER = 0, 2  # PS3.8 table 9-26

_C_STORE, _C_CANCEL, _RESPONSE = 0x0001, 0x0FFF, 0x8000  # CommandField (PS3.7 annex E)
# PS3.7 annex C.
_PROCESSING_FAILURE, _NO_SUCH_SOP_CLASS, _UNRECOGNISED_OPERATION = 0x0110, 0x0122, 0x0211

# Of a command set, and of a data set that is no object to be stored (the longest name many instances).
_MAX_COMMAND, _MAX_DATA_SET = 1 << 16, 1 << 24


class ObjectWriter(Protocol):
    """Takes the data set of one C-STORE. Raises nothing: what goes wrong is in its answer."""

    def write(self, fragment: memoryview) -> None: ...
    def finish(self) -> Answer: ...
    def abandon(self) -> None:
        """The rest will not come: leave nothing."""
        ...


class State(Enum):
    """PS3.8 table 9-2."""

    AWAITING_REQUEST = "Sta2"
    ESTABLISHED = "Sta6"
    AWAITING_CLOSE = "Sta13"


@dataclass(frozen=True)
class Terms:
    """What is the same for every association; times in seconds.

    Args:
        begin: opens a writer for an object.
        admit: decides over a caller.
        on_released: told after an A-RELEASE was answered: calling AE title, StudyInstanceUIDs acknowledged.
        services: handlers beside C-STORE, by abstract syntax.
        artim: for the A-ASSOCIATE-RQ to come, and for the peer to close the connection at the end.
        idle: between two PDUs.
        pdu: for the rest of a PDU that has begun, and for an answer to be taken.
    """

    begin: Callable[[StoreRequest], ObjectWriter]
    admit: Callable[[Association, Caller], Rejection | None]
    on_released: Callable[[str, frozenset[str]], None]
    services: Mapping[str, Handler]
    artim: float
    idle: float
    pdu: float


class Association:
    """Serves one connection from accept to close.

    Args:
        connection: as accepted; closed when ``run`` returns.
        address: of the peer.
        tls: speaks TLS on the connection first, within ARTIM.
    """

    def __init__(self, connection: socket.socket, address: str, terms: Terms, tls: ssl.SSLContext | None) -> None:
        self.state = State.AWAITING_REQUEST
        self.address = address
        self.calling = ""
        self._connection = connection
        self._terms = terms
        self._tls = tls
        self._aborted = False
        self._agreement = Agreement({}, 0, b"")
        self._studies: set[str] = set()
        self._message: _Message | None = None

    def has_kept_of(self, study_uid: str) -> bool:
        """Whether an instance of a study was acknowledged here; may be asked from any thread."""
        return study_uid in self._studies

    def run(self) -> None:
        """Serve until the connection is closed; raises nothing."""
        try:
            artim = time.monotonic() + self._terms.artim
            self._wire = Wire(self._secured(artim))
            self._await_request(artim)
            while self.state is State.ESTABLISHED:
                self._read()
            self._wire.drain(time.monotonic() + self._terms.artim)
        except (Closed, OSError) as error:
            if self.state is State.ESTABLISHED and not self._aborted:
                log.warning("association of %r from %s broke: %s", self.calling, self.address, error)
        except Exception:
            # The edge: whatever fails here ends this association and no other.
            log.exception("association of %r from %s failed", self.calling, self.address)
            with suppress(Closed):
                self._leave(wire.abort(_SERVICE_USER, AbortReason.NOT_SPECIFIED))
        finally:
            self._forget()
            self.state = State.AWAITING_CLOSE
            self._connection.close()

    def abort(self) -> None:
        """End it from another thread (Evt15): no answer is sent any more, and A-ABORT where there is an association."""
        self._aborted = True
        # Wakes the thread that reads. Not the method of SSLSocket, which would send the A-ABORT unencrypted.
        with suppress(OSError):  # it is closed already
            socket.socket.shutdown(self._connection, socket.SHUT_RD)

    def _secured(self, by: float) -> socket.socket:
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            self._connection.settimeout(max(by - time.monotonic(), 0.001))
            try:
                # First the socket, then the handshake, so that ``abort`` ends it.
                connection = self._tls.wrap_socket(self._connection, server_side=True, do_handshake_on_connect=False)
                self._connection = connection
                connection.do_handshake()
            except OSError as error:
                log.warning("no TLS with %s: %s", self.address, error)
                raise
        return self._connection

    def _await_request(self, artim: float) -> None:
        """Sta2."""
        try:
            kind, body = self._wire.read(begins_by=artim, seconds=self._terms.artim, ends_by=artim)
            if kind is PduType.ABORT:
                raise Closed("aborted by the peer")
            if kind is not PduType.ASSOCIATE_RQ:
                raise ProtocolError(AbortReason.UNEXPECTED_PDU, f"{kind.name} before A-ASSOCIATE-RQ")
            asked = negotiate.proposal(body)
            rejection = negotiate.refusal(asked) or self._refusal(asked)
            if rejection is None:
                self._accept(asked)
            else:
                self._leave(wire.reject(rejection.result, rejection.source, rejection.reason))
        except ProtocolError as error:
            self._provider_abort(error)
        except Silent as error:
            raise Closed(str(error)) from None  # ARTIM expired, AA-2

    def _refusal(self, asked: Proposal) -> Rejection | None:
        subject = certificate_subject(self._connection) if isinstance(self._connection, ssl.SSLSocket) else None
        self.calling = asked.calling
        return self._terms.admit(self, Caller(asked.calling, asked.called, self.address, subject))

    def _accept(self, asked: Proposal) -> None:
        self._agreement = negotiate.agree(asked, self._terms.services)
        self._wire.send(self._agreement.accept, by=self._answer_by())
        self._wire.expect_data()
        self.state = State.ESTABLISHED
        log.debug("association of %r from %s", self.calling, self.address)

    def _read(self) -> None:
        """Sta6: one PDU."""
        now = time.monotonic()
        try:
            kind, body = self._wire.read(begins_by=now + self._terms.idle, seconds=self._terms.pdu)
            if self._aborted:
                raise Closed("aborted")
            if kind is PduType.P_DATA:
                for context_id, control, fragment in wire.values(body):
                    self._fragment(context_id, control, fragment)
            elif kind is PduType.RELEASE_RQ:
                self._leave(wire.release_rp())
                self._terms.on_released(self.calling, frozenset(self._studies))
            elif kind is PduType.ABORT:
                raise Closed("aborted by the peer")
            else:
                raise ProtocolError(AbortReason.UNEXPECTED_PDU, f"{kind.name} within an association")
        except ProtocolError as error:
            self._provider_abort(error)
        except Silent as error:
            log.warning("association of %r from %s aborted: %s", self.calling, self.address, error)
            self._leave(wire.abort(_SERVICE_USER, AbortReason.NOT_SPECIFIED))
        except Closed:
            if self._aborted:
                self._leave(wire.abort(_SERVICE_USER, AbortReason.NOT_SPECIFIED))
            raise

    def _fragment(self, context_id: int, control: int, fragment: memoryview) -> None:
        message = self._message
        if message is None:
            context = self._agreement.contexts.get(context_id)
            if context is None:
                raise ProtocolError(AbortReason.INVALID_PARAMETER, f"presentation context {context_id} is not accepted")
            message = self._message = _Message(context_id, context)
        if context_id != message.context_id:
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "a message within another message")
        is_command, is_last = bool(control & 1), bool(control & 2)
        if is_command != (message.command is None):
            what = "a command within a data set" if is_command else "a data set before its command"
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, what)
        if not is_command:
            message.take(fragment)
        else:
            message.gather(fragment, _MAX_COMMAND)
            if is_last:
                is_last = not self._commanded(message).has_data_set
        if is_last:
            self._message = None
            self._answer(message)

    def _commanded(self, message: _Message) -> Command:
        """The command set is whole: choose where its data set goes."""
        command = message.command = Command(bytes(message.gathered))
        message.gathered.clear()
        if command.field & _RESPONSE:
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "a response to no request")
        if command.message_id is None and command.field != _C_CANCEL:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "a request without MessageID")
        if command.field == _C_STORE and message.context.storage:
            message.writer = self._terms.begin(
                StoreRequest(
                    sop_class_uid=_uid(command.sop_class_uid),
                    sop_instance_uid=_uid(command.sop_instance_uid),
                    transfer_syntax_uid=message.context.transfer_syntax,
                    peer=self.calling,
                )
            )
        return command

    def _answer(self, message: _Message) -> None:
        command = message.command
        assert command is not None
        handler = self._terms.services.get(message.context.abstract_syntax)
        if message.writer is not None:
            answer = message.writer.finish()
            if answer.study_uid is not None:
                self._studies.add(answer.study_uid)
            self._respond(message, wire.response(command, answer.status, answer.comment))
        elif command.field == _C_CANCEL:
            pass  # what it would cancel has been answered already
        elif command.field == _C_STORE:
            self._respond(message, wire.response(command, _NO_SUCH_SOP_CLASS))
        elif handler is None:
            self._respond(message, wire.response(command, _UNRECOGNISED_OPERATION))
        else:
            self._serve(message, command, handler)

    def _serve(self, message: _Message, command: Command, handler: Handler) -> None:
        primitive = dimse.decoded(message.context_id, command.encoded, bytes(message.gathered))
        try:
            for response in handler(Request(primitive, message.context, self.calling)):
                self._send(dimse.encoded(message.context_id, response, self._agreement.max_pdu))
        except (Closed, Silent):
            raise
        except Exception:
            # The edge: the association goes on, whatever one request does.
            log.exception("%s of %r failed", type(primitive).__name__, self.calling)
            self._respond(message, wire.response(command, _PROCESSING_FAILURE))

    def _respond(self, message: _Message, command: bytes) -> None:
        self._send(wire.messages(message.context_id, command, b"", self._agreement.max_pdu))

    def _send(self, pdus: bytes) -> None:
        if self._aborted:
            raise Closed("aborted")
        self._wire.send(pdus, by=self._answer_by())

    def _answer_by(self) -> float:
        return time.monotonic() + self._terms.pdu

    def _provider_abort(self, error: ProtocolError) -> None:
        log.warning("association of %r from %s aborted: %s", self.calling, self.address, error)
        self._leave(wire.abort(_SERVICE_PROVIDER, error.reason))

    def _leave(self, last: bytes) -> None:
        """Send the last PDU and go to Sta13."""
        self._forget()
        self.state = State.AWAITING_CLOSE
        try:
            self._wire.send(last, by=self._answer_by())
        except Silent as error:
            raise Closed(str(error)) from None

    def _forget(self) -> None:
        """Abandon the message that is not whole."""
        message, self._message = self._message, None
        if message is not None and message.writer is not None:
            message.writer.abandon()


class _Message:
    """A DIMSE message that is being read. ``gathered`` is its command set, then its data set unless a writer has it."""

    def __init__(self, context_id: int, context: Context) -> None:
        self.context_id = context_id
        self.context = context
        self.command: Command | None = None
        self.writer: ObjectWriter | None = None
        self.gathered = bytearray()

    def take(self, fragment: memoryview) -> None:
        """A fragment of the data set."""
        if self.writer is not None:
            self.writer.write(fragment)
        elif self.context.storage:
            pass  # refused without a look at it
        else:
            self.gather(fragment, _MAX_DATA_SET)

    def gather(self, fragment: memoryview, limit: int) -> None:
        if len(self.gathered) + len(fragment) > limit:
            raise ProtocolError(AbortReason.NOT_SPECIFIED, f"a message of more than {limit} bytes")
        self.gathered += fragment


def _uid(value: bytes) -> str:
    return value.decode("latin-1").rstrip("\0 ")
