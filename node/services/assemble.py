"""From kept instances to settled studies: rows follow the disk in batches.

A study settles by evidence (``node.services.evidence``), else by quiet time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from node.domain.delivery import DeliveryStep
from node.domain.events import Event, Subject
from node.domain.instance import Aside, AsideReason, Instance, Origin
from node.domain.job import JobState, JobStep
from node.domain.study import Released, Study, StudyState, StudyStep
from node.ports import Clock
from node.repositories import Transaction, UnitOfWork
from node.services.evidence import Evidence
from node.services.steps import move_delivery, move_job, move_study

log = logging.getLogger(__name__)


class Assemble:
    """Indexes what was kept, and settles what has been quiet for long enough.

    Args:
        quiet: the quiet time of studies from a peer, by its calling AE title; ``default`` for all others.
        evidence: is told of everything that was indexed, releases included; None settles by quiet time alone.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        *,
        default: timedelta,
        quiet: Mapping[str, timedelta],
        evidence: Evidence | None = None,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._default = default
        self._quiet = quiet
        self._evidence = evidence

    def index(self, batch: Sequence[Instance | Aside | Released]) -> None:
        """Write the rows of one batch, in one transaction."""
        with self._write() as tx:
            asides = [thing for thing in batch if isinstance(thing, Aside)]
            for aside in asides:
                if aside.reason is not AsideReason.CORRECTION:
                    self._note_aside(tx, aside)
            instances = [thing for thing in batch if isinstance(thing, Instance)]
            self._add(tx, instances)
            self._correct(tx, [aside for aside in asides if aside.reason is AsideReason.CORRECTION])
        if self._evidence is not None:
            self._evidence.observe(batch)

    def _add(self, tx: UnitOfWork, instances: Sequence[Instance]) -> None:
        known = tx.instances.known(i.sop_instance_uid for i in instances)
        fresh: dict[str, list[Instance]] = {}
        for instance in instances:
            earlier = known.get(instance.sop_instance_uid)
            if earlier is None:
                known[instance.sop_instance_uid] = instance
                fresh.setdefault(instance.study_uid, []).append(instance)
            elif earlier.path != instance.path:
                # One SOPInstanceUID under different studies or series: the file stays there, but counts for nothing.
                self._note_aside(tx, _conflict(instance, earlier))
        for study_uid, group in fresh.items():
            study = self._touch(tx, study_uid, group)
            tx.instances.add(replace(i, revision=study.revision) for i in group)

    def _touch(self, tx: UnitOfWork, study_uid: str, group: Sequence[Instance]) -> Study:
        """Count what came; open the study, or its next revision where it had settled."""
        study = tx.studies.get(study_uid)
        if study is not None:
            return self._go_on(tx, study, group, StudyStep.INSTANCE, {"late": len(group)}, new=len(group))
        last, peer = max(i.at for i in group), group[-1].peer
        settle_at = last + self._quiet.get(peer or "", self._default)
        study = Study(study_uid, StudyState.RECEIVING, 1, min(i.at for i in group), last, settle_at, peer, len(group))
        tx.studies.add(study)
        tx.journal.add(_opened(study))
        return study

    def _go_on(
        self,
        tx: UnitOfWork,
        study: Study,
        group: Sequence[Instance | Aside],
        step: StudyStep,
        detail: dict[str, Any],
        *,
        new: int,
    ) -> Study:
        """Move the quiet time on; open the next revision by ``step`` where the study had settled."""
        last = max(i.at for i in group)
        peer = group[-1].peer
        settle_at = last + self._quiet.get(peer or "", self._default)
        changes: dict[str, Any] = {
            "last_at": max(last, study.last_at),
            "settle_at": max(settle_at, study.settle_at or settle_at),
            "peer": peer,
            "instances": study.instances + new,
        }
        if study.state is StudyState.RECEIVING:
            after = replace(study, **changes)
            tx.studies.update(study, after)
            return after
        after = move_study(tx, study, step, last, detail, revision=study.revision + 1, **changes)
        _cancel_queued(tx, after, last)
        return after

    def _correct(self, tx: UnitOfWork, asides: Sequence[Aside]) -> None:
        """Note corrections. They belong to the revision that they open, or find open: one, however many they are."""
        known = tx.instances.indexed(a.path for a in asides)
        by_study: dict[str, list[Aside]] = {}
        for aside in sorted((a for a in asides if a.path not in known), key=lambda a: a.at):
            by_study.setdefault(aside.study_uid or "", []).append(aside)
        for study_uid, group in by_study.items():
            study = tx.studies.get(study_uid)
            latest = {uid: tx.instances.correction_of(uid) for uid in {a.sop_instance_uid or "" for a in group}}
            # The same again, from another association at the same moment, is noted and changes nothing.
            news = [a for a in group if (said := latest[a.sop_instance_uid or ""]) is None or said.digest != a.digest]
            if study is not None and news:
                detail = {"corrected": len(news), "what": news[-1].detail}
                study = self._go_on(tx, study, news, StudyStep.CORRECTION, detail, new=0)
                _withdraw(tx, study, news[-1].at)
            for aside in group:
                self._note_aside(tx, replace(aside, revision=study.revision if study else 0))

    def _note_aside(self, tx: UnitOfWork, aside: Aside) -> None:
        if not tx.instances.add_aside(aside):
            return  # the same bytes again
        tx.journal.add(
            Event(
                subject=Subject.INSTANCE,
                subject_id=aside.sop_instance_uid or "-",
                study_uid=aside.study_uid,
                step=f"aside: {aside.reason.value}",
                at=aside.at,
                detail={"detail": aside.detail, "path": aside.path, "peer": aside.peer},
            )
        )

    def settle(self) -> int:
        """Settle every study whose quiet time is over; returns how many."""
        now = self._clock.now()
        with self._read() as tx:
            due = tx.studies.due(now)
        for study in due:
            with self._write() as tx:
                current = tx.studies.get(study.study_uid)
                if current != study:
                    continue  # an instance came in between: its quiet time runs anew
                quiet = (now - study.last_at).total_seconds()
                detail: dict[str, Any] = {"evidence": f"quiet for {quiet:.1f} s", "instances": study.instances}
                if lacked := self._evidence and self._evidence.forget(study.study_uid):
                    detail["lacked"] = lacked
                move_study(tx, study, StudyStep.QUIET, now, detail, settle_at=None)
        return len(due)


def _opened(study: Study) -> Event:
    return Event(
        subject=Subject.STUDY,
        subject_id=study.study_uid,
        study_uid=study.study_uid,
        step="open",
        to_state=study.state.value,
        at=study.first_at,
        detail={"peer": study.peer, "revision": study.revision},
    )


def _conflict(instance: Instance, earlier: Instance) -> Aside:
    ours = earlier.origin is Origin.RESULT
    return Aside(
        AsideReason.RETURNED if ours else AsideReason.CONFLICT,
        f"SOPInstanceUID is {'that of a result of this node' if ours else 'kept already'}, in another study or series",
        instance.path,
        instance.at,
        instance.peer,
        instance.sop_instance_uid,
        instance.study_uid,
        instance.digest,
    )


def _withdraw(tx: UnitOfWork, study: Study, at: datetime) -> None:
    """What names the wrong patient or order is not sent; a set of which something was sent is sent to its end."""
    for delivery in tx.deliveries.unbegun(study.study_uid):
        reason = "patient or order were corrected before it was sent"
        move_delivery(tx, delivery, DeliveryStep.WITHDRAW, at, reason=reason)


def _cancel_queued(tx: UnitOfWork, study: Study, at: datetime) -> None:
    """A queued job of an earlier revision would report on less than there is now; the next revision gets its own."""
    for job in tx.jobs.of_study(study.study_uid):
        if job.state is JobState.QUEUED and job.attempt == 0:
            reason = f"superseded by revision {study.revision} before it was run"
            move_job(tx, job, JobStep.CANCEL, at, reason=reason, finished_at=at)
