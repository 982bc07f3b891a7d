"""Storage and Verification SCU (PS3.4 annexes A and B)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from node.dicom.associate import name_of
from node.dicom.requestor import Requestor, StoreRequest
from node.dicom.tls import Certificates
from node.domain.errors import InvalidInstance, PeerUnreachable, Rejected, Unavailable
from node.domain.ids import UID_LENGTH
from node.domain.part10 import HEAD_LIMIT, FileMeta, split
from node.domain.peer import Peer
from node.domain.status import INVALID_SOP_INSTANCE, SOP_CLASS_NOT_SUPPORTED
from node.files.transcode import FALLBACKS, transcoded
from node.ports import every, idle

log = logging.getLogger(__name__)

_VERIFICATION = "1.2.840.10008.1.1"
_READ_AHEAD = 4 << 20  # the most bytes of an object that is read before it is its turn
_MAX_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255


@dataclass(frozen=True)
class _Outgoing:
    """A file to send; ``index`` is its place in the caller's list, ``size`` is that of its data set in bytes."""

    index: int
    path: Path
    meta: FileMeta
    size: int

    @property
    def uids(self) -> tuple[str, str]:
        return self.meta.sop_class_uid, self.meta.sop_instance_uid


class StorageSender:
    """Implements ``node.ports.Sender``: sends the data sets of files as the bytes that they are, where the peer takes
    them so, else decoded.

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

        For each SOP class every stored transfer syntax is proposed in a presentation context of its own, and beside
        them one of the uncompressed ones; only where that makes more than 128 is more than one association needed. A
        file that cannot be read is reported as 0x0117 (invalid SOP instance) without being sent, one that the peer
        takes in no form as 0x0122 (SOP class not supported).

        Args:
            wanted, beat: as in ``node.ports.Sender``.

        Raises:
            PeerUnreachable: no association, or it broke; what was answered until then stands.
        """
        readable: list[_Outgoing] = []
        for index, path in enumerate(files):
            try:
                readable.append(_outgoing(index, path))
            except (OSError, InvalidInstance) as error:
                on_status(index, INVALID_SOP_INSTANCE, f"not sent: {error}")
        for batch in _batches(readable):
            with Requestor(peer, _contexts(batch), ae_title=self._ae_title, tls=self._tls) as association:
                transfer = _Transfer(association, peer, on_status, wanted, beat)
                for outgoing, following in zip_longest(batch, batch[1:]):
                    transfer.send(outgoing, following)

    def echo(self, peer: Peer) -> None:
        """C-ECHO.

        Raises:
            PeerUnreachable: no association, or no answer.
            Rejected: it is there, and does not offer the service, or answers something else than success.
        """
        with Requestor(peer, [(_VERIFICATION, FALLBACKS)], ae_title=self._ae_title, tls=self._tls) as association:
            if not association.accepted:
                raise Rejected(f"{name_of(peer)} does not offer the Verification service")
            status = association.echo(next(iter(association.accepted.values())), _VERIFICATION)
        if status != 0:
            raise Rejected(f"{name_of(peer)} answered the C-ECHO with {status:#06x}")


class _Transfer:
    """The objects of one association, one after the other; the next one is read while the peer keeps the last."""

    def __init__(
        self,
        association: Requestor,
        peer: Peer,
        on_status: Callable[[int, int, str], None],
        wanted: Callable[[int], bool],
        beat: Callable[[], None],
    ) -> None:
        self._association = association
        self._peer = peer
        self._on_status = on_status
        self._wanted = wanted
        self._beat = beat
        self._ahead: tuple[int, StoreRequest] | None = None

    def send(self, outgoing: _Outgoing, following: _Outgoing | None) -> None:
        """Send one; ``following`` is the one after it."""
        index, stored = outgoing.index, outgoing.meta.transfer_syntax_uid
        taken = _taken(self._association.accepted, outgoing)
        if taken is None:
            self._on_status(index, SOP_CLASS_NOT_SUPPORTED, "the peer refused SOP class and transfer syntax")
        elif self._wanted(index):
            try:
                with ExitStack() as stack:
                    request = self._read(index) or self._request(stack, outgoing, taken)
                    status = self._association.store(request, self._beat, lambda: self._read_ahead(following))
            except Unavailable as error:
                said = f"the peer refused transfer syntax {stored}, and it cannot be decoded: {error}"
                self._on_status(index, SOP_CLASS_NOT_SUPPORTED, said)
            except OSError as error:
                self._on_status(index, INVALID_SOP_INSTANCE, f"not sent: {error}")
                name = name_of(self._peer)
                raise PeerUnreachable(f"{name}: given up, as {outgoing.path.name} cannot be read") from error
            else:
                self._on_status(index, *status)

    def _request(self, stack: ExitStack, outgoing: _Outgoing, taken: str) -> StoreRequest:
        content, size = stack.enter_context(_content(outgoing, taken))
        context_id = self._association.accepted[outgoing.meta.sop_class_uid, taken]
        return self._association.request(context_id, outgoing.uids, content, size)

    def _read(self, index: int) -> StoreRequest | None:
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] == index else None

    def _read_ahead(self, following: _Outgoing | None) -> None:
        if following is None or following.size > _READ_AHEAD:
            return
        taken = _taken(self._association.accepted, following)
        if taken != following.meta.transfer_syntax_uid:
            return
        with suppress(OSError), ExitStack() as stack:  # it is told when it is its turn
            request = self._request(stack, following, taken)
            self._ahead = following.index, replace(request, parts=list(request.parts))


def _taken(accepted: Mapping[tuple[str, str], int], outgoing: _Outgoing) -> str | None:
    """The transfer syntax to send it in: its own if possible."""
    candidates = (outgoing.meta.transfer_syntax_uid, *FALLBACKS)
    return next((syntax for syntax in candidates if (outgoing.meta.sop_class_uid, syntax) in accepted), None)


@contextmanager
def _content(outgoing: _Outgoing, transfer_syntax_uid: str) -> Iterator[tuple[BinaryIO, int]]:
    """The data set and its size in bytes."""
    if transfer_syntax_uid == outgoing.meta.transfer_syntax_uid:
        with outgoing.path.open("rb") as file:
            file.seek(outgoing.meta.offset)
            yield file, outgoing.size
    else:
        log.debug("%s is sent in %s", outgoing.meta.sop_instance_uid, transfer_syntax_uid)
        decoded = transcoded(outgoing.path, transfer_syntax_uid)
        yield decoded, decoded.getbuffer().nbytes


def _outgoing(index: int, path: Path) -> _Outgoing:
    """Raises ``InvalidInstance`` where a UID is too long to be sent; what else is wrong with it the peer may judge."""
    with path.open("rb") as file:
        meta = split(file.read(HEAD_LIMIT))
    if max(map(len, (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid))) > UID_LENGTH:
        raise InvalidInstance(
            "file meta", f"has a UID of more than {UID_LENGTH} characters", "Give the object a new UID"
        )
    return _Outgoing(index, path, meta, path.stat().st_size - meta.offset)


def _contexts(batch: Sequence[_Outgoing]) -> list[tuple[str, tuple[str, ...]]]:
    """For each SOP class its transfer syntaxes, each alone, and those that every peer takes."""
    stored: dict[str, dict[str, None]] = {}
    for outgoing in batch:
        stored.setdefault(outgoing.meta.sop_class_uid, {})[outgoing.meta.transfer_syntax_uid] = None
    proposed: list[tuple[str, tuple[str, ...]]] = []
    for abstract, syntaxes in stored.items():
        proposed += [(abstract, (syntax,)) for syntax in syntaxes]
        others = tuple(syntax for syntax in FALLBACKS if syntax not in syntaxes)
        if others:
            proposed.append((abstract, others))
    return proposed


def _batches(outgoing: Sequence[_Outgoing]) -> Iterator[list[_Outgoing]]:
    """Cut the list, in order, where one association has no room for another presentation context."""
    batch: list[_Outgoing] = []
    pairs: set[tuple[str, str]] = set()
    for one in outgoing:
        pair = one.meta.sop_class_uid, one.meta.transfer_syntax_uid
        if pair not in pairs and len(_contexts([*batch, one])) > _MAX_CONTEXTS:
            yield batch
            batch, pairs = [], set()
        batch.append(one)
        pairs.add(pair)
    if batch:
        yield batch
