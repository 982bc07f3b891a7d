"""Whether the node lives, whether it is ready, and what it holds."""

from __future__ import annotations

from fastapi import APIRouter, Response

from admin_api.deps import Limit, Services
from admin_api.schemas import EventOut, HealthOut, ReadyOut, RetentionOut, StatusOut
from node.domain.events import Event
from node.services.prune import Retained
from node.services.queries import NodeStatus

probes = APIRouter(tags=["probes"])
router = APIRouter(tags=["status"])


@probes.get("/healthz", response_model=HealthOut, summary="The API answers")
def healthz() -> dict[str, str]:
    """Open: needs no token."""
    return {"status": "ok"}


@probes.get(
    "/readyz",
    response_model=ReadyOut,
    summary="The node can do its work",
    responses={503: {"model": ReadyOut, "description": "It cannot, and why."}},
)
def readyz(services: Services, response: Response) -> dict[str, object]:
    """Open: needs no token."""
    problems = list(services.readiness())
    if problems:
        response.status_code = 503
    return {"ready": not problems, "problems": problems}


@router.get("/status", response_model=StatusOut, summary="The node, its counts and its peers")
def status(services: Services) -> NodeStatus:
    """Every state has a count, zero too."""
    return services.queries.status()


@router.get("/events", response_model=list[EventOut], summary="What happened last")
def events(services: Services, limit: Limit = 100) -> list[Event]:
    """Of all studies, the latest first."""
    return services.queries.events(limit=limit)


@router.get("/retention", response_model=RetentionOut, summary="What is kept, and what was removed")
def retention(services: Services) -> Retained:
    """For how long, the oldest study, what was removed since the database was made, and what lies in quarantine."""
    return services.prune.retained()
