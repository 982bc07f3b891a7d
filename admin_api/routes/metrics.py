"""Prometheus metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from admin_api.deps import Services
from node.observe.metrics import CONTENT_TYPE

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    response_class=Response,
    summary="Metrics for Prometheus",
    responses={200: {"content": {"text/plain": {}}}},
)
def metrics(services: Services) -> Response:
    """In the text format; set the token under `authorization` in the scrape configuration."""
    return Response(services.metrics(), media_type=CONTENT_TYPE)
