"""Store transactions of DICOMweb (PS3.18 section 10.5): DICOM files from one peer, each into the receive service.

A transaction is to STOW-RS what an association is to C-STORE: it belongs to one peer, the studies that it stored into
count as being sent while it is open, and its proper end is evidence that the sender had nothing more to say.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from typing import Protocol

from node.domain.errors import Busy, Interrupted, InvalidInstance, StorageFull
from node.domain.instance import Answer, StoreRequest
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.peer import Peer

log = logging.getLogger(__name__)

SUCCESS = 0x0000


class ObjectWriter(Protocol):
    """An object on its way in, as ``node.services.receive.Reception``."""

    def write(self, fragment: memoryview) -> None: ...
    def finish(self) -> Answer: ...
    def abandon(self) -> None: ...


@dataclass(frozen=True)
class Stored:
    """The answer to one file; its UIDs are those of its file meta, None where it has none."""

    answer: Answer
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None

    @property
    def success(self) -> bool:
        """Whether the object is durable here."""
        return self.answer.status == SUCCESS


class Stow:
    """Opens store transactions. Called by many requests at once.

    Args:
        begin: opens an object; with a fault it is kept aside as the bytes that come (``Receive.begin``).
        on_released: told of (AE title of the peer, StudyInstanceUIDs acknowledged) when a transaction ended properly.
        has_room: whether free space is above the watermark.
        max_open: transactions at once; a peer's ``max_associations`` holds for its own, too.
    """

    def __init__(
        self,
        begin: Callable[[StoreRequest, InvalidInstance | None], ObjectWriter],
        on_released: Callable[[str, frozenset[str]], None],
        has_room: Callable[[], bool],
        *,
        max_open: int,
    ) -> None:
        self._begin = begin
        self._on_released = on_released
        self._has_room = has_room
        self._max_open = max_open
        self._open: set[StoreTransaction] = set()
        self._changed = Condition()
        self._stopping = False
        self._stopped = False

    def open(self, peer: Peer, study_uid: str | None = None) -> StoreTransaction:
        """Begin a transaction of a peer; whoever opens it closes it.

        Args:
            study_uid: the study that every object has to belong to, where the request names one.

        Raises:
            StorageFull: below the watermark.
            Busy: the node or the peer has as many open as it may.
            Interrupted: the node is being stopped.
        """
        if not self._has_room():
            raise StorageFull("free space is below the watermark")
        transaction = StoreTransaction(self, peer, study_uid)
        with self._changed:
            if self._stopping:
                raise Interrupted("the node is being stopped")
            of_peer = sum(other.peer == peer for other in self._open)
            if len(self._open) >= self._max_open or of_peer >= (peer.max_associations or self._max_open):
                raise Busy(f"{len(self._open)} store transactions are open, {of_peer} of them by {peer.name}")
            self._open.add(transaction)
        return transaction

    def being_sent(self, study_uid: str) -> bool:
        """Whether a transaction is open in which instances of a study were acknowledged: more of it may follow."""
        with self._changed:
            return any(study_uid in transaction.studies for transaction in self._open)

    def stop(self, *, grace: float = 10.0) -> None:
        """Open no more, give those that are open up to ``grace`` seconds, then take nothing more from them either."""
        deadline = time.monotonic() + grace
        with self._changed:
            self._stopping = True
            self._changed.wait_for(lambda: not self._open, deadline - time.monotonic())
            self._stopped = True


class StoreTransaction:
    """The files of one request, made by ``Stow.open``: ``begin``, ``write`` and ``end`` for each, at last ``close``.

    A file's preamble and file meta information stand for the C-STORE command; what follows goes on to the receive
    service as it comes: no more than ``HEAD_LIMIT`` and one fragment is in memory. For one thread at a time.
    """

    def __init__(self, stow: Stow, peer: Peer, study_uid: str | None) -> None:
        self.peer = peer
        self.answers: list[Stored] = []
        self.studies: frozenset[str] = frozenset()
        self._stow = stow
        self._study_uid = study_uid
        self._start = bytearray()
        self._meta: tuple[str, str] | None = None
        self._writer: ObjectWriter | None = None

    def begin(self) -> None:
        """A file begins."""
        self._start.clear()
        self._meta = None

    def write(self, fragment: memoryview) -> None:
        """The next bytes of the file.

        Raises:
            Interrupted: the node has stopped.
        """
        if self._stow._stopped:
            raise Interrupted("the node is being stopped")
        if self._writer is not None:
            self._writer.write(fragment)
            return
        self._start += fragment
        if len(self._start) >= HEAD_LIMIT:
            self._writer = self._open()

    def end(self) -> None:
        """The file is whole: it is answered, after its bytes are durable.

        Raises:
            Interrupted: the node has stopped.
        """
        if self._stow._stopped:
            raise Interrupted("the node is being stopped")
        writer = self._writer or self._open()
        self._writer = None
        answer = writer.finish()
        self.answers.append(Stored(answer, *(self._meta or ())))
        if answer.study_uid is not None:
            self.studies |= {answer.study_uid}

    def release(self) -> None:
        """The request came to its proper end."""
        self._stow._on_released(self.peer.ae_title, self.studies)

    def close(self) -> None:
        """Nothing more will come; of a file that has not ended nothing stays."""
        if self._writer is not None:
            self._writer.abandon()
        with self._stow._changed:
            self._stow._open.discard(self)
            self._stow._changed.notify_all()
        stored = sum(answer.success for answer in self.answers)
        log.info("%s stored %d instances by STOW-RS, %d failed", self.peer.name, stored, len(self.answers) - stored)

    def _open(self) -> ObjectWriter:
        """Read the file meta, and pass on what is behind it; all of it, where there is no file meta."""
        start, peer = bytes(self._start), self.peer.ae_title
        self._start.clear()
        try:
            meta = split(start)
        except InvalidInstance as fault:
            writer = self._stow._begin(StoreRequest("", "", "", peer), fault)
            writer.write(memoryview(start))
            return writer
        self._meta = meta.sop_class_uid, meta.sop_instance_uid
        writer = self._stow._begin(StoreRequest(*self._meta, meta.transfer_syntax_uid, peer, self._study_uid), None)
        writer.write(memoryview(start)[meta.offset :])
        return writer
