"""The installed pipelines and their model versions."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from admin_api.deps import InstalledPipeline, Services
from admin_api.schemas import PipelineOut

router = APIRouter(tags=["models"])


@router.get("/models", response_model=list[PipelineOut], summary="Pipelines and their model versions")
def models(services: Services) -> Sequence[InstalledPipeline]:
    """A pipeline that cannot be loaded says exactly why."""
    return services.models()
