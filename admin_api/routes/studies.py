"""Studies and their timelines."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from admin_api.deps import Limit, Services
from admin_api.errors import NOT_FOUND
from admin_api.schemas import StudyDetailOut, StudyOut
from node.domain.study import Study
from node.services.queries import StudyDetail

router = APIRouter(prefix="/studies", tags=["studies"])

Before = Annotated[
    AwareDatetime | None, Query(description="Only studies whose last instance came earlier: the next page.")
]


@router.get("", response_model=list[StudyOut], summary="The latest studies")
def studies(services: Services, limit: Limit = 100, before: Before = None) -> list[Study]:
    """By their last instance."""
    return services.queries.studies(limit=limit, before=before)


@router.get("/{study_uid}", response_model=StudyDetailOut, summary="One study with its timeline", responses=NOT_FOUND)
def study(study_uid: str, services: Services) -> StudyDetail:
    """Its series, decisions, jobs, deliveries, what lies aside, and every event in order."""
    return services.queries.study(study_uid)
