"""A step of a state table and its event row, in one transaction: the only way that services move a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from node.domain.commitment import COMMITMENT, Commitment, CommitmentStep
from node.domain.delivery import DELIVERY, Delivery, DeliveryStep
from node.domain.events import Event, Subject
from node.domain.job import JOB, Job, JobStep
from node.domain.machine import advance
from node.domain.study import STUDY, Study, StudyStep
from node.repositories import UnitOfWork


def move_study(
    tx: UnitOfWork, study: Study, step: StudyStep, at: datetime, detail: dict[str, Any] | None = None, **changes: Any
) -> Study:
    """Take a step; ``changes`` are written with it.

    Raises:
        IllegalStep: not legal from this state, or somebody else moved the study meanwhile.
    """
    after = replace(study, state=advance(STUDY, study.state, step), **changes)
    tx.studies.update(study, after)
    tx.journal.add(
        Event(
            subject=Subject.STUDY,
            subject_id=study.study_uid,
            study_uid=study.study_uid,
            step=step.value,
            from_state=study.state.value,
            to_state=after.state.value,
            at=at,
            detail={"revision": after.revision, **(detail or {})},
        )
    )
    return after


def move_job(tx: UnitOfWork, job: Job, step: JobStep, at: datetime, *, actor: str | None = None, **changes: Any) -> Job:
    """Take a step; ``changes`` are written with it.

    Raises:
        IllegalStep: not legal from this state.
        LostLease: somebody else moved the job meanwhile.
    """
    after = replace(job, state=advance(JOB, job.state, step), **changes)
    tx.jobs.update(job, after)
    tx.journal.add(job_event(after, step, job.state.value, at, actor=actor))
    return after


def job_event(job: Job, step: JobStep, from_state: str, at: datetime, *, actor: str | None = None) -> Event:
    """The event of a step that a job has taken."""
    detail = {"route": job.route, "model": job.model.label, "attempt": job.attempt, "revision": job.revision}
    return Event(
        subject=Subject.JOB,
        subject_id=job.id,
        study_uid=job.study_uid,
        step=step.value,
        from_state=from_state,
        to_state=job.state.value,
        at=at,
        actor=actor,
        detail=detail | ({"reason": job.reason} if job.reason else {}),
    )


@dataclass(frozen=True)
class Move:
    """A step that a delivery is to take; ``changes`` are written with it."""

    delivery: Delivery
    step: DeliveryStep
    at: datetime
    changes: Mapping[str, Any]


def move_delivery(
    tx: UnitOfWork, delivery: Delivery, step: DeliveryStep, at: datetime, *, actor: str | None = None, **changes: Any
) -> Delivery:
    """Take a step; ``changes`` are written with it.

    Raises:
        IllegalStep: not legal from this state.
        LostLease: somebody else moved the delivery meanwhile.
    """
    return move_deliveries(tx, [Move(delivery, step, at, changes)], actor=actor)[0]


def move_deliveries(tx: UnitOfWork, moves: Sequence[Move], *, actor: str | None = None) -> list[Delivery]:
    """Take many steps at once, each of another delivery.

    Raises:
        IllegalStep: one is not legal.
        LostLease: somebody else moved one of the deliveries meanwhile.
    """
    moved = [
        (move.delivery, replace(move.delivery, state=advance(DELIVERY, move.delivery.state, move.step), **move.changes))
        for move in moves
    ]
    tx.deliveries.update_all(moved)
    tx.journal.add_all(
        _delivery_event(move, before, after, actor) for move, (before, after) in zip(moves, moved, strict=True)
    )
    return [after for _, after in moved]


def _delivery_event(move: Move, before: Delivery, after: Delivery, actor: str | None) -> Event:
    detail: dict[str, Any] = {"peer": after.peer, "attempt": after.attempt, "job": after.job_id}
    if after.status is not None:
        detail["status"] = f"{after.status:04X}"
    if after.reason:
        detail["reason"] = after.reason
    return Event(
        subject=Subject.DELIVERY,
        subject_id=str(after.id),
        study_uid=after.study_uid,
        step=move.step.value,
        from_state=before.state.value,
        to_state=after.state.value,
        at=move.at,
        actor=actor,
        detail=detail,
    )


def move_commitment(
    tx: UnitOfWork, commitment: Commitment, step: CommitmentStep, at: datetime, study_uid: str | None, **changes: Any
) -> Commitment:
    """Take a step; ``changes`` are written with it. ``study_uid`` is the study that the event belongs to, if to one.

    Raises:
        IllegalStep: not legal from this state.
        LostLease: somebody else moved the commitment meanwhile.
    """
    after = replace(commitment, state=advance(COMMITMENT, commitment.state, step), **changes)
    tx.commitments.update(commitment, after)
    tx.journal.add(commitment_event(after, step.value, commitment.state.value, at, study_uid))
    return after


def commitment_event(
    commitment: Commitment, step: str, from_state: str | None, at: datetime, study_uid: str | None = None
) -> Event:
    """The event of a step that a commitment has taken."""
    detail: dict[str, Any] = {
        "peer": commitment.peer,
        "instances": len(commitment.references),
        "failed": len(commitment.failed),
        "attempt": commitment.attempt,
    }
    return Event(
        subject=Subject.COMMITMENT,
        subject_id=commitment.transaction_uid,
        study_uid=study_uid,
        step=step,
        from_state=from_state,
        to_state=commitment.state.value,
        at=at,
        detail=detail | ({"reason": commitment.reason} if commitment.reason else {}),
    )
