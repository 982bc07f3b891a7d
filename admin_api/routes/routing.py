"""Routes as configured, and what they decided."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from admin_api.deps import Limit, Services
from admin_api.schemas import DecisionOut, RouteOut
from node.domain.route import Decision, Route

router = APIRouter(tags=["routing"])


@router.get("/routes", response_model=list[RouteOut], summary="The routes, as configured")
def routes(services: Services) -> Sequence[Route]:
    """In the order in which they are asked."""
    return services.routes


@router.get("/decisions", response_model=list[DecisionOut], summary="What the routes said last")
def decisions(services: Services, limit: Limit = 100) -> list[Decision]:
    """Every answer of every route is kept with its reason, "no" too."""
    return services.queries.decisions(limit=limit)
