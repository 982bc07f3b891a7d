"""Receive: an object off the wire becomes a durable file, and only then an answer.

What is answered to whom, and where the object lies afterwards, is a table in ``docs/receiving.md``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from node.domain.errors import InvalidInput, InvalidInstance, StorageFull
from node.domain.ids import checked_uid
from node.domain.instance import Answer, Aside, AsideReason, Incoming, Instance, Origin, StoreRequest
from node.domain.part10 import HEAD_LIMIT, head, split
from node.ports import Clock, Draft, InstanceFiles
from node.services.correct import Written, changed_identity
from node.services.identify import Identity, identify

log = logging.getLogger(__name__)

SUCCESS, PROCESSING_FAILURE, OUT_OF_RESOURCES = 0x0000, 0x0110, 0xA700

_COMMENT_LENGTH = 64  # ErrorComment (0000,0902) is LO
_FOREIGN = 1024


@dataclass(frozen=True)
class _Arrived:
    """An object whose data set is whole; ``digest`` as in ``Instance``, ``fault`` as in ``Receive.begin``."""

    request: StoreRequest
    draft: Draft
    digest: str
    fault: InvalidInstance | None


class Receive:
    """Keeps what arrives. Called by many associations at once.

    Args:
        files: where objects are kept.
        lookup: the row of a SOPInstanceUID, None where there is none (yet: rows are written in batches). Asked only for
            what is here already.
        is_result_series: whether a SeriesInstanceUID is one of this node's own results.
        corrected: the latest correction of a SOPInstanceUID, None where there is none (yet). Asked as ``lookup`` is.
        on_kept: told of every object kept or kept aside, after it is durable and before it is answered. The same
            object may be told of more than once (sent twice).
        clock: the time of arrival.
        on_answered: told of (calling AE title, answer, bytes of the data set) for every object.
        max_bytes: of a data set; a larger object is refused.
    """

    def __init__(
        self,
        files: InstanceFiles,
        lookup: Callable[[str], Instance | None],
        is_result_series: Callable[[str], bool],
        on_kept: Callable[[Instance | Aside], None],
        clock: Clock,
        *,
        corrected: Callable[[str], Aside | None] = lambda sop_instance_uid: None,
        on_answered: Callable[[str, Answer, int], None] = lambda peer, answer, size: None,
        max_bytes: int = 1 << 32,
    ) -> None:
        self._files = files
        self._lookup = lookup
        self._is_result_series = is_result_series
        self._corrected = corrected
        self._on_kept = on_kept
        self._clock = clock
        self._on_answered = on_answered
        self._max_bytes = max_bytes
        self._foreign: set[str] = set()

    def begin(self, request: StoreRequest, fault: InvalidInstance | None = None) -> Reception:
        """Begin an object whose data set will come in pieces.

        Args:
            fault: why it cannot become an instance, where that is known already: the bytes that come are kept aside
                as they are.
        """
        return Reception(self, request, fault)

    def store(self, incoming: Incoming) -> Answer:
        """Keep an object that is in memory."""
        reception = self.begin(incoming.request)
        reception.write(memoryview(incoming.dataset))
        return reception.finish()

    def _keep(self, arrived: _Arrived) -> Answer:
        """Keep it unless it is kept already.

        A conflict (same SOPInstanceUID, other bytes) is answered with success: the bytes are kept, and flagged. A
        failure status would make the sender try again for ever, and it would still not change what lies here; no
        warning status fits either, as nothing was coerced or discarded.

        The file system alone says whether an instance is known: of two files of one name one wins. No row is looked up
        for it, as rows come later, and other processes receive too; one SOPInstanceUID under two series is a conflict
        that is found when its row is written (``node.services.assemble``).
        """
        try:
            if arrived.fault is not None:
                raise arrived.fault
            identity = identify(arrived.request, arrived.draft.dataset)
        except InvalidInstance as error:
            self._keep_aside(arrived, AsideReason.INVALID, error)
            return Answer(error.status, comment_of(error))
        if self._is_ours(identity.series_uid):
            return self._keep_returned(arrived, identity)
        try:
            path = arrived.draft.keep(
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                sop_instance_uid=identity.sop_instance_uid,
            )
        except FileExistsError:
            return self._keep_beside(arrived, identity)
        self._on_kept(
            Instance(
                sop_instance_uid=identity.sop_instance_uid,
                sop_class_uid=identity.sop_class_uid,
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                transfer_syntax_uid=arrived.request.transfer_syntax_uid,
                digest=arrived.digest,
                size=arrived.draft.size,
                path=path,
                origin=Origin.RECEIVED,
                at=self._clock.now(),
                peer=arrived.request.peer,
            )
        )
        return Answer(SUCCESS, study_uid=identity.study_uid)

    def _keep_returned(self, arrived: _Arrived, identity: Identity) -> Answer:
        known = self._lookup(identity.sop_instance_uid)
        if known is None or known.digest != arrived.digest:
            self._keep_aside(arrived, *_returned(), identity)
        return Answer(SUCCESS)

    def _keep_beside(self, arrived: _Arrived, identity: Identity) -> Answer:
        """A file of this name is there."""
        path = self._files.find(identity.study_uid, identity.series_uid, identity.sop_instance_uid)
        if path is None:
            raise FileNotFoundError(f"{identity.sop_instance_uid} was removed while it arrived again")
        kept = self._lookup(identity.sop_instance_uid)
        if kept is None or kept.path != path:
            # Its row is still to come, or nobody could be told of it: then it is told of now.
            kept = read_kept(self._files, path)
            self._on_kept(kept)
        believed = self._corrected(identity.sop_instance_uid)
        if arrived.digest not in (kept.digest, believed and believed.digest):
            self._keep_aside(arrived, *self._judged(arrived, kept, believed), identity)
        elif believed is not None and arrived.digest == kept.digest and believed.peer == arrived.request.peer:
            self._keep_aside(arrived, *_correction(()), identity)  # who corrected it takes that back
        return Answer(SUCCESS, study_uid=kept.study_uid)

    def _judged(self, arrived: _Arrived, kept: Instance, believed: Aside | None) -> tuple[AsideReason, InvalidInput]:
        """Other bytes than those that are kept, and than those that are believed."""
        changed = self._changed(arrived, kept.path)
        if believed is None:
            return _correction(changed) if changed else _conflict()
        if changed is None or self._changed(arrived, believed.path) == ():
            return _conflict()  # another image; or what is believed, written another way
        if not changed and believed.peer != arrived.request.peer:
            return _conflict()  # what came first, written another way by who knows of no correction
        return _correction(changed)

    def _changed(self, arrived: _Arrived, path: str) -> tuple[str, ...] | None:
        came = Written(arrived.draft.dataset, arrived.request.transfer_syntax_uid)
        with self._files.absolute(path).open("rb") as file:
            syntax = split(file.read(HEAD_LIMIT)).transfer_syntax_uid
        with self._files.dataset(path) as dataset:
            return changed_identity(Written(dataset, syntax), came)

    def _is_ours(self, series_uid: str) -> bool:
        """A series that is not ours never becomes it: its UID would have to be one that a job of ours derives."""
        if series_uid in self._foreign:
            return False
        if self._is_result_series(series_uid):
            return True
        if len(self._foreign) >= _FOREIGN:
            self._foreign.clear()
        self._foreign.add(series_uid)
        return False

    def _keep_aside(
        self, arrived: _Arrived, reason: AsideReason, why: InvalidInput, identity: Identity | None = None
    ) -> None:
        now = self._clock.now()
        peer = arrived.request.peer
        uid = identity.sop_instance_uid if identity else _valid(arrived.request.sop_instance_uid)
        aside = Aside(
            reason=reason,
            detail=f"{why.field}: {why.problem}",
            path="",
            at=now,
            peer=peer,
            sop_instance_uid=uid,
            study_uid=identity.study_uid if identity else None,
            digest=arrived.digest,
        )
        path = arrived.draft.keep_aside(
            folder=f"{reason.value}/{now.date().isoformat()}",
            name=_name(aside),
            note=_note(aside, why),
        )
        level = logging.INFO if reason is AsideReason.CORRECTION else logging.WARNING
        log.log(level, "%s from %s kept aside (%s): %s", uid or "an object", peer, reason.value, why.field)
        self._on_kept(replace(aside, path=path))


class Reception:
    """One object on its way in, made by ``Receive.begin``. Raises nothing: what goes wrong is in its answer.

    The data set goes to disk as it comes and is never held in memory. For one thread.
    """

    def __init__(self, receive: Receive, request: StoreRequest, fault: InvalidInstance | None) -> None:
        self._receive = receive
        self._request = request
        self._fault = fault
        self._digest = hashlib.sha256()
        self._size = 0
        self._draft: Draft | None = None
        self._failure = self._guarded(self._open)

    def write(self, fragment: memoryview) -> None:
        """Append to the data set. After a failure, what comes is thrown away: the sender cannot be stopped before."""
        self._size += len(fragment)
        if self._failure is None:
            self._failure = self._guarded(lambda: self._append(fragment))

    def finish(self) -> Answer:
        """The data set is whole: the answer is given after its bytes are durable, wherever they lie then."""
        answer = self._failure or self._guarded(self._close) or Answer(PROCESSING_FAILURE)
        self.abandon()
        self._receive._on_answered(self._request.peer, answer, self._size)
        return answer

    def abandon(self) -> None:
        """The rest will not come: leave nothing."""
        if self._draft is not None:
            self._draft.discard()

    def _open(self) -> None:
        self._draft = self._receive._files.draft(b"" if self._fault else head(self._request))

    def _append(self, fragment: memoryview) -> Answer | None:
        assert self._draft is not None
        limit = self._receive._max_bytes
        if self._size > limit:
            log.error(
                "%r from %s refused: more than %d bytes", self._request.sop_instance_uid, self._request.peer, limit
            )
            self.abandon()
            return Answer(OUT_OF_RESOURCES, f"The object is larger than {limit >> 20} MiB")
        self._digest.update(fragment)
        self._draft.write(fragment)
        return None

    def _close(self) -> Answer:
        assert self._draft is not None
        return self._receive._keep(_Arrived(self._request, self._draft, self._digest.hexdigest(), self._fault))

    def _guarded(self, step: Callable[[], Answer | None]) -> Answer | None:
        """The answer of a step that fails. The edge: the association goes on, whatever one object does."""
        uid, peer = self._request.sop_instance_uid, self._request.peer
        try:
            return step()
        except StorageFull as error:
            log.error("%r from %s refused: %s", uid, peer, error)
            answer = Answer(OUT_OF_RESOURCES, "Out of disk space: nothing was kept, send again later", retry=True)
        except Exception:
            log.exception("%r from %s could not be kept", uid, peer)
            answer = Answer(PROCESSING_FAILURE, "The node failed to keep the object: see its log", retry=True)
        self.abandon()
        return answer


def read_kept(files: InstanceFiles, path: str) -> Instance:
    """Rebuild the row of a kept object from its file: arrival is the file's time, the peer its file meta's source.

    Raises:
        InvalidInstance: the file is no whole DICOM file.
        OSError: it cannot be read.
    """
    file = files.absolute(path)
    with file.open("rb") as opened:
        meta = split(opened.read(HEAD_LIMIT))
    peer = meta.source_ae_title or ""
    with files.dataset(path) as dataset:
        identity = identify(
            StoreRequest(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, peer), dataset
        )
        size = meta.offset + len(dataset)
    return Instance(
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        study_uid=identity.study_uid,
        series_uid=identity.series_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        digest=files.digest(path),
        size=size,
        path=path,
        origin=Origin.RECEIVED,
        at=datetime.fromtimestamp(file.stat().st_mtime, UTC),
        peer=meta.source_ae_title,
    )


def read_aside(files: InstanceFiles, path: str) -> Aside:
    """Rebuild the row of an object aside from its note.

    Raises:
        InvalidInput: the note is not one that the node wrote.
        OSError: it cannot be read.
    """
    note_path = PurePosixPath(path).with_suffix(".json")
    try:
        note = json.loads(files.absolute(str(note_path)).read_text(encoding="utf-8"))
        return Aside(
            reason=AsideReason(note["reason"]),
            detail=note["why"],
            path=path,
            at=datetime.fromisoformat(note["at"]),
            peer=note["peer"],
            sop_instance_uid=note["sop_instance_uid"],
            study_uid=note["study_uid"],
            digest=note["digest"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            str(note_path), f"is no note of an object aside ({error})", "Restore it or remove it"
        ) from error


def comment_of(error: InvalidInput) -> str:
    """An ErrorComment: at most 64 characters of the default repertoire, no backslash (it would separate values)."""
    text = f"{error.field}: {error.problem}".encode("ascii", "replace").decode().replace("\\", "/")
    return "".join(c for c in text if c.isprintable())[:_COMMENT_LENGTH]


def _correction(changed: tuple[str, ...]) -> tuple[AsideReason, InvalidInput]:
    if not changed:
        said = "an earlier correction is taken back; patient and order are as they were first"
        return AsideReason.CORRECTION, InvalidInput("SOPInstanceUID", said, "Nothing has to be done")
    said = "differs from what came first, and nothing else does; it is believed from now on"
    return AsideReason.CORRECTION, InvalidInput(", ".join(changed), said, "Nothing has to be done")


def _name(aside: Aside) -> str:
    """Of the file: the bytes, and for a correction also when they came, as it may be made again."""
    name = f"{aside.sop_instance_uid or 'unknown'}-{(aside.digest or '')[:16]}"
    return f"{name}-{aside.at:%H%M%S%f}" if aside.reason is AsideReason.CORRECTION else name


def _conflict() -> tuple[AsideReason, InvalidInput]:
    return AsideReason.CONFLICT, InvalidInput(
        "SOPInstanceUID",
        "is kept already with other bytes; those that came first stand",
        "Compare the two; if this one is right, send it under a new SOPInstanceUID (PS3.4 B.3)",
    )


def _returned() -> tuple[AsideReason, InvalidInput]:
    return AsideReason.RETURNED, InvalidInput(
        "SOPInstanceUID",
        "is a result of this node, or in one of its series, with other bytes",
        "Nothing has to be done",
    )


def _note(aside: Aside, why: InvalidInput) -> dict[str, Any]:
    """What lies beside an object aside, for a person and for ``read_aside``; no patient data."""
    return {
        "reason": aside.reason.value,
        "why": aside.detail,
        "fix": why.fix,
        "at": aside.at.isoformat(),
        "peer": aside.peer,
        "sop_instance_uid": aside.sop_instance_uid,
        "study_uid": aside.study_uid,
        "digest": aside.digest,
    }


def _valid(uid: str) -> str | None:
    try:
        return checked_uid(uid, "SOPInstanceUID")
    except InvalidInstance:
        return None
