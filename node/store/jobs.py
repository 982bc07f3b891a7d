"""The job table: claimed by lease, moved by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, and_, col, func, not_, select, update

from node.domain.errors import LostLease
from node.domain.job import UNSENT, Hold, Job, JobState, Role
from node.domain.model import ModelVersion
from node.domain.priority import Priority
from node.store.rows import build, claim, run, values
from node.store.tables import JobRow


def _job(row: JobRow) -> Job:
    model = ModelVersion(row.pipeline, row.model_version, row.model_digest, row.model_title)
    return build(
        Job,
        row,
        model=model,
        state=JobState(row.state),
        send_to=tuple(row.send_to),
        priority=Priority(row.priority),
        role=Role(row.role),
    )


def _columns(job: Job) -> dict[str, Any]:
    model = job.model
    return values(job, without=("model",)) | {
        "pipeline": model.name,
        "model_version": model.version,
        "model_digest": model.digest,
        "model_title": model.title,
    }


_UNSENT = col(JobRow.role).in_([role.value for role in UNSENT])
# What may run with others, or wait for them.
_JOINS = (col(JobRow.priority) < Priority.STAT.value, col(JobRow.attempt) == 0)


class JobRepository:
    """Implements ``node.repositories.Jobs``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, job: Job) -> None:
        """Insert."""
        self._session.add(JobRow(**_columns(job)))
        self._session.flush()

    def get(self, job_id: str) -> Job | None:
        """One job."""
        row = self._session.get(JobRow, job_id, populate_existing=True)
        return None if row is None else _job(row)

    def claim(
        self,
        *,
        owner: str,
        now: datetime,
        lease: timedelta,
        untried: bool = False,
        hold: Hold | None = None,
    ) -> Job | None:
        """Take the queued job that is due and comes first: those whose results nobody waits for last, then the most
        urgent, then the oldest. The attempt is counted here, so that a job that kills its process comes to an end too.

        Those of ``hold`` are passed over, unless STAT or tried before.
        """
        due = [JobRow.state == JobState.QUEUED.value, col(JobRow.not_before) <= now]
        if hold is not None:
            waits = (col(JobRow.model_digest).in_(hold.digests), col(JobRow.created_at) > hold.since, *_JOINS)
            due.append(not_(and_(*waits)))
        taken = self._take(due, owner, now, lease, limit=1, further=[col(JobRow.attempt) == 0] if untried else [])
        return taken[0] if taken else None

    def claim_like(self, first: Job, *, owner: str, now: datetime, lease: timedelta, limit: int) -> list[Job]:
        """Take queued jobs that are due and like ``first``: of its version, sent or unsent as it is, none that is STAT
        or was tried before. In the order in which `claim` would have taken them.
        """
        like = [
            JobRow.state == JobState.QUEUED.value,
            col(JobRow.not_before) <= now,
            JobRow.pipeline == first.model.name,
            JobRow.model_digest == first.model.digest,
            _UNSENT if first.role in UNSENT else not_(_UNSENT),
            *_JOINS,
        ]
        taken = self._take(like, owner, now, lease, limit=limit)
        return sorted(taken, key=lambda job: (-job.priority, job.created_at))

    def untried(self, model: ModelVersion) -> int:
        """How many queued jobs of a version were never tried."""
        same = (JobRow.pipeline == model.name, JobRow.model_digest == model.digest)
        chosen = select(func.count()).where(JobRow.state == JobState.QUEUED.value, JobRow.attempt == 0, *same)
        return self._session.exec(chosen).one()

    def _take(
        self, due: list[Any], owner: str, now: datetime, lease: timedelta, *, limit: int, further: Sequence[Any] = ()
    ) -> list[Job]:
        """Claim the first that are ``due``, as far as ``further`` holds for them."""
        chosen = (
            select(JobRow.id)
            .where(*due)
            .order_by(_UNSENT, col(JobRow.priority).desc(), col(JobRow.created_at))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        which, begun = col(JobRow.id).in_(chosen.scalar_subquery()), {"started_at": now, "finished_at": None}
        state, until = JobState.RUNNING.value, now + lease
        rows = claim(self._session, JobRow, which, *further, state=state, owner=owner, until=until, **begun)
        return [_job(row) for row in rows]

    def update(self, before: Job, after: Job) -> None:
        """Compare and set on state, attempt and owner.

        Raises:
            LostLease: somebody else moved the job meanwhile.
        """
        statement = self._same(before).values(**{k: v for k, v in _columns(after).items() if k != "id"})
        if run(self._session, statement) != 1:
            raise LostLease(f"job {before.id} is no longer {before.state.value} in attempt {before.attempt}")

    def heartbeat(self, job: Job, *, now: datetime, lease: timedelta) -> None:
        """Prolong the lease.

        Raises:
            LostLease: the job is not ours any more.
        """
        if run(self._session, self._same(job).values(lease_until=now + lease)) != 1:
            raise LostLease(f"job {job.id} is no longer held by {job.owner}")

    def _same(self, job: Job) -> Any:
        return update(JobRow).where(
            col(JobRow.id) == job.id,
            col(JobRow.state) == job.state.value,
            col(JobRow.attempt) == job.attempt,
            col(JobRow.owner).is_not_distinct_from(job.owner),
        )

    def unnoticed(self, *, limit: int = 100) -> list[Job]:
        """Refused and dead jobs that are not marked, the oldest first."""
        ended = col(JobRow.state).in_([JobState.REFUSED.value, JobState.DEAD.value])
        chosen = select(JobRow).where(~col(JobRow.noticed), ended).order_by(col(JobRow.created_at)).limit(limit)
        return [_job(row) for row in self._session.exec(chosen)]

    def mark_noticed(self, job: Job) -> bool:
        """Compare and set on the mark, the state and the attempt."""
        return run(self._session, self._same(job).where(~col(JobRow.noticed)).values(noticed=True)) == 1

    def owned(self) -> list[Job]:
        """Running jobs, whoever runs them."""
        return self._where(col(JobRow.state) == JobState.RUNNING.value)

    def of_study(self, study_uid: str) -> list[Job]:
        """All jobs of a study, the oldest first."""
        return self._where(col(JobRow.study_uid) == study_uid)

    def of_model(self, model: ModelVersion, *, since: datetime | None = None, unfinished: bool = False) -> list[Job]:
        """Jobs of one version: those created since then, those that are queued or running, or all."""
        conditions: list[Any] = [JobRow.pipeline == model.name, JobRow.model_digest == model.digest]
        if since is not None:
            conditions.append(col(JobRow.created_at) >= since)
        if unfinished:
            conditions.append(col(JobRow.state).in_([JobState.QUEUED.value, JobState.RUNNING.value]))
        return self._where(*conditions)

    def _where(self, *conditions: Any) -> list[Job]:
        return [_job(r) for r in self._session.exec(select(JobRow).where(*conditions).order_by(col(JobRow.created_at)))]

    def latest(self, *, limit: int = 100, state: JobState | None = None) -> list[Job]:
        """The latest jobs."""
        chosen = select(JobRow).order_by(col(JobRow.created_at).desc()).limit(limit)
        if state is not None:
            chosen = chosen.where(JobRow.state == state.value)
        return [_job(row) for row in self._session.exec(chosen)]

    def counts(self) -> dict[JobState, int]:
        """Number of jobs by state."""
        chosen = select(JobRow.state, func.count()).group_by(JobRow.state)
        return {JobState(state): number for state, number in self._session.exec(chosen)}
