"""pynetdicom as the node uses it: the options that it keeps for the whole process, and our application entity."""

from __future__ import annotations

import socket
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.transport import AssociationSocket

from node.domain.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# Every storage SOP class, known, private or of a later edition, in the first transfer syntax that the peer proposes.
_config.UNRESTRICTED_STORAGE_SERVICE = True
# Files are sent as the bytes that they are, not decoded and encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True
# pynetdicom describes every PDU for its log, wanted or not; that costs more than the transfer.
_config.LOG_HANDLER_LEVEL = "none"


class _Connection(AssociationSocket):
    """Closes what could not connect too, which pynetdicom leaves to the garbage collector."""

    def _shutdown_socket(self) -> None:
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()

    def recv(self, nr_bytes: int) -> bytearray:
        # A peer that sends by C-GET and waits to fill its segments (Orthanc does) waits for our acknowledgement of the
        # one before; the kernel forgets the option, so it is set anew each time. 60 slices took 0.2 s in place of 2.8.
        if self.socket is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        received: bytearray = super().recv(nr_bytes)
        return received


class _ApplicationEntity(AE):
    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> AssociationSocket:
        connection = _Connection(assoc, address=address)
        connection.tls_args = tls_args
        return connection


def application_entity(ae_title: str, *, max_pdu: int, timeout: float) -> Any:
    """An AE that names this implementation. ``timeout`` (s) is for connecting, negotiating and every answer."""
    ae = _ApplicationEntity(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = max_pdu
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout
    return ae


def send_at_once(event: evt.Event) -> None:
    """For ``EVT_CONN_OPEN``: a command and its answer are small, and waiting to fill a segment costs 40 ms each."""
    association: Any = event.assoc
    association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def keep_answers(association: Any) -> None:
    """Give an answer that pynetdicom's reactor thread took by mistake back to the thread that waits for it.

    As requestor, pynetdicom pauses its reactor before it sends a request, but takes the reactor's last pause for the
    new one now and then; the reactor then takes the answer and drops it, and the request times out.
    """
    serve = association._serve_request

    def serve_or_give_back(message: Any, context_id: int) -> None:
        if message.is_valid_request:
            serve(message, context_id)
        else:
            association.dimse.msg_queue.put((context_id, message))

    association._serve_request = serve_or_give_back
