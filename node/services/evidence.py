"""Evidence that a study is complete, so that it need not wait for its quiet time.

Evidence is looked for when an association was released (PS3.8 7.3): its sender had nothing more to say in it; and when
a peer has said what a study consists of (``node.domain.manifest``). What was said decides first, then the peer's own
count of the study where the peer may be asked, then the headers of all that came (``node.domain.completeness``).
Everything held here is a hint: losing it means that a study waits for its quiet time. Manifests are read from the
database, whichever process took them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import Any

from node.domain.completeness import ImageFacts, judge_study
from node.domain.delivery import DeliveryState
from node.domain.errors import InvalidInstance, PeerUnreachable
from node.domain.events import Event, Subject
from node.domain.image_facts import facts_of
from node.domain.instance import Aside, AsideReason, Instance
from node.domain.manifest import compare, named
from node.domain.peer import Peer
from node.domain.study import Released, Study, StudyState, StudyStep
from node.ports import Clock, InstanceFiles
from node.repositories import Transaction, UnitOfWork
from node.services.steps import move_study

log = logging.getLogger(__name__)

# After a release, before it counts: other associations of the same forwarding job are about to open or to end.
GRACE = timedelta(seconds=0.2)
# A study of more instances waits for its quiet time: what their headers say has to be held in memory, 1 KiB each.
MOST_INSTANCES = 10_000
_MOST_STUDIES = 4096
# How far back manifests are looked for: at the start, and later, as transactions end in another order than they begin.
_MANIFESTS_AT_START = timedelta(hours=1)
_MANIFESTS_AGAIN = timedelta(seconds=10)
_MOST_TOLD = 20  # manifests, in one event
WAIT = "wait"

# The peer's NumberOfStudyRelatedInstances (0020,1208) of a study, None when it gives none; raises PeerUnreachable.
Count = Callable[[Peer, str], int | None]


@dataclass
class _Hint:
    """What is known of a study that has not settled.

    ``released`` is its last release, None once an instance came after it; ``judged`` once it has been looked at.
    ``named`` is when something last came of a study that a manifest names; ``compared`` once that has been looked at.
    ``pause`` is the longest time so far between a release and the next instance; ``why`` what the last look lacked.
    """

    released: Released | None = None
    judged: bool = False
    named: datetime | None = None
    compared: bool = False
    pause: timedelta = timedelta()
    why: str | None = None

    def is_due(self, now: datetime) -> bool:
        """Whether there is something to look at by now."""
        return self.release_counts(now) or (self.named is not None and not self.compared and self.named + GRACE <= now)

    def release_counts(self, now: datetime) -> bool:
        """Whether the release counts by now: a sender that associates for every few instances is given more time."""
        return self.released is not None and not self.judged and self.released.at + max(GRACE, 2 * self.pause) <= now


@dataclass(frozen=True)
class _Finding:
    """What the evidence says of a study, in words."""

    complete: bool
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


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
        self._manifests_since = clock.now() - _MANIFESTS_AT_START
        self._manifests_seen: set[tuple[int, datetime]] = set()
        self._lock = Lock()
        # A study that comes in many associations is judged often; kept files never change.
        self._facts = lru_cache(maxsize=MOST_INSTANCES)(self._read_facts)

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
                elif _arrives(thing) and (known := self._hints.get(thing.study_uid or "")):
                    if known.released:
                        known.pause = max(known.pause, thing.at - known.released.at)
                        known.released = None
                    if known.named:
                        known.named, known.compared = thing.at, False
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
        if peer is None:
            self._look_for_manifests()
        return sum(self._judge_one(study_uid, hint, peer) for study_uid, hint in self._due(peer))

    def _look_for_manifests(self) -> None:
        """Take note of the manifests that came or changed since the last look, in whatever process."""
        now = self._clock.now()
        with self._read() as tx:
            changed = tx.manifests.changed_since(self._manifests_since)
            fresh = {key: tx.manifests.studies_of(key[0]) for key in changed if key not in self._manifests_seen}
        with self._lock:
            for study_uid in set().union(*fresh.values()):
                hint = self._hints.setdefault(study_uid, _Hint())
                hint.named, hint.compared, hint.judged = now, False, False
        # Nothing that is named by it has a row yet: it is looked at again.
        seen = {key for key in changed if key in self._manifests_seen or fresh[key]}
        self._manifests_seen, self._manifests_since = seen, max(self._manifests_since, now - _MANIFESTS_AGAIN)

    def _due(self, peer: Peer | None) -> list[tuple[str, _Hint]]:
        now = self._clock.now()
        with self._lock:
            due = [
                (study_uid, hint)
                for study_uid, hint in self._hints.items()
                if hint.is_due(now) and (self._queried.get(hint.released.peer) if hint.released else None) == peer
            ]
        return [(study_uid, hint) for study_uid, hint in due if not self._being_sent(study_uid)]

    def _judge_one(self, study_uid: str, hint: _Hint, peer: Peer | None) -> bool:
        with self._lock:
            released = hint.released if hint.release_counts(self._clock.now()) else None
            hint.judged, hint.compared = hint.judged or released is not None, True
        with self._read() as tx:
            study = tx.studies.get(study_uid)
            instances = tx.instances.of_study(study_uid)
            said = _compare(tx, study_uid, instances)
            corrected = [] if study is None else _corrections(tx, study)
            ours = 0 if peer is None else _delivered(tx, study_uid, peer)
        if study is None or study.state is not StudyState.RECEIVING:
            if study is not None:
                self.forget(study_uid)
            return False
        if said is None and (released is None or study.last_at > released.at):
            return False  # an instance came after it: the release of that instance's association is waited for
        finding = (
            _sent_again(corrected, instances)
            or said
            or self._ask(study, peer, len(instances) + ours)
            or self._look(instances)
        )
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
                series.setdefault(instance.series_uid, []).append(
                    self._facts(instance.path, instance.transfer_syntax_uid)
                )
        except OSError as error:
            return _Finding(False, f"a kept file cannot be read: {error.strerror}")
        except InvalidInstance as error:
            return _Finding(False, f"a kept file cannot be read: {error}")
        verdict = judge_study(series)
        reason = f"association released, {verdict.reason}" if verdict.complete else verdict.reason
        return _Finding(
            verdict.complete, reason, {"series": [f"{uid}: {said}" for uid, said in verdict.series.items()]}
        )

    def _read_facts(self, path: str, transfer_syntax_uid: str) -> ImageFacts:
        with self._files.dataset(path) as dataset:
            return facts_of(dataset, transfer_syntax_uid)

    def _settle(self, study: Study, finding: _Finding) -> bool:
        now = self._clock.now()
        detail: dict[str, Any] = {"evidence": finding.reason, "instances": study.instances, **finding.detail}
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


def _arrives(thing: Instance | Aside) -> bool:
    return isinstance(thing, Instance) or thing.reason is AsideReason.CORRECTION


def _corrections(tx: UnitOfWork, study: Study) -> list[Aside]:
    """Those of the revision that is open."""
    return tx.instances.corrections(study.study_uid, since_revision=study.revision)


def _sent_again(corrected: Sequence[Aside], instances: Sequence[Instance]) -> _Finding | None:
    """Whether all that was here before the corrections has come again; None where there are none."""
    if not corrected:
        return None
    begun = min(aside.at for aside in corrected)
    before = {i.sop_instance_uid for i in instances if i.at < begun}
    again = before & {aside.sop_instance_uid for aside in corrected}
    if again == before:
        return _Finding(True, f"all {len(before)} instances came again, of another patient or order")
    return _Finding(False, f"{len(again)} of {len(before)} instances came again, of another patient or order")


def _compare(tx: UnitOfWork, study_uid: str, instances: Sequence[Instance]) -> _Finding | None:
    """What the manifests of a study say; None where there are none, or they leave it open."""
    manifests = tx.manifests.of_study(study_uid)
    kept = tx.instances.known(named(manifests)).keys()
    compared = compare(manifests, {i.sop_instance_uid for i in instances}, kept)
    if compared is None:
        return None
    told = [f"{m.uid} of {m.peer}: {m.said}" for m in manifests[-_MOST_TOLD:]]
    return _Finding(compared.complete, compared.reason, {"manifests": told})


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
