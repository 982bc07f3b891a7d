"""What the API needs of the node, handed in once; no global is read anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Query, Request

from node.domain.model import ModelVersion
from node.domain.route import Route
from node.services.queries import Queries
from node.services.requeue import Requeue


@dataclass(frozen=True)
class InstalledPipeline:
    """A pipeline by its name: its model, or why it is unavailable."""

    name: str
    model: ModelVersion | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class AdminServices:
    """Everything that the API calls.

    ``token`` is the bearer token that every request needs. ``readiness`` gives the reasons why the node is not ready,
    none when it is. ``metrics`` renders the Prometheus text format.
    """

    queries: Queries
    requeue: Requeue
    routes: Sequence[Route]
    models: Callable[[], Sequence[InstalledPipeline]]
    metrics: Callable[[], bytes]
    readiness: Callable[[], Sequence[str]]
    version: str
    token: str = field(repr=False)


def _services(request: Request) -> AdminServices:
    services = request.app.state.services
    assert isinstance(services, AdminServices)
    return services


Services = Annotated[AdminServices, Depends(_services)]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many, the latest first.")]
