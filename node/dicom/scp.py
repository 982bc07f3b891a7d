"""Storage and Verification SCP (PS3.4 annexes A and B)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt

from node.dicom.stack import application_entity, send_at_once
from node.domain.instance import Answer, Incoming

log = logging.getLogger(__name__)

_VERIFICATION = "1.2.840.10008.1.1"
MAX_PDU = 131072

# How long a connection may wait before it asks for an association (PS3.8 9.1.5). Short, because it takes the place of
# one, and load balancers and scanners connect without ever asking.
ARTIM_SECONDS = 10.0

# A-ASSOCIATE-RJ (PS3.8 table 9-21): permanent, by the service user, and why.
_PERMANENT, _SERVICE_USER = 1, 1
_CALLING_NOT_RECOGNISED, _CALLED_NOT_RECOGNISED = 3, 7


class StorageSCP:
    """Listens for associations and hands every C-STORE to ``receive``.

    Every storage SOP class is accepted, unknown and private ones too, in the first transfer syntax that the peer
    proposes for it; the data set is handed on as the bytes that came.

    Args:
        ae_title: ours; an association that calls another is rejected.
        host, port: where to listen; port 0 takes a free one, which ``port`` tells after ``start``.
        receive: called from the thread of the association, by several at once.
        allowed_callers: whether a calling AE title may associate.
        on_reject: told of (calling, called AE title, reason) for every rejected association.
        max_associations: further ones are rejected as transient, local limit exceeded.
        timeout: seconds of silence after which an association is aborted.
    """

    def __init__(
        self,
        ae_title: str,
        host: str,
        port: int,
        receive: Callable[[Incoming], Answer],
        allowed_callers: Callable[[str], bool],
        *,
        on_reject: Callable[[str, str, str], None] = lambda calling, called, reason: None,
        max_associations: int = 50,
        timeout: float = 60.0,
    ) -> None:
        self._ae_title = ae_title
        self._address = (host, port)
        self._receive = receive
        self._allowed_callers = allowed_callers
        self._on_reject = on_reject
        self._ae = application_entity(ae_title, max_pdu=MAX_PDU, timeout=timeout)
        self._ae.acse_timeout = ARTIM_SECONDS
        self._ae.maximum_associations = max_associations
        self._ae.add_supported_context(_VERIFICATION)
        self._server: Any = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._address[1] if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, in threads of its own.

        Raises:
            OSError: the address is in use or not ours.
        """
        self._server = self._ae.start_server(
            self._address,
            block=False,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, send_at_once),
                (evt.EVT_REQUESTED, self._admit),
                (evt.EVT_C_STORE, self._store),
            ],
        )
        log.info("%s listens on %s:%d", self._ae_title, self._address[0], self.port)

    def stop(self, *, grace: float = 10.0) -> None:
        """Stop in this order: no new connections; up to ``grace`` seconds for running associations to end; abort.

        An object whose answer was not sent by then is not acknowledged: its sender sends it again.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        deadline = time.monotonic() + grace
        while (running := _established(server)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for association in running:
            association.abort()
        for association in server.active_associations:
            association.kill()  # a connection that never asked for an association has nothing to be told
        self._address = (self._address[0], int(server.server_address[1]))

    def _admit(self, event: evt.Event) -> None:
        """Reject a peer that does not mean us or may not send; pynetdicom negotiates the rest."""
        request: Any = event.assoc.requestor.primitive
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        if called != self._ae_title:
            self._reject(event, calling, called, _CALLED_NOT_RECOGNISED, "called AE title not recognised")
        elif not self._allowed_callers(calling):
            self._reject(event, calling, called, _CALLING_NOT_RECOGNISED, "calling AE title not recognised")

    def _reject(self, event: evt.Event, calling: str, called: str, diagnostic: int, reason: str) -> None:
        log.warning(
            "association of %r to %r from %s rejected: %s", calling, called, event.assoc.remote["address"], reason
        )
        event.assoc.acse.send_reject(_PERMANENT, _SERVICE_USER, diagnostic)
        self._on_reject(calling, called, reason)
        event.assoc.kill()

    def _store(self, event: evt.Event) -> Dataset:
        request: Any = event.request
        answer = self._receive(
            Incoming(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                dataset=request.DataSet.getvalue(),
                peer=event.assoc.requestor.ae_title.strip(),
            )
        )
        response = Dataset()
        response.Status = answer.status
        if answer.comment:
            response.ErrorComment = answer.comment
        return response


def _established(server: Any) -> list[Any]:
    return [association for association in server.active_associations if association.is_established]
