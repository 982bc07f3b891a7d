"""Jobs, and another chance for a dead one."""

from __future__ import annotations

from fastapi import APIRouter

from admin_api.auth import Actor
from admin_api.deps import Limit, Services
from admin_api.errors import NOT_DEAD, NOT_FOUND
from admin_api.schemas import JobOut
from node.domain.job import Job, JobState

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("", response_model=list[JobOut], summary="The latest jobs")
def jobs(services: Services, state: JobState | None = None, limit: Limit = 100) -> list[Job]:
    """Of one state, or of all."""
    return services.queries.jobs(limit=limit, state=state)


@router.get("/{job_id}", response_model=JobOut, summary="One job", responses=NOT_FOUND)
def job(job_id: str, services: Services) -> Job:
    """With its findings and timings."""
    return services.queries.job(job_id)


@router.post("/{job_id}/requeue", response_model=JobOut, summary="Requeue a dead job", responses=NOT_FOUND | NOT_DEAD)
def requeue(job_id: str, services: Services, actor: Actor) -> Job:
    """It gets all its attempts again."""
    return services.requeue.requeue_job(job_id, actor)


@router.post("/{job_id}/dismiss", response_model=JobOut, summary="Dismiss a dead job", responses=NOT_FOUND | NOT_DEAD)
def dismiss(job_id: str, services: Services, actor: Actor) -> Job:
    """Somebody has looked at it, and it is not to run again; nothing of its study is kept for its sake any more."""
    return services.requeue.dismiss_job(job_id, actor)
