"""Evidence that a study is complete, so that it need not wait for its quiet time.

Evidence is looked for when an association was released (PS3.8 7.3): its sender had nothing more to say in it. Then the
peer's own count of the study decides where the peer may be asked, else the headers of all that came
(``node.domain.completeness``). Everything held here is a hint: losing it means that a study waits for its quiet time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from node.domain.completeness import ImageFacts, judge_study
from node.domain.delivery import DeliveryState
from node.domain.errors import PeerUnreachable
from node.domain.events import Event, Subject
from node.domain.instance import Aside, Instance
from node.domain.peer import Peer
from node.domain.study import Released, Study, StudyState, StudyStep
from node.ports import Clock, InstanceFiles, Transaction, UnitOfWork
from node.services.steps import move_study

log = logging.getLogger(__name__)

# After a release, before it counts: other associations of the same forwarding job are about to open or to end.
GRACE = timedelta(seconds=0.2)
# A study of more instances waits for its quiet time: what their headers say has to be held in memory, 1 KiB each.
MOST_INSTANCES = 10_000
_MOST_STUDIES = 4096
WAIT = "wait"

_KEYWORDS = (
    "SOPClassUID",
    "ImageType",
    "Modality",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ImagesInAcquisition",
    "ConcatenationUID",
    "InConcatenationTotalNumber",
    "NumberOfFrames",
)
_TAGS = [Tag(keyword) for keyword in _KEYWORDS]
_LAST_TAG = int(max(_TAGS))

# The peer's NumberOfStudyRelatedInstances (0020,1208) of a study, None when it gives none; raises PeerUnreachable.
Count = Callable[[Peer, str], int | None]


@dataclass
class _Hint:
    """The last release of a study: None once an instance came after it, ``judged`` once it has been looked at.

    ``pause`` is the longest time so far between a release and the next instance; ``why`` what the last look lacked.
    """

    released: Released | None = None
    judged: bool = False
    pause: timedelta = timedelta()
    why: str | None = None

    def is_due(self, now: datetime) -> bool:
        """Whether the release counts by now: a sender that associates for every few instances is given more time."""
        return self.released is not None and not self.judged and self.released.at + max(GRACE, 2 * self.pause) <= now


@dataclass(frozen=True)
class _Finding:
    """What the evidence says of a study, in words."""

    complete: bool
    reason: str
    series: Sequence[str] = ()


class Evidence:
    """Settles studies by evidence.

    Args:
        queried: the peers that may be asked for their count, by their AE title.
        count: asks one.
        being_sent: whether an association is open in which instances of a study were acknowledged.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        files: InstanceFiles,
        *,
        queried: Mapping[str, Peer],
        count: Count,
        being_sent: Callable[[str], bool] = lambda study_uid: False,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._queried = queried
        self._count = count
        self._being_sent = being_sent
        self._hints: dict[str, _Hint] = {}
        self._lock = Lock()
        # A study that comes in many associations is judged often; kept files never change.
        self._facts = lru_cache(maxsize=MOST_INSTANCES)(read_facts)

    def observe(self, batch: Iterable[Instance | Aside | Released]) -> None:
        """Take note of releases, and of instances after them, in the order in which they came.

        Call it when the rows of the batch are committed: a release is judged by the rows before it.
        """
        with self._lock:
            for thing in batch:
                if isinstance(thing, Released):
                    for study_uid in thing.study_uids:
                        hint = self._hints.setdefault(study_uid, _Hint())
                        hint.released, hint.judged = thing, False
                elif isinstance(thing, Instance) and (known := self._hints.get(thing.study_uid)) and known.released:
                    known.pause = max(known.pause, thing.at - known.released.at)
                    known.released = None
            for oldest in list(self._hints)[: max(0, len(self._hints) - _MOST_STUDIES)]:
                del self._hints[oldest]

    def forget(self, study_uid: str) -> str | None:
        """Drop what is known of a study that settled; returns what the last look at it lacked."""
        with self._lock:
            hint = self._hints.pop(study_uid, None)
        return None if hint is None else hint.why

    def judge(self, peer: Peer | None = None) -> int:
        """Judge the studies whose release counts by now; returns how many settled.

        Args:
            peer: the one whose studies to judge, asking it for its count; None for those of all that are not asked.
                Each that is asked has calls of its own, so that a mute one delays nobody else.
        """
        return sum(self._judge_one(study_uid, hint, peer) for study_uid, hint in self._due(peer))

    def _due(self, peer: Peer | None) -> list[tuple[str, _Hint]]:
        now = self._clock.now()
        with self._lock:
            due = [
                (study_uid, hint)
                for study_uid, hint in self._hints.items()
                if hint.is_due(now) and hint.released and self._queried.get(hint.released.peer) == peer
            ]
        return [(study_uid, hint) for study_uid, hint in due if not self._being_sent(study_uid)]

    def _judge_one(self, study_uid: str, hint: _Hint, peer: Peer | None) -> bool:
        with self._lock:
            released, hint.judged = hint.released, True
        with self._read() as tx:
            study = tx.studies.get(study_uid)
            instances = tx.instances.of_study(study_uid)
            ours = 0 if peer is None else _delivered(tx, study_uid, peer)
        if study is None or study.state is not StudyState.RECEIVING:
            self.forget(study_uid)
            return False
        if released is None or study.last_at > released.at:
            return False  # an instance came after it: the release of that instance's association is waited for
        finding = self._ask(study, peer, len(instances) + ours) or self._look(instances)
        if finding.complete:
            return self._settle(study, finding)
        hint.why = finding.reason
        self._note(study, finding.reason)
        return False

    def _ask(self, study: Study, peer: Peer | None, held: int) -> _Finding | None:
        """What the peer's own count says; None when it could not be asked, or counts less than it sent."""
        if peer is None:
            return None
        try:
            theirs = self._count(peer, study.study_uid)
        except PeerUnreachable as error:
            log.warning("no count of study %s: %s", study.study_uid, error)
            return None
        if theirs is None or theirs < held:
            return None
        if theirs == held:
            return _Finding(True, f"{peer.name} counts {theirs} instances, all of them are here")
        return _Finding(False, f"{peer.name} counts {theirs} instances, {held} of them are here")

    def _look(self, instances: Sequence[Instance]) -> _Finding:
        """What the headers say."""
        if len(instances) > MOST_INSTANCES:
            return _Finding(False, f"{len(instances)} instances, more than {MOST_INSTANCES}, are not looked through")
        series: dict[str, list[ImageFacts]] = {}
        try:
            for instance in instances:
                series.setdefault(instance.series_uid, []).append(self._facts(self._files.absolute(instance.path)))
        except OSError as error:
            return _Finding(False, f"a kept file cannot be read: {error.strerror}")
        verdict = judge_study(series)
        reason = f"association released, {verdict.reason}" if verdict.complete else verdict.reason
        return _Finding(verdict.complete, reason, [f"{uid}: {said}" for uid, said in verdict.series.items()])

    def _settle(self, study: Study, finding: _Finding) -> bool:
        now = self._clock.now()
        detail: dict[str, Any] = {"evidence": finding.reason, "instances": study.instances}
        if finding.series:
            detail["series"] = list(finding.series)
        with self._write() as tx:
            if tx.studies.get(study.study_uid) != study:
                return False  # an instance came in between, or the quiet time was over
            move_study(tx, study, StudyStep.EVIDENCE, now, detail, settle_at=None)
        self.forget(study.study_uid)
        return True

    def _note(self, study: Study, why: str) -> None:
        """Say once a revision why it waits: a study may come in hundreds of associations."""
        with self._write() as tx:
            events = tx.journal.of_study(study.study_uid)
            if not any(e.step == WAIT and e.detail.get("revision") == study.revision for e in events):
                tx.journal.add(_wait(study, why, self._clock.now()))


def read_facts(path: Path) -> ImageFacts:
    """What the header of a kept file says; nothing after the last element of interest is read.

    Raises:
        OSError: the file cannot be read.
    """

    def enough(tag: BaseTag, vr: str | None, length: int) -> bool:
        return int(tag) > _LAST_TAG

    try:
        with path.open("rb") as file:
            header = read_partial(file, enough, specific_tags=list(_TAGS))
        return _facts_of(header)
    except (InvalidDicomError, ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError) as error:
        log.warning("the header of %s is no evidence: %s", path.name, type(error).__name__)
        return ImageFacts("")


def _facts_of(header: Dataset) -> ImageFacts:
    return ImageFacts(
        sop_class_uid=str(header.get("SOPClassUID", "")),
        modality=str(header.get("Modality") or ""),
        image_type=tuple(str(value).upper() for value in _values(header, "ImageType")),
        position=_numbers(header, "ImagePositionPatient", 3),
        orientation=_numbers(header, "ImageOrientationPatient", 6),
        instance_number=_number(header, "InstanceNumber"),
        acquisition_number=_number(header, "AcquisitionNumber"),
        images_in_acquisition=_number(header, "ImagesInAcquisition"),
        frames=_number(header, "NumberOfFrames"),
        in_concatenation=bool(header.get("ConcatenationUID")),
        parts=_number(header, "InConcatenationTotalNumber"),
    )


def _values(header: Dataset, keyword: str) -> list[Any]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)


def _numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    numbers = tuple(float(value) for value in _values(header, keyword))
    return numbers if len(numbers) == count else None


def _number(header: Dataset, keyword: str) -> int | None:
    values = _values(header, keyword)
    return int(values[0]) if len(values) == 1 else None


def _delivered(tx: UnitOfWork, study_uid: str, peer: Peer) -> int:
    """How many of our own results the peer has, and counts."""
    done = (DeliveryState.DELIVERED, DeliveryState.COMMITTED)
    return sum(d.peer == peer.name and d.state in done for d in tx.deliveries.of_study(study_uid))


def _wait(study: Study, why: str, at: datetime) -> Event:
    return Event(
        subject=Subject.STUDY,
        subject_id=study.study_uid,
        study_uid=study.study_uid,
        step=WAIT,
        at=at,
        detail={"revision": study.revision, "why": why},
    )
