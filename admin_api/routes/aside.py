"""Objects that were kept aside."""

from __future__ import annotations

from fastapi import APIRouter

from admin_api.deps import Limit, Services
from admin_api.schemas import AsideOut
from node.domain.instance import Aside

router = APIRouter(tags=["aside"])


@router.get("/aside", response_model=list[AsideOut], summary="Objects that were kept aside")
def aside(services: Services, limit: Limit = 100) -> list[Aside]:
    """Conflicts, results that came back changed, and what could not be kept as an instance."""
    return services.queries.asides(limit=limit)
