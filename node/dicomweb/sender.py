"""STOW-RS as its client (PS3.18 section 10.5): files go out as the bytes that they are, many in one request."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.dicomweb.answers import is_of_the_request, is_of_the_server, statuses
from node.dicomweb.server import Answer, Connection, Server
from node.domain.errors import InvalidInstance, PeerDeclines, PeerUnreachable, Unavailable
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.peer import Peer
from node.domain.status import INVALID_SOP_INSTANCE, TRANSFER_SYNTAX_NOT_SUPPORTED
from node.files.transcode import EXPLICIT, as_file
from node.ports import every, idle

# What one request carries at most: instances, and bytes unless one alone has more.
AT_ONCE, _BYTES_AT_ONCE = 100, 64 << 20
_PART = 1 << 18


@dataclass(frozen=True)
class _Outgoing:
    """A file to send; ``index`` is its place in the caller's list. ``encoded`` is sent in its place where given."""

    index: int
    path: Path
    uid: str
    transfer_syntax_uid: str
    size: int
    encoded: bytes | None = None

    def parts(self) -> Iterator[bytes]:
        if self.encoded is not None:
            yield self.encoded
            return
        left = self.size
        with self.path.open("rb") as file:
            while left:
                part = file.read(min(_PART, left))
                if not part:
                    raise OSError(f"{self.path.name} ends early")
                left -= len(part)
                yield part


class StowSender:
    """Implements ``node.ports.Sender`` for peers that are sent to by DICOMweb.

    Args:
        servers: by the peer's name.
    """

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers

    def send(
        self,
        peer: Peer,
        files: Sequence[Path],
        on_status: Callable[[int, int, str], None],
        *,
        wanted: Callable[[int], bool] = every,
        beat: Callable[[], None] = idle,
    ) -> None:
        """Send in order, as many in one request as it holds; ``on_status(index, status, comment)`` after its answer.

        FailureReason and WarningReason are C-STORE statuses. Where the answer is one for all of a request, or there is
        none, its instances are sent one by one, to find the one that it is about. A file that cannot be read is
        reported as 0x0117, one whose transfer syntax is refused is sent uncompressed.

        Args:
            wanted, beat: as in ``node.ports.Sender``.

        Raises:
            PeerUnreachable: no connection, or it broke.
            PeerDeclines: an answer that says nothing of the instances.
        """
        readable: list[_Outgoing] = []
        for index, path in enumerate(files):
            try:
                readable.append(_outgoing(index, path))
            except (OSError, InvalidInstance) as error:
                on_status(index, INVALID_SOP_INSTANCE, f"not sent: {error}")
        if not readable:
            return
        with Connection(self._servers[peer.name], name=peer.name, timeout=peer.timeout_seconds) as connection:
            transaction = _Store(connection, peer, on_status, beat)
            for batch in _batches(readable, wanted):
                transaction.store(batch, wanted)

    def echo(self, peer: Peer) -> None:
        """Ask for one study (QIDO-RS): whatever the server answers, it is there, but for a refusal of who asks.

        Raises:
            PeerUnreachable: no connection, or it broke.
            PeerDeclines: a refusal of who asks, or a server that has not got the time.
        """
        with Connection(self._servers[peer.name], name=peer.name, timeout=peer.timeout_seconds) as connection:
            answer = connection.get("/studies?limit=1")
        if answer.status in (401, 403) or (answer.status >= 500 and answer.status != 501):
            raise _declines(peer, answer)


class _Store:
    """The requests of one call."""

    def __init__(
        self,
        connection: Connection,
        peer: Peer,
        on_status: Callable[[int, int, str], None],
        beat: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._peer = peer
        self._on_status = on_status
        self._beat = beat

    def store(self, batch: Sequence[_Outgoing], wanted: Callable[[int], bool]) -> None:
        """One request, or one for each instance where that told nothing of them."""
        try:
            answer = self._post(batch)
        except PeerUnreachable:
            if len(batch) == 1:
                raise
            answer = None
        if len(batch) > 1 and (answer is None or is_of_the_request(answer)):
            for outgoing in batch:
                if wanted(outgoing.index):
                    self.store([outgoing], wanted)
            return
        assert answer is not None
        if is_of_the_server(answer):
            raise _declines(self._peer, answer)
        said = statuses(answer, [outgoing.uid for outgoing in batch])
        for outgoing in batch:
            status, comment = said[outgoing.uid]
            if status == TRANSFER_SYNTAX_NOT_SUPPORTED and _is_convertible(outgoing):
                status, comment = self._uncompressed(outgoing)
            self._on_status(outgoing.index, status, comment)

    def _uncompressed(self, outgoing: _Outgoing) -> tuple[int, str]:
        try:
            encoded = as_file(outgoing.path, EXPLICIT)
        except Unavailable as error:
            refused = (
                f"the peer refused transfer syntax {outgoing.transfer_syntax_uid}, and it cannot be decoded: {error}"
            )
            return TRANSFER_SYNTAX_NOT_SUPPORTED, refused
        answer = self._post([_Outgoing(outgoing.index, outgoing.path, outgoing.uid, EXPLICIT, len(encoded), encoded)])
        if is_of_the_server(answer):
            raise _declines(self._peer, answer)
        return statuses(answer, [outgoing.uid])[outgoing.uid]

    def _post(self, batch: Sequence[_Outgoing]) -> Answer:
        boundary = uuid.uuid4().hex
        opening = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        closing = f"\r\n--{boundary}--\r\n".encode()
        return self._connection.post(
            "/studies",
            self._body(batch, opening, closing),
            size=sum(len(opening) + outgoing.size for outgoing in batch) + len(closing),
            content_type=f'multipart/related; type="application/dicom"; boundary="{boundary}"',
        )

    def _body(self, batch: Sequence[_Outgoing], opening: bytes, closing: bytes) -> Iterator[bytes]:
        for outgoing in batch:
            yield opening
            for part in outgoing.parts():
                yield part
                self._beat()
        yield closing


def _is_convertible(outgoing: _Outgoing) -> bool:
    return outgoing.encoded is None and outgoing.transfer_syntax_uid != EXPLICIT


def _declines(peer: Peer, answer: Answer) -> PeerDeclines:
    return PeerDeclines(f"{peer.name}: HTTP {answer.status} {answer.reason}", answer.retry_after)


def _outgoing(index: int, path: Path) -> _Outgoing:
    with path.open("rb") as file:
        meta = split(file.read(HEAD_LIMIT))
    return _Outgoing(index, path, meta.sop_instance_uid, meta.transfer_syntax_uid, path.stat().st_size)


def _batches(readable: Sequence[_Outgoing], wanted: Callable[[int], bool]) -> Iterator[list[_Outgoing]]:
    """Cut the list, in order, by size, and before what waits for an answer to what goes before it."""
    batch: list[_Outgoing] = []
    for outgoing in readable:
        if batch and (len(batch) >= AT_ONCE or sum(one.size for one in batch) + outgoing.size > _BYTES_AT_ONCE):
            yield batch
            batch = []
        goes = wanted(outgoing.index)
        if batch and not goes:
            yield batch
            batch = []
            goes = wanted(outgoing.index)
        if goes:
            batch.append(outgoing)
    if batch:
        yield batch
