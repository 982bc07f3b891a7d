"""Storage and Verification SCU (PS3.4 annexes A and B)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context, evt

from node.dicom.stack import application_entity, keep_answers, send_at_once
from node.domain.errors import InvalidInput, InvalidInstance, PeerUnreachable
from node.domain.ids import UID_LENGTH
from node.domain.part10 import HEAD_LIMIT, FileMeta, split
from node.domain.peer import Peer

SOP_CLASS_NOT_SUPPORTED = 0x0122
INVALID_SOP_INSTANCE = 0x0117

_VERIFICATION = "1.2.840.10008.1.1"
_MAX_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255


@dataclass(frozen=True)
class _Outgoing:
    """A file to send; ``index`` is its place in the caller's list."""

    index: int
    path: Path
    meta: FileMeta

    @property
    def context(self) -> tuple[str, str]:
        return self.meta.sop_class_uid, self.meta.transfer_syntax_uid


class StorageSender:
    """Implements ``node.ports.Sender``: sends the data sets of files as the bytes that they are."""

    def __init__(self, ae_title: str) -> None:
        self._ae_title = ae_title

    def send(self, peer: Peer, files: Sequence[Path], on_status: Callable[[int, int, str], None]) -> None:
        """Send in order; ``on_status(index, status, comment)`` after each answer.

        One presentation context is proposed for each pair of SOP class and transfer syntax; only where there are more
        than 128 of them is more than one association needed. A file that cannot be read is reported as 0x0117 (invalid
        SOP instance) without being sent, one whose context the peer refused as 0x0122 (SOP class not supported).

        Raises:
            PeerUnreachable: no association, or it broke; what was answered until then stands.
        """
        readable: list[_Outgoing] = []
        for index, path in enumerate(files):
            try:
                readable.append(_Outgoing(index, path, _meta(path)))
            except (OSError, InvalidInstance) as error:
                on_status(index, INVALID_SOP_INSTANCE, f"not sent: {error}")
        for batch in _batches(readable):
            self._send_batch(peer, batch, on_status)

    def echo(self, peer: Peer) -> None:
        """C-ECHO.

        Raises:
            PeerUnreachable: no association, or another answer than success.
        """
        association = self._associate(peer, [build_context(_VERIFICATION)])
        if association.accepted_contexts:
            status = association.send_c_echo()
            _end(association)
            if "Status" not in status:
                raise PeerUnreachable(f"{_name(peer)} did not answer the C-ECHO within {peer.timeout_seconds:g} s")
            if status.Status != 0:
                raise PeerUnreachable(f"{_name(peer)} answered the C-ECHO with {status.Status:#06x}")
        else:
            raise PeerUnreachable(f"{_name(peer)} does not offer the Verification service")

    def _send_batch(self, peer: Peer, batch: Sequence[_Outgoing], on_status: Callable[[int, int, str], None]) -> None:
        contexts = [build_context(*pair) for pair in dict.fromkeys(outgoing.context for outgoing in batch)]
        association = self._associate(peer, contexts)
        try:
            accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
            for count, outgoing in enumerate(batch):
                if outgoing.context not in accepted:
                    on_status(outgoing.index, SOP_CLASS_NOT_SUPPORTED, "the peer refused SOP class and transfer syntax")
                    continue
                status = Dataset()
                if association.is_established:
                    status = association.send_c_store(outgoing.path, msg_id=count % 0xFFFF + 1)
                if "Status" not in status:
                    raise PeerUnreachable(
                        f"{_name(peer)} gave no answer to {outgoing.meta.sop_instance_uid}: "
                        f"the association broke or {peer.timeout_seconds:g} s passed"
                    )
                on_status(outgoing.index, int(status.Status), str(status.get("ErrorComment") or ""))
        finally:
            _end(association)

    def _associate(self, peer: Peer, contexts: list[Any]) -> Any:
        """An association; one whose contexts were all refused is over already, but tells so."""
        if peer.port is None:
            raise InvalidInput(f"peers.{peer.name}.port", "is not set", "Give the port on which the peer listens")
        opened: list[evt.Event] = []
        ae = application_entity(self._ae_title, max_pdu=peer.max_pdu, timeout=peer.timeout_seconds)
        try:
            association = ae.associate(
                peer.host,
                peer.port,
                contexts=contexts,
                ae_title=peer.ae_title,
                max_pdu=peer.max_pdu,
                evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once), (evt.EVT_CONN_OPEN, opened.append)],
            )
        except OSError as error:
            raise PeerUnreachable(f"{_name(peer)}: {error}") from error
        if association.is_established or association.rejected_contexts:
            keep_answers(association)
            return association
        raise PeerUnreachable(f"{_name(peer)}: {_why(association, peer, connected=bool(opened))}")


def _meta(path: Path) -> FileMeta:
    """Raises ``InvalidInstance`` where a UID is too long to be sent; what else is wrong with it the peer may judge."""
    with path.open("rb") as file:
        meta = split(file.read(HEAD_LIMIT))
    if max(map(len, (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid))) > UID_LENGTH:
        raise InvalidInstance(
            "file meta", f"has a UID of more than {UID_LENGTH} characters", "Give the object a new UID"
        )
    return meta


def _batches(outgoing: Sequence[_Outgoing]) -> Iterator[list[_Outgoing]]:
    """Cut the list, in order, where one association has no room for another presentation context."""
    batch: list[_Outgoing] = []
    contexts: set[tuple[str, str]] = set()
    for one in outgoing:
        if len(contexts | {one.context}) > _MAX_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(one)
        contexts.add(one.context)
    if batch:
        yield batch


def _end(association: Any) -> None:
    if association.is_established:
        association.release()


def _name(peer: Peer) -> str:
    return f"{peer.name} ({peer.ae_title}@{peer.host}:{peer.port})"


def _why(association: Any, peer: Peer, *, connected: bool) -> str:
    """Why there is no association, in words."""
    if association.is_rejected:
        answer = association.acceptor.primitive
        return f"rejected the association: {answer.reason_str} ({answer.result_str})"
    if connected:
        return f"aborted the association, or did not answer within {peer.timeout_seconds:g} s"
    # pynetdicom only logs why it could not connect; the same attempt once more says it.
    try:
        socket.create_connection((peer.host, peer.port or 0), timeout=peer.timeout_seconds).close()
    except OSError as error:
        return f"no connection: {error.strerror or error}"
    return "no connection at first; the port is open now"
