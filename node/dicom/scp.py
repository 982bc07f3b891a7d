"""Storage and Verification SCP (PS3.4 annexes A and B): listens, and gives every connection a thread."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from node.dicom import dimse
from node.dicom.admission import CALLED_NOT_RECOGNISED, CALLING_NOT_RECOGNISED, Caller, Rejection
from node.dicom.association import Association, State, Terms
from node.dicom.census import Census, LocalCensus
from node.dicom.dimse import Handler
from node.dicom.message import ObjectWriter
from node.dicom.negotiate import LOCAL_LIMIT_EXCEEDED
from node.dicom.notice import Notices
from node.domain.instance import Answer, Incoming, StoreRequest

log = logging.getLogger(__name__)

# How long a connection may wait before it asks for an association (PS3.8 9.1.5). Short, because load balancers and
# scanners connect without ever asking.
ARTIM_SECONDS = 10.0

# Connections that have no association (yet, or any more). Beyond it the one that has been so the longest is closed: a
# peer that means it asks within milliseconds.
_MAX_WAITING = 64
_BACKLOG = 512
_ABORT_SECONDS = 5.0
NO_TLS = "TLS handshake failed"
_PROCESSING_FAILURE = 0xC211  # PS3.4 B.2.3: cannot understand; the value pynetdicom gives for a receiver that raises


class StorageSCP:
    """Listens for associations and hands every C-STORE to ``receive``.

    Every storage SOP class is accepted, unknown and private ones too, in the first transfer syntax that the peer
    proposes for it; the data set is handed on as the bytes that came.

    Args:
        ae_title: ours; an association that calls another is rejected.
        host, port: where to listen; port 0 takes a free one, which ``port`` tells after ``start``.
        receive: given each object whole, in memory. Called from the thread of the association, by several at once.
        allowed_callers: whether a calling AE title may associate.
        begin: in the place of ``receive``: opens a writer that is given the object as it comes.
        may_store: whether a calling AE title may send; else it is offered storage commitment and C-ECHO alone.
        admit: in the place of ``allowed_callers`` and of the look at the called AE title.
        tls: asked for at every connection; with it nothing but TLS is spoken.
        services: handlers of other DIMSE services, by abstract syntax.
        notices: of requests of ours to a peer, on the association that it opened, by abstract syntax.
        census: counts the associations, of other receivers too.
        listener: a socket that listens already, and that other processes may accept from too: it is in the place of
            host and port, and stays open.
        on_reject: told of (calling, called AE title, reason) for every rejected association, and of ("", "", NO_TLS)
            for every connection on which no TLS came about.
        on_released: told once of (calling AE title, StudyInstanceUIDs acknowledged) after an A-RELEASE was answered,
            never after an abort.
        max_associations: further ones are rejected as transient, local limit exceeded.
        timeout: seconds of silence after which an association is aborted.
        pdu_timeout: seconds for the rest of a PDU that has begun, and for the peer to take an answer.
        artim: seconds for a connection to ask for an association, and to be closed by the peer after its end.
    """

    def __init__(
        self,
        ae_title: str,
        host: str,
        port: int,
        receive: Callable[[Incoming], Answer],
        allowed_callers: Callable[[str], bool],
        *,
        begin: Callable[[StoreRequest], ObjectWriter] | None = None,
        admit: Callable[[Caller], Rejection | None] | None = None,
        may_store: Callable[[str], bool] = lambda calling: True,
        tls: Callable[[], ssl.SSLContext] | None = None,
        services: Mapping[str, Handler] = dimse.SERVICES,
        notices: Mapping[str, Notices] = MappingProxyType({}),
        census: Census | None = None,
        listener: socket.socket | None = None,
        on_reject: Callable[[str, str, str], None] = lambda calling, called, reason: None,
        on_released: Callable[[str, frozenset[str]], None] = lambda calling, studies: None,
        max_associations: int = 50,
        timeout: float = 60.0,
        pdu_timeout: float = 30.0,
        artim: float = ARTIM_SECONDS,
    ) -> None:
        self._ae_title = ae_title
        self._address = (host, port)
        self._allowed_callers = allowed_callers
        self._admit_caller = admit or self._by_ae_title
        self._tls = tls
        self._shared = listener
        self._census = census or LocalCensus()
        self._on_reject = on_reject
        self._max_associations = max_associations
        self._terms = Terms(
            begin=begin or (lambda request: _Whole(request, receive)),
            admit=self._admit,
            may_store=may_store,
            on_no_tls=lambda: on_reject("", "", NO_TLS),
            on_study=self._census.sends,
            on_released=on_released,
            on_end=self._leave,
            services=services,
            notices=notices,
            artim=artim,
            idle=timeout,
            pdu=pdu_timeout,
        )
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        # In the order in which they came; ``_entered`` are those that are counted in the census.
        self._running: dict[Association, threading.Thread] = {}
        self._entered: set[Association] = set()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._address[1]

    def start(self) -> None:
        """Listen, in threads of its own.

        Raises:
            OSError: the address is in use or not ours.
        """
        self._listener = self._shared or listen(*self._address)
        self._address = (self._address[0], int(self._listener.getsockname()[1]))
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), name="accept", daemon=True)
        self._accepting.start()
        log.info("%s listens on %s:%d", self._ae_title, *self._address)

    def stop(self, *, grace: float = 10.0) -> None:
        """Stop in this order: no new connections; up to ``grace`` seconds for running associations to end; abort.

        An object whose answer was not sent by then is not acknowledged: its sender sends it again.
        """
        listener, self._listener = self._listener, None
        if listener is None:
            return
        if self._shared is None:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._accepting.join()
            listener.close()
        deadline = time.monotonic() + grace
        for association, thread in self._threads():
            if association.state is State.ESTABLISHED:
                thread.join(max(0.0, deadline - time.monotonic()))
        ending = self._threads()
        for association, _ in ending:
            association.abort()
        deadline = time.monotonic() + _ABORT_SECONDS
        for _, thread in ending:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _threads(self) -> list[tuple[Association, threading.Thread]]:
        with self._lock:
            return list(self._running.items())

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError as error:
                if self._listener is None or error.errno == errno.EINVAL:  # it was shut down, by us or by its owner
                    return
                # Too many open files, for instance: those that are served will give theirs back.
                log.error("cannot accept a connection: %s", error)
                time.sleep(0.1)
                continue
            if self._listener is None:
                connection.close()
                return
            association = Association(connection, address[0], self._terms, self._tls() if self._tls else None)
            thread = threading.Thread(target=self._run, args=(association,), name=f"association {address[0]}")
            thread.daemon = True
            with self._lock:
                self._running[association] = thread
                waiting = [running for running in self._running if running.state is not State.ESTABLISHED]
            if len(waiting) > _MAX_WAITING:
                waiting[0].abort()
            thread.start()

    def _run(self, association: Association) -> None:
        try:
            association.run()
        finally:
            with self._lock:
                del self._running[association]

    def _admit(self, association: Association, caller: Caller) -> Rejection | None:
        others, of_all = self._census.enter(caller.calling)
        self._entered.add(association)
        rejection = self._admit_caller(replace(caller, associations=others))
        if rejection is None and of_all >= self._max_associations:
            rejection = LOCAL_LIMIT_EXCEEDED
            self._log_rejection(caller, rejection)
        if rejection is not None:
            self._on_reject(caller.calling, caller.called, rejection.text)
        return rejection

    def _leave(self, association: Association) -> None:
        """Count it no more: from when it ends, which may be long before the peer closes the connection."""
        if association in self._entered:
            self._entered.remove(association)
            self._census.leave(association.calling, association.studies)

    def _by_ae_title(self, caller: Caller) -> Rejection | None:
        if caller.called == self._ae_title and self._allowed_callers(caller.calling):
            return None
        rejection = CALLED_NOT_RECOGNISED if caller.called != self._ae_title else CALLING_NOT_RECOGNISED
        self._log_rejection(caller, rejection)
        return rejection

    def _log_rejection(self, caller: Caller, rejection: Rejection) -> None:
        log.warning(
            "association of %r to %r from %s rejected: %s",
            caller.calling,
            caller.called,
            caller.address,
            rejection.text,
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket for connections to come; port 0 takes a free one.

    Raises:
        OSError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


class _Whole:
    """An object writer that gathers the object in memory, for receivers that want it whole."""

    def __init__(self, request: StoreRequest, receive: Callable[[Incoming], Answer]) -> None:
        self._request = request
        self._receive = receive
        self._dataset = bytearray()

    def write(self, fragment: memoryview) -> None:
        self._dataset += fragment

    def finish(self) -> Answer:
        request = self._request
        try:
            return self._receive(
                Incoming(
                    sop_class_uid=request.sop_class_uid,
                    sop_instance_uid=request.sop_instance_uid,
                    transfer_syntax_uid=request.transfer_syntax_uid,
                    dataset=bytes(self._dataset),
                    peer=request.peer,
                )
            )
        except Exception:
            # The edge, as pynetdicom has it: the association goes on, whatever one object does.
            log.exception("an object from %s could not be received", request.peer)
            return Answer(_PROCESSING_FAILURE)

    def abandon(self) -> None:
        self._dataset.clear()
