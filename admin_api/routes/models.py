"""Model versions: who runs, and every change of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path

from admin_api.auth import Actor
from admin_api.deps import InstalledPipeline, Limit, Services
from admin_api.errors import NOT_FOUND, NOT_NOW
from admin_api.model_schemas import (
    AddIn,
    AuditOut,
    CanaryIn,
    ModelStatusOut,
    Order,
    ReplayIn,
    RollbackIn,
    RolloutOut,
    TrialOut,
    TryIn,
    VersionOut,
)
from admin_api.schemas import JobOut, PipelineOut
from node.domain.audit import AuditEntry
from node.domain.job import Job, Role
from node.domain.model import KnownVersion
from node.domain.rollout import Rollout, share_of
from node.domain.trial import Trial, Wish
from node.services.models import ModelStatus
from node.services.register import Source

router = APIRouter(tags=["models"])

Version = Annotated[str, Path(description="VERSION, or the first 8 or more characters of the digest.")]
_ANSWERS = NOT_FOUND | NOT_NOW


@router.get("/pipelines", response_model=list[PipelineOut], summary="Installed pipelines")
def pipelines(services: Services) -> Sequence[InstalledPipeline]:
    """A pipeline that cannot be loaded says exactly why."""
    return services.pipelines()


@router.get("/models", response_model=list[ModelStatusOut], summary="Every model, its versions and who runs")
def models(services: Services) -> list[ModelStatus]:
    """Without comparisons and audit, which each model has of its own."""
    return services.models.all()


@router.post("/models", response_model=VersionOut, summary="Register a version", responses=_ANSWERS)
def add(order: AddIn, services: Services, actor: Actor) -> KnownVersion:
    """Its files are copied and digested. Nothing runs it yet."""
    source = Source(
        address=order.source,
        name=order.name,
        version=order.version,
        title=order.title,
        side_file=order.side_file,
        golden=order.golden,
        sha256=order.sha256,
        trusted=order.trust_code,
    )
    return services.register.add(source, who=actor, why=order.why)


@router.get("/models/{name}", response_model=ModelStatusOut, summary="One model", responses=NOT_FOUND)
def model(name: str, services: Services) -> ModelStatus:
    """How a canary or shadow compares, and what was done last."""
    return services.models.show(name)


@router.post("/models/{name}/rollback", response_model=RolloutOut, summary="Take a version back", responses=_ANSWERS)
def rollback(name: str, order: RollbackIn, services: Services, actor: Actor) -> Rollout:
    """At once. Its queued and running jobs go to the version that takes over."""
    taken = None if order.version is None else services.models.find(f"{name}@{order.version}").model
    return services.rollouts.rollback(name, model=taken, who=actor, why=order.why)


@router.post(
    "/models/{name}/{version}/verify", response_model=VersionOut, summary="Verify its files", responses=_ANSWERS
)
def verify(name: str, version: Version, services: Services) -> KnownVersion:
    """A version whose files are not those that were registered is out of use from then on."""
    return services.models.verify(f"{name}@{version}")


@router.post("/models/{name}/{version}/activate", response_model=TrialOut, summary="Make it the champion",
             status_code=202, responses=_ANSWERS)  # fmt: skip
def activate(name: str, version: Version, order: TryIn, services: Services, actor: Actor) -> Trial:
    """Once a worker has seen it pass its gate; follow the trial."""
    wish = Wish(Role.CHAMPION, without_golden=order.without_golden)
    return _request(services, name, version, wish, order, actor)


@router.post("/models/{name}/{version}/canary", response_model=TrialOut, summary="Give it a share of the studies",
             status_code=202, responses=_ANSWERS)  # fmt: skip
def canary(name: str, version: Version, order: CanaryIn, services: Services, actor: Actor) -> Trial:
    """Once it has passed its gate. Asked again with more, it keeps the studies that it had."""
    wish = Wish(Role.CANARY, share_of(order.percent), order.bounds(), order.without_golden)
    return _request(services, name, version, wish, order, actor)


@router.post("/models/{name}/{version}/shadow", response_model=TrialOut, summary="Run it unsent beside the champion",
             status_code=202, responses=_ANSWERS)  # fmt: skip
def shadow(name: str, version: Version, order: TryIn, services: Services, actor: Actor) -> Trial:
    """Once it has passed its gate. Its results are stored and compared, never sent."""
    return _request(services, name, version, Wish(Role.SHADOW, without_golden=order.without_golden), order, actor)


def _request(services: Services, name: str, version: str, wish: Wish, order: Order, actor: str) -> Trial:
    known = services.models.find(f"{name}@{version}")
    return services.rollouts.request(known.model, wish, who=actor, why=order.why)


@router.post("/models/{name}/{version}/retire", response_model=VersionOut, summary="Put it out of use",
             responses=_ANSWERS)  # fmt: skip
def retire(name: str, version: Version, order: Order, services: Services, actor: Actor) -> KnownVersion:
    """Its files stay."""
    known = services.models.find(f"{name}@{version}")
    return services.rollouts.retire(known.model, who=actor, why=order.why)


@router.get("/trials/{trial_id}", response_model=TrialOut, summary="How a gate stands", responses=NOT_FOUND)
def trial(trial_id: str, services: Services) -> Trial:
    """Queued, running, passed or failed, with the reason."""
    return services.models.trial(trial_id)


@router.get("/audit", response_model=list[AuditOut], summary="Who changed what about the models")
def audit(services: Services, limit: Limit = 100) -> list[AuditEntry]:
    """The latest first."""
    return services.models.audit(limit=limit)


@router.post("/studies/{study_uid}/replay", response_model=JobOut, summary="Run a stored study with another version",
             responses=_ANSWERS)  # fmt: skip
def replay(study_uid: str, order: ReplayIn, services: Services, actor: Actor) -> Job:
    """Its results are kept, and sent only if that is asked for."""
    known = services.models.find(order.model)
    return services.replay.replay(study_uid, known, send=order.send, who=actor, why=order.why)
