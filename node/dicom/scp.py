"""Storage and Verification SCP (PS3.4 annexes A and B): listens, and gives every connection a thread."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from node.dicom import dimse
from node.dicom.admission import CALLED_NOT_RECOGNISED, CALLING_NOT_RECOGNISED, Caller, Rejection
from node.dicom.association import Association, ObjectWriter, State, Terms
from node.dicom.dimse import Handler
from node.dicom.negotiate import LOCAL_LIMIT_EXCEEDED
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
        admit: in the place of ``allowed_callers`` and of the look at the called AE title.
        tls: asked for at every connection; with it nothing but TLS is spoken.
        services: handlers of other DIMSE services, by abstract syntax.
        on_reject: told of (calling, called AE title, reason) for every rejected association.
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
        tls: Callable[[], ssl.SSLContext] | None = None,
        services: Mapping[str, Handler] = dimse.SERVICES,
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
        self._on_reject = on_reject
        self._max_associations = max_associations
        self._terms = Terms(
            begin=begin or (lambda request: _Whole(request, receive)),
            admit=self._admit,
            on_released=on_released,
            services=services,
            artim=artim,
            idle=timeout,
            pdu=pdu_timeout,
        )
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        # In the order in which they came; ``_admitted`` are those that have a calling AE title we agreed to.
        self._running: dict[Association, threading.Thread] = {}
        self._admitted: set[Association] = set()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._address[1]

    def start(self) -> None:
        """Listen, in threads of its own.

        Raises:
            OSError: the address is in use or not ours.
        """
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._listener = socket.create_server(self._address, family=family, backlog=_BACKLOG)
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

    def being_sent(self, study_uid: str) -> bool:
        """Whether an association is open in which instances of a study were acknowledged: more of it may follow."""
        return any(a.state is State.ESTABLISHED and a.has_kept_of(study_uid) for a, _ in self._threads())

    def _threads(self) -> list[tuple[Association, threading.Thread]]:
        with self._lock:
            return list(self._running.items())

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError as error:
                if self._listener is None:
                    return
                # Too many open files, for instance: those that are served will give theirs back.
                log.error("cannot accept a connection: %s", error)
                time.sleep(0.1)
                continue
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
                self._admitted.discard(association)

    def _admit(self, association: Association, caller: Caller) -> Rejection | None:
        with self._lock:
            self._admitted = {admitted for admitted in self._admitted if admitted.state is not State.AWAITING_CLOSE}
            others = [admitted.calling for admitted in self._admitted]
            # Before the decision, so that of two that come at once the second one knows of the first.
            self._admitted.add(association)
        rejection = self._admit_caller(replace(caller, associations=others.count(caller.calling)))
        if rejection is None and len(others) >= self._max_associations:
            rejection = LOCAL_LIMIT_EXCEEDED
            self._log_rejection(caller, rejection)
        if rejection is not None:
            with self._lock:
                self._admitted.discard(association)
            self._on_reject(caller.calling, caller.called, rejection.text)
        return rejection

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
