"""Storage and Verification SCU (PS3.4 annexes A and B)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import build_context

from node.dicom.associate import associate, end, name_of
from node.dicom.tls import Certificates
from node.domain.errors import InvalidInstance, PeerUnreachable
from node.domain.ids import UID_LENGTH
from node.domain.part10 import HEAD_LIMIT, FileMeta, split
from node.domain.peer import Peer
from node.ports import every, idle

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
    """Implements ``node.ports.Sender``: sends the data sets of files as the bytes that they are.

    Args:
        ae_title: ours, the calling one.
        tls: for peers that are called by TLS.
    """

    def __init__(self, ae_title: str, tls: Certificates | None = None) -> None:
        self._ae_title = ae_title
        self._tls = tls

    def send(
        self,
        peer: Peer,
        files: Sequence[Path],
        on_status: Callable[[int, int, str], None],
        *,
        wanted: Callable[[int], bool] = every,
        beat: Callable[[], None] = idle,
    ) -> None:
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
            self._send_batch(peer, batch, on_status, wanted)

    def echo(self, peer: Peer) -> None:
        """C-ECHO.

        Raises:
            PeerUnreachable: no association, or another answer than success.
        """
        association = associate(peer, [build_context(_VERIFICATION)], ae_title=self._ae_title, tls=self._tls)
        if association.accepted_contexts:
            status = association.send_c_echo()
            end(association)
            if "Status" not in status:
                raise PeerUnreachable(f"{name_of(peer)} did not answer the C-ECHO within {peer.timeout_seconds:g} s")
            if status.Status != 0:
                raise PeerUnreachable(f"{name_of(peer)} answered the C-ECHO with {status.Status:#06x}")
        else:
            raise PeerUnreachable(f"{name_of(peer)} does not offer the Verification service")

    def _send_batch(
        self,
        peer: Peer,
        batch: Sequence[_Outgoing],
        on_status: Callable[[int, int, str], None],
        wanted: Callable[[int], bool],
    ) -> None:
        contexts = [build_context(*pair) for pair in dict.fromkeys(outgoing.context for outgoing in batch)]
        association = associate(peer, contexts, ae_title=self._ae_title, tls=self._tls)
        try:
            accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
            for count, outgoing in enumerate(batch):
                if outgoing.context not in accepted:
                    on_status(outgoing.index, SOP_CLASS_NOT_SUPPORTED, "the peer refused SOP class and transfer syntax")
                    continue
                if not wanted(outgoing.index):
                    continue
                status = Dataset()
                if association.is_established:
                    status = association.send_c_store(outgoing.path, msg_id=count % 0xFFFF + 1)
                if "Status" not in status:
                    raise PeerUnreachable(
                        f"{name_of(peer)} gave no answer to {outgoing.meta.sop_instance_uid}: "
                        f"the association broke or {peer.timeout_seconds:g} s passed"
                    )
                on_status(outgoing.index, int(status.Status), str(status.get("ErrorComment") or ""))
        finally:
            end(association)


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
