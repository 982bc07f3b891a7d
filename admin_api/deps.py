"""What the API needs of the node, handed in once; no global is read anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Query, Request

from node.domain.model import ModelVersion
from node.domain.peer import Peer
from node.domain.route import Route
from node.services.models import Models
from node.services.origins import Origins
from node.services.prune import Prune
from node.services.queries import Queries
from node.services.register import Register
from node.services.replay import Replay
from node.services.requeue import Requeue
from node.services.rollout import Rollouts
from node.services.stow import Stow


@dataclass(frozen=True)
class InstalledPipeline:
    """A pipeline by its name: its model, or why it is unavailable."""

    name: str
    model: ModelVersion | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class Dicomweb:
    """What DICOMweb needs: the peers that may store, by their tokens, from where they may, and the service.

    ``idle_seconds`` is the longest time between two pieces of a body, as long as that of an association.
    """

    stow: Stow
    origins: Origins
    tokens: Mapping[str, Peer] = field(repr=False)
    idle_seconds: float = 60.0


@dataclass(frozen=True)
class AdminServices:
    """Everything that the API calls.

    ``token`` is the bearer token that every request needs. ``readiness`` gives the reasons why the node is not ready,
    none when it is. ``metrics`` renders the Prometheus text format. ``dicomweb`` is None where nobody may store.
    """

    queries: Queries
    requeue: Requeue
    routes: Sequence[Route]
    pipelines: Callable[[], Sequence[InstalledPipeline]]
    models: Models
    rollouts: Rollouts
    register: Register
    replay: Replay
    prune: Prune
    metrics: Callable[[], bytes]
    readiness: Callable[[], Sequence[str]]
    version: str
    token: str = field(repr=False)
    dicomweb: Dicomweb | None = None


def _services(request: Request) -> AdminServices:
    services = request.app.state.services
    assert isinstance(services, AdminServices)
    return services


Services = Annotated[AdminServices, Depends(_services)]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many, the latest first.")]
