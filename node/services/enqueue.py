"""Jobs into the queue, and from one version to another."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from node.domain.errors import LostLease
from node.domain.events import Event, Subject
from node.domain.ids import job_id
from node.domain.job import UNSENT, Job, JobState, JobStep, Role
from node.domain.model import ModelVersion
from node.domain.priority import Priority
from node.domain.rollout import Rollout, choose
from node.repositories import UnitOfWork
from node.services.steps import move_job

log = logging.getLogger(__name__)

# Gives the installed version of a name; raises ``AinodeError`` where none is, or it is unavailable.
Installed = Callable[[str], ModelVersion]


def new_job(
    node: str,
    study: tuple[str, int],
    route: str,
    model: ModelVersion,
    at: datetime,
    *,
    role: Role = Role.CHAMPION,
    send_to: tuple[str, ...] = (),
    priority: Priority = Priority.ROUTINE,
    run: int = 1,
) -> Job:
    """A queued job.

    Args:
        node: UID of this installation.
        study: StudyInstanceUID and revision.
        send_to: where its results are owed; nowhere in an unsent role.
    """
    study_uid, revision = study
    identity = job_id(
        node=node,
        study_uid=study_uid,
        revision=revision,
        route=route,
        pipeline=model.name,
        version=model.version,
        digest=model.digest,
        run=run,
    )
    wanted = () if role in UNSENT else send_to
    return Job(
        identity, study_uid, revision, route, model, wanted, JobState.QUEUED, 0, at, at, priority=priority, role=role
    )


def queue(tx: UnitOfWork, job: Job) -> None:
    """Add a job and its event; nothing where it is there already."""
    if tx.jobs.get(job.id) is None:
        tx.jobs.add(job)
        tx.journal.add(_queued(job))


def queue_again(
    tx: UnitOfWork,
    node: str,
    study: tuple[str, int],
    route: str,
    model: ModelVersion,
    at: datetime,
    *,
    role: Role,
    send_to: tuple[str, ...],
    priority: Priority = Priority.ROUTINE,
) -> Job:
    """Queue the next run of a version over a study: its results get UIDs of their own."""
    run = 1
    while True:
        job = new_job(node, study, route, model, at, role=role, send_to=send_to, priority=priority, run=run)
        if tx.jobs.get(job.id) is None:
            queue(tx, job)
            return job
        run += 1


def hand_over(tx: UnitOfWork, node: str, job: Job, rollout: Rollout, reason: str, at: datetime) -> None:
    """End an unfinished job and give its study to the version that the rollout chooses; an unsent one only ends.

    Raises:
        LostLease: somebody else moved the job meanwhile.
    """
    move_job(tx, job, JobStep.CANCEL, at, reason=reason, owner=None, lease_until=None, finished_at=at)
    if job.role in UNSENT:
        return
    choice = choose(rollout, job.study_uid)
    role = Role.REPLAY if job.role is Role.REPLAY else choice.role
    study = (job.study_uid, job.revision)
    queue_again(tx, node, study, job.route, choice.model, at, role=role, send_to=job.send_to, priority=job.priority)


def hand_over_all(tx: UnitOfWork, node: str, model: ModelVersion, rollout: Rollout, reason: str, at: datetime) -> int:
    """Hand over every queued and running job of a version, replays apart: those a person asked for. Returns how many.

    What runs is dropped when it ends: its worker no longer holds it.
    """
    count = 0
    while jobs := [j for j in tx.jobs.of_model(model, unfinished=True) if j.role is not Role.REPLAY]:
        for job in jobs:
            try:
                hand_over(tx, node, job, rollout, reason, at)
                count += 1
            except LostLease:
                log.info("job %s moved on meanwhile; it is looked at again", job.id)
    return count


def _queued(job: Job) -> Event:
    return Event(
        subject=Subject.JOB,
        subject_id=job.id,
        study_uid=job.study_uid,
        step="queue",
        to_state=job.state.value,
        at=job.created_at,
        detail={
            "route": job.route,
            "model": job.model.label,
            "role": job.role.value,
            "revision": job.revision,
            "priority": job.priority.name,
            "send_to": list(job.send_to),
        },
    )
