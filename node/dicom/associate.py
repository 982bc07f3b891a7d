"""Asking a peer for an association (PS3.8 section 7.1), and saying in words why there is none."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

from pynetdicom import evt
from pynetdicom.pdu import A_ASSOCIATE_RJ

from node.dicom.stack import application_entity, keep_answers, send_at_once
from node.dicom.tls import Certificates, certificate_subject
from node.domain.errors import InvalidInput, PeerUnreachable
from node.domain.peer import Peer


def associate(
    peer: Peer,
    contexts: Sequence[Any],
    *,
    ae_title: str,
    tls: Certificates | None = None,
    roles: Sequence[Any] = (),
    handlers: Sequence[tuple[Any, Any]] = (),
) -> Any:
    """An association with a peer; one whose contexts were all refused is over already, but tells so.

    Args:
        contexts: the presentation contexts to propose, at most 128.
        ae_title: ours, the calling one.
        tls: ours; a peer with ``tls`` is not called without them. Its certificate has to be issued for its host, or
            for one of its ``certificate_subjects`` where it has any.
        roles: SCP/SCU role selections (PS3.7 annex D.3.3.4).
        handlers: further pynetdicom event handlers.

    Raises:
        InvalidInput: the peer has no port, or wants TLS and there are no certificates.
        PeerUnreachable: no connection, a rejection, an abort, another peer's certificate, or no answer in time.
    """
    context = context_for(peer, tls)
    opened: list[evt.Event] = []
    rejections: list[A_ASSOCIATE_RJ] = []

    def heard(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu)

    ae = application_entity(ae_title, max_pdu=peer.max_pdu, timeout=peer.timeout_seconds)
    try:
        association = ae.associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            max_pdu=peer.max_pdu,
            ext_neg=list(roles),
            tls_args=(context, peer.host) if context is not None else None,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, send_at_once),
                (evt.EVT_CONN_OPEN, opened.append),
                (evt.EVT_PDU_RECV, heard),
                *handlers,
            ],
        )
    except OSError as error:
        raise PeerUnreachable(f"{name_of(peer)}: {error}") from error
    if association.is_established:
        try:
            check_certificate(association.dul.socket.socket, peer)
        except PeerUnreachable:
            association.abort()
            raise
    if association.is_established or association.rejected_contexts:
        keep_answers(association)
        return association
    if rejections:
        # Not from its state: an answer quicker than its own threads looks to pynetdicom like a lost connection.
        answer = rejections[0].to_primitive()
        raise PeerUnreachable(f"{name_of(peer)}: rejected the association: {answer.reason_str} ({answer.result_str})")
    raise PeerUnreachable(f"{name_of(peer)}: {_why(peer, context, connected=bool(opened))}")


def end(association: Any) -> None:
    """Release what is still established."""
    if association.is_established:
        association.release()


def name_of(peer: Peer) -> str:
    """A peer as errors name it."""
    return f"{peer.name} ({peer.ae_title}@{peer.host}:{peer.port})"


def check_certificate(connection: socket.socket, peer: Peer) -> None:
    """Before anything but AE titles was sent: is this the peer that we mean?

    Raises:
        PeerUnreachable: the certificate is another's.
    """
    if not peer.certificate_subjects or not isinstance(connection, ssl.SSLSocket):
        return
    subject = certificate_subject(connection)
    if subject not in peer.certificate_subjects:
        raise PeerUnreachable(
            f"{name_of(peer)}: its certificate is of {subject!r}, which peers.{peer.name}.certificate_subjects lacks"
        )


def context_for(peer: Peer, tls: Certificates | None) -> ssl.SSLContext | None:
    """What a peer is called with; None without TLS.

    Raises:
        InvalidInput: the peer has no port, or wants TLS and there are no certificates.
    """
    if peer.port is None:
        raise InvalidInput(f"peers.{peer.name}.port", "is not set", "Give the port on which the peer listens")
    if peer.tls and tls is None:
        raise InvalidInput(f"peers.{peer.name}.tls", "is true without certificates", "Set tls.cert, tls.key and tls.ca")
    return tls.client(check_host=not peer.certificate_subjects) if tls is not None and peer.tls else None


def _why(peer: Peer, context: ssl.SSLContext | None, *, connected: bool) -> str:
    """Why there is no association and no rejection, in words."""
    if connected:
        # By TLS 1.3 a client is connected before the server has looked at its certificate.
        refused = "refused our certificate, " if context is not None else ""
        return f"{refused}aborted the association, or did not answer within {peer.timeout_seconds:g} s"
    # pynetdicom only logs why it could not connect; the same attempt once more says it.
    try:
        with socket.create_connection((peer.host, peer.port or 0), timeout=peer.timeout_seconds) as connection:
            if context is not None:
                context.wrap_socket(connection, server_hostname=peer.host).close()
    except OSError as error:
        return f"no connection: {error.strerror or error}"
    return "no connection at first; the port is open now"
