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
from threading import Lock
from typing import Any

from node.domain.encoded import Truncated, values
from node.domain.errors import InvalidInput, InvalidInstance, StorageFull
from node.domain.ids import checked_uid
from node.domain.instance import Answer, Aside, AsideReason, Incoming, Instance, Origin
from node.domain.part10 import HEAD_LIMIT, head, split
from node.ports import Clock, InstanceFiles

log = logging.getLogger(__name__)

SUCCESS, PROCESSING_FAILURE, OUT_OF_RESOURCES, DOES_NOT_MATCH = 0x0000, 0x0110, 0xA700, 0xA900

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_UIDS = {
    _SOP_CLASS: "SOPClassUID",
    _SOP_INSTANCE: "SOPInstanceUID",
    _STUDY: "StudyInstanceUID",
    _SERIES: "SeriesInstanceUID",
}
_COMMENT_LENGTH = 64  # ErrorComment (0000,0902) is LO
_LOCKS = 64
_PRUNE_AT = 4096


@dataclass(frozen=True)
class _Identity:
    """The UIDs of a data set, checked."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


class Receive:
    """Keeps what arrives. Called by many associations at once.

    Args:
        files: where objects are kept.
        lookup: the row of a SOPInstanceUID, None where there is none (yet: rows are written in batches).
        is_result_series: whether a SeriesInstanceUID is one of this node's own results.
        on_kept: told of every object kept or kept aside, after it is durable and before it is answered. The same
            object aside may be told of more than once (the same invalid object sent twice).
        clock: the time of arrival.
    """

    def __init__(
        self,
        files: InstanceFiles,
        lookup: Callable[[str], Instance | None],
        is_result_series: Callable[[str], bool],
        on_kept: Callable[[Instance | Aside], None],
        clock: Clock,
    ) -> None:
        self._files = files
        self._lookup = lookup
        self._is_result_series = is_result_series
        self._on_kept = on_kept
        self._clock = clock
        # One SOPInstanceUID at a time: two associations may send it in two studies at once, and the file system
        # arbitrates only within one series.
        self._locks = tuple(Lock() for _ in range(_LOCKS))
        self._unindexed = _Unindexed(lookup)

    def store(self, incoming: Incoming) -> Answer:
        """Keep an object; the answer is given after its bytes are durable.

        A conflict (same SOPInstanceUID, other bytes) is answered with success: the bytes are kept, aside and flagged.
        A failure status would make the sender try again for ever, and it would still not change what lies here; no
        warning status fits either, as nothing was coerced or discarded.
        """
        try:
            return self._store(incoming)
        except StorageFull as error:
            log.error("%r from %s refused: %s", incoming.sop_instance_uid, incoming.peer, error)
            return Answer(OUT_OF_RESOURCES, "Out of disk space: nothing was kept, send again later")
        except Exception:
            # The edge: the association goes on, whatever one object does.
            log.exception("%r from %s could not be kept", incoming.sop_instance_uid, incoming.peer)
            return Answer(PROCESSING_FAILURE, "The node failed to keep the object: see its log")

    def _store(self, incoming: Incoming) -> Answer:
        digest = hashlib.sha256(incoming.dataset).hexdigest()
        try:
            identity = identify(incoming)
        except InvalidInstance as error:
            self._keep_aside(incoming, digest, AsideReason.INVALID, error)
            return Answer(error.status, comment_of(error))
        with self._locks[hash(identity.sop_instance_uid) % _LOCKS]:
            return self._keep_once(incoming, identity, digest)

    def _keep_once(self, incoming: Incoming, identity: _Identity, digest: str) -> Answer:
        uid = identity.sop_instance_uid
        known = self._unindexed.get(uid) or self._lookup(uid)
        if known is not None:
            if known.digest != digest:
                ours = known.origin is Origin.RESULT
                self._keep_aside(incoming, digest, *(_returned() if ours else _conflict()), identity)
            return Answer(SUCCESS)
        if self._is_result_series(identity.series_uid):
            self._keep_aside(incoming, digest, *_returned(), identity)
            return Answer(SUCCESS)
        start = head(incoming)
        try:
            path = self._files.keep(
                head=start,
                dataset=incoming.dataset,
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                sop_instance_uid=uid,
            )
        except FileExistsError:
            return self._keep_beside(incoming, identity, digest)
        self._tell(
            Instance(
                sop_instance_uid=uid,
                sop_class_uid=identity.sop_class_uid,
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                transfer_syntax_uid=incoming.transfer_syntax_uid,
                digest=digest,
                size=len(start) + len(incoming.dataset),
                path=path,
                origin=Origin.RECEIVED,
                at=self._clock.now(),
                peer=incoming.peer,
            )
        )
        return Answer(SUCCESS)

    def _keep_beside(self, incoming: Incoming, identity: _Identity, digest: str) -> Answer:
        """The file is there but nobody knows it: another process keeps it too, or telling of it failed before."""
        path = self._files.find(identity.study_uid, identity.series_uid, identity.sop_instance_uid)
        if path is None:
            raise FileNotFoundError(f"{identity.sop_instance_uid} was removed while it arrived again")
        kept = read_kept(self._files, path)
        self._tell(kept)
        if kept.digest != digest:
            self._keep_aside(incoming, digest, *_conflict(), identity)
        return Answer(SUCCESS)

    def _tell(self, instance: Instance) -> None:
        self._on_kept(instance)
        self._unindexed.add(instance)

    def _keep_aside(
        self,
        incoming: Incoming,
        digest: str,
        reason: AsideReason,
        why: InvalidInput,
        identity: _Identity | None = None,
    ) -> None:
        now = self._clock.now()
        uid = identity.sop_instance_uid if identity else _valid(incoming.sop_instance_uid)
        aside = Aside(
            reason=reason,
            detail=f"{why.field}: {why.problem}",
            path="",
            at=now,
            peer=incoming.peer,
            sop_instance_uid=uid,
            study_uid=identity.study_uid if identity else None,
            digest=digest,
        )
        path = self._files.keep_aside(
            head=head(incoming),
            dataset=incoming.dataset,
            folder=f"{reason.value}/{now.date().isoformat()}",
            name=f"{uid or 'unknown'}-{digest[:16]}",
            note=_note(aside, why),
        )
        log.warning("%s from %s kept aside (%s): %s", uid or "an object", incoming.peer, reason.value, why.field)
        self._on_kept(replace(aside, path=path))


class _Unindexed:
    """What was kept and may have no row yet. Grows with the lag of the index only: rows that exist are forgotten."""

    def __init__(self, lookup: Callable[[str], Instance | None]) -> None:
        self._lookup = lookup
        self._kept: dict[str, Instance] = {}
        self._lock = Lock()
        self._prune_at = _PRUNE_AT

    def get(self, sop_instance_uid: str) -> Instance | None:
        return self._kept.get(sop_instance_uid)

    def add(self, instance: Instance) -> None:
        with self._lock:
            self._kept[instance.sop_instance_uid] = instance
            if len(self._kept) >= self._prune_at:
                self._kept = {uid: kept for uid, kept in self._kept.items() if self._lookup(uid) is None}
                self._prune_at = max(_PRUNE_AT, 2 * len(self._kept))


def identify(incoming: Incoming) -> _Identity:
    """The checked UIDs of an object that is whole and is what its C-STORE command says (PS3.4 B.2.3).

    Raises:
        InvalidInstance: with the status to answer.
    """
    found, fault = values(incoming.dataset, incoming.transfer_syntax_uid, _UIDS)
    if fault is not None and len(found) < len(_UIDS):
        raise InvalidInstance(
            "data set",
            f"cannot be read as {incoming.transfer_syntax_uid}: {fault}",
            "Send the object in the transfer syntax that was negotiated",
        )
    if isinstance(fault, Truncated):
        raise InvalidInstance("data set", f"truncated: {fault}", "Send the whole object")
    uid = {tag: checked_uid(_text(found.get(tag)), keyword) for tag, keyword in _UIDS.items()}
    for tag, commanded in ((_SOP_CLASS, incoming.sop_class_uid), (_SOP_INSTANCE, incoming.sop_instance_uid)):
        if uid[tag] != commanded.rstrip("\0 "):
            raise InvalidInstance(
                _UIDS[tag],
                f"{uid[tag]} is not that of the C-STORE command",
                "Send command and data set with the same UIDs",
                status=DOES_NOT_MATCH,
            )
    return _Identity(uid[_SOP_CLASS], uid[_SOP_INSTANCE], uid[_STUDY], uid[_SERIES])


def read_kept(files: InstanceFiles, path: str) -> Instance:
    """Rebuild the row of a kept object from its file: arrival is the file's time, the peer its file meta's source.

    Raises:
        InvalidInstance: the file is no whole DICOM file.
        OSError: it cannot be read.
    """
    file = files.absolute(path)
    content = file.read_bytes()
    meta = split(content[:HEAD_LIMIT])
    dataset = content[meta.offset :]
    peer = meta.source_ae_title or ""
    identity = identify(Incoming(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, dataset, peer))
    return Instance(
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        study_uid=identity.study_uid,
        series_uid=identity.series_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        digest=hashlib.sha256(dataset).hexdigest(),
        size=len(content),
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


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("latin-1")


def _valid(uid: str) -> str | None:
    try:
        return checked_uid(uid, "SOPInstanceUID")
    except InvalidInstance:
        return None
