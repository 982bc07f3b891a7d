"""The job table: claimed by lease, moved by compare-and-set."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, func, select, update

from node.domain.errors import LostLease
from node.domain.job import UNSENT, Job, JobState, Role
from node.domain.model import ModelVersion
from node.domain.priority import Priority
from node.store.rows import build, run, values
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


class JobRepository:
    """Implements ``node.ports.Jobs``."""

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

    def claim(self, *, owner: str, now: datetime, lease: timedelta, untried: bool = False) -> Job | None:
        """Take the queued job that is due and comes first: those whose results nobody waits for last, then the most
        urgent, then the oldest. The attempt is counted here, so that a job that kills its process comes to an end too.
        """
        unsent = col(JobRow.role).in_([role.value for role in UNSENT])
        chosen = (
            select(JobRow.id)
            .where(JobRow.state == JobState.QUEUED.value, col(JobRow.not_before) <= now)
            .order_by(unsent, col(JobRow.priority).desc(), col(JobRow.created_at))
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(JobRow)
            .where(col(JobRow.id).in_(chosen.scalar_subquery()), *([col(JobRow.attempt) == 0] if untried else []))
            .values(
                state=JobState.RUNNING.value,
                attempt=col(JobRow.attempt) + 1,
                owner=owner,
                lease_until=now + lease,
                started_at=now,
                finished_at=None,
            )
            .returning(JobRow)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        row = self._session.execute(statement).scalars().first()
        return None if row is None else _job(row)

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
