"""One association, as its acceptor: the upper layer state machine of PS3.8 section 9.2 on a thread of its own.

==========================================  ==========================  ==========================  ===========
event                                       in Sta2 (awaiting request)  in Sta6 (established)       in Sta13
==========================================  ==========================  ==========================  ===========
Evt6 A-ASSOCIATE-RQ                         AE-6: AC (AE-7), RJ (AE-8)  AA-8                        AA-7
Evt10 P-DATA-TF                             AA-1                        DT-2: a fragment            AA-6
Evt12 A-RELEASE-RQ                          AA-1                        AR-2, AR-4: A-RELEASE-RP    AA-6
Evt3, Evt4, Evt13: a PDU for requestors     AA-1                        AA-8                        AA-6
Evt16 A-ABORT                               AA-2: close                 AA-3: close                 AA-2: close
Evt17 connection closed                     AA-5                        AA-4                        AR-5
Evt18 ARTIM expired                         AA-2: close                                             AA-2: close
Evt19 unrecognised or invalid PDU           AA-1                        AA-8                        AA-7
Evt15 A-ABORT request of ours               AA-2: close                 AA-1                        AA-2: close
==========================================  ==========================  ==========================  ===========

AE-7 leads to Sta6; AE-8, AR-4, AA-1 and AA-8 lead to Sta13, which awaits the close of the connection by the peer.

AA-1, AA-7 and AA-8 send A-ABORT. Where the peer broke the protocol its source is the service provider, with the
reason, in Sta2 too (the standard has the service user there, whose reason means nothing); where we end the
association, silence for too long among it, it is the service user. AA-6 throws away what came. After an invalid PDU it
is unknown where the next one begins, so that all that follows is thrown away and AA-7 comes no second time. Sta3 and
Sta8, which await the local user, take no time here: the user answers at once. The states of a requestor do not occur.

Within Sta6 a message is command fragments, then data set fragments, of one presentation context (PS3.8 annex E), and
the next one is read after the answer: the window of operations is 1. The fragments of a C-STORE data set go straight
to its writer, as views into the read buffer.

Where a context has notices for its peer (an N-EVENT-REPORT, PS3.7 10.1.1), the wait for the next message is cut into
short ones, between which the next notice is looked for and sent: one at a time, as the window of the operations that we
invoke is 1 too. Requests of the peer are served while its response is awaited; any other
response is to no request.
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

from node.dicom import dimse, negotiate, wire
from node.dicom.admission import Caller, Rejection
from node.dicom.dimse import Handler, Request
from node.dicom.message import Message, ObjectWriter
from node.dicom.negotiate import Agreement, Proposal
from node.dicom.notice import Notices, Notifier, notifier
from node.dicom.tls import certificate_subject
from node.dicom.wire import AbortReason, Closed, Command, PduType, ProtocolError, Silent, Wire
from node.domain.instance import StoreRequest

log = logging.getLogger(__name__)

_SERVICE_USER, _SERVICE_PROVIDER = 0, 2  # PS3.8 table 9-26

_C_STORE, _C_CANCEL, _RESPONSE = 0x0001, 0x0FFF, 0x8000  # CommandField (PS3.7 annex E)
# PS3.7 annex C.
_PROCESSING_FAILURE, _NO_SUCH_SOP_CLASS, _UNRECOGNISED_OPERATION = 0x0110, 0x0122, 0x0211

# How long a notice may lie before it is looked for.
_NOTICE_SECONDS = 0.25


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
        may_store: whether a calling AE title may send; else it is offered storage commitment and C-ECHO alone.
        on_no_tls: told of a connection on which no TLS came about.
        on_study: told of the StudyInstanceUID of the first instance of a study, before it is acknowledged.
        on_released: told after an A-RELEASE was answered: calling AE title, StudyInstanceUIDs acknowledged.
        on_end: told when it leaves Sta6; may be told again when the connection is closed.
        services: handlers beside C-STORE, by abstract syntax.
        notices: of requests of ours, by abstract syntax.
        artim: for the A-ASSOCIATE-RQ to come, and for the peer to close the connection at the end.
        idle: between two PDUs.
        pdu: for the rest of a PDU that has begun, and for an answer to be taken.
    """

    begin: Callable[[StoreRequest], ObjectWriter]
    admit: Callable[[Association, Caller], Rejection | None]
    may_store: Callable[[str], bool]
    on_no_tls: Callable[[], None]
    on_study: Callable[[str], None]
    on_released: Callable[[str, frozenset[str]], None]
    on_end: Callable[[Association], None]
    services: Mapping[str, Handler]
    notices: Mapping[str, Notices]
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
        self._message: Message | None = None
        self._notifier: Notifier | None = None

    @property
    def studies(self) -> frozenset[str]:
        """The StudyInstanceUIDs of the instances that were acknowledged; for its own thread."""
        return frozenset(self._studies)

    def run(self) -> None:
        """Serve until the connection is closed; raises nothing."""
        try:
            artim = time.monotonic() + self._terms.artim
            self._wire = Wire(self._secured(artim))
            self._await_request(artim)
            while self.state is State.ESTABLISHED:
                self._read()
            self._await_close(time.monotonic() + self._terms.artim)
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
            self._connection.close()
            self._end()

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
                self._terms.on_no_tls()
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
        self._agreement = negotiate.agree(asked, self._terms.services, may_store=self._terms.may_store(asked.calling))
        self._notifier = notifier(self.calling, self._agreement.contexts, self._terms.notices)
        self._wire.send(self._agreement.accept, by=self._answer_by())
        self._wire.expect_data()
        self.state = State.ESTABLISHED
        log.debug("association of %r from %s", self.calling, self.address)

    def _read(self) -> None:
        """Sta6: one PDU."""
        begins_by = time.monotonic() + self._terms.idle
        try:
            if self._notifier is not None and self._message is None:
                self._notify_until(self._notifier, begins_by)
            kind, body = self._wire.read(begins_by=begins_by, seconds=self._terms.pdu)
            if self._aborted:
                raise Closed("aborted")
            if kind is PduType.P_DATA:
                for context_id, control, fragment in wire.values(body):
                    self._fragment(context_id, control, fragment)
            elif kind is PduType.RELEASE_RQ:
                self._leave(wire.release_rp())
                self._terms.on_released(self.calling, self.studies)
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
            message = self._message = Message(context_id, context)
        if context_id != message.context_id:
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "a message within another message")
        is_command, is_last = bool(control & 1), bool(control & 2)
        if is_command != (message.command is None):
            what = "a command within a data set" if is_command else "a data set before its command"
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, what)
        if not is_command:
            message.take(fragment)
        else:
            message.gather_command(fragment)
            if is_last:
                is_last = not self._commanded(message).has_data_set
        if is_last:
            self._message = None
            self._answer(message)

    def _commanded(self, message: Message) -> Command:
        """The command set is whole: choose where its data set goes."""
        command = message.command = Command(bytes(message.gathered))
        message.gathered.clear()
        if command.field & _RESPONSE:
            if self._notifier is None or not self._notifier.is_answered_by(message.context_id, command):
                raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "a response to no request")
        elif command.message_id is None and command.field != _C_CANCEL:
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

    def _answer(self, message: Message) -> None:
        command = message.command
        assert command is not None
        handler = self._terms.services.get(message.context.abstract_syntax)
        if command.field & _RESPONSE:
            assert self._notifier is not None
            self._notifier.take(command)
        elif message.writer is not None:
            answer = message.writer.finish()
            if answer.study_uid is not None and answer.study_uid not in self._studies:
                self._studies.add(answer.study_uid)
                self._terms.on_study(answer.study_uid)
            self._respond(message, wire.response(command, answer.status, answer.comment))
        elif command.field == _C_CANCEL:
            pass  # what it would cancel has been answered already
        elif command.field == _C_STORE:
            self._respond(message, wire.response(command, _NO_SUCH_SOP_CLASS))
        elif handler is None:
            self._respond(message, wire.response(command, _UNRECOGNISED_OPERATION))
        else:
            self._serve(message, command, handler)

    def _serve(self, message: Message, command: Command, handler: Handler) -> None:
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

    def _notify_until(self, notifier: Notifier, by: float) -> None:
        """Wait for the next message, and tell the peer what is to be told meanwhile."""
        while (now := time.monotonic()) < by and not self._wire.begins(by=min(by, now + _NOTICE_SECONDS)):
            if (request := notifier.next()) is not None:
                self._send(dimse.encoded(notifier.context_id, request, self._agreement.max_pdu))

    def _respond(self, message: Message, command: bytes) -> None:
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

    def _await_close(self, artim: float) -> None:
        """Sta13."""
        try:
            while self._wire.in_step:
                kind, _ = self._wire.read(begins_by=artim, seconds=self._terms.artim, ends_by=artim)
                if kind is PduType.ABORT:
                    return
                if kind is PduType.ASSOCIATE_RQ:
                    self._wire.send(wire.abort(_SERVICE_PROVIDER, AbortReason.UNEXPECTED_PDU), by=artim)
        except ProtocolError as error:
            self._wire.send(wire.abort(_SERVICE_PROVIDER, error.reason), by=artim)
        except Silent:
            return
        self._wire.drain(artim)

    def _leave(self, last: bytes) -> None:
        """Send the last PDU and go to Sta13."""
        self._forget()
        self._end()
        try:
            self._wire.send(last, by=self._answer_by())
        except Silent as error:
            raise Closed(str(error)) from None

    def _end(self) -> None:
        self.state = State.AWAITING_CLOSE
        self._terms.on_end(self)

    def _forget(self) -> None:
        """Abandon the message that is not whole."""
        message, self._message = self._message, None
        if message is not None and message.writer is not None:
            message.writer.abandon()


def _uid(value: bytes) -> str:
    return value.decode("latin-1").rstrip("\0 ")
