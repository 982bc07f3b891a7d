"""What the API takes and answers about models. Field names are those of the domain."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from admin_api.schemas import ModelOut, Schema
from node.domain.audit import Change
from node.domain.job import JobState, Role
from node.domain.model import VersionState
from node.domain.rollout import Bounds
from node.domain.trial import TrialState

Why = Annotated[str, Field(min_length=1, description="The reason; it is kept in the audit.")]


class Order(BaseModel):
    """What is asked for; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    why: Why


class AddIn(Order):
    """A version to be registered."""

    source: Annotated[
        str, Field(description="Directory or zip file on the node's machine, https:// address, hf:// or models:/.")
    ]
    name: str | None = None
    version: str | None = None
    title: str | None = None
    side_file: Annotated[Path | None, Field(description="The site's ainode.yaml, on the node's machine.")] = None
    golden: Annotated[Path | None, Field(description="A folder with input/ and expected.json.")] = None
    sha256: Annotated[str | None, Field(description="Of the zip file, or of all files; needed with an address.")] = None
    trust_code: bool = False


class TryIn(Order):
    """A role for a version, given once it has passed its gate."""

    without_golden: Annotated[bool, Field(description="Let a version without a golden case pass.")] = False


class CanaryIn(TryIn):
    """A share of the studies, and when to stop."""

    percent: Annotated[str, Field(description="0.01 to 100.", examples=["5"])]
    after: int = 10
    errors: float = 0.05
    slowdown: float = 2.0
    disagreement: float = 0.2

    def bounds(self) -> Bounds:
        """When the canary is stopped.

        Raises:
            InvalidInput: one is out of range.
        """
        return Bounds(self.after, self.errors, self.slowdown, self.disagreement)


class RollbackIn(Order):
    """What to take back."""

    version: Annotated[str | None, Field(description="VERSION or DIGEST; null is the champion.")] = None


class ReplayIn(Order):
    """A stored study under another version."""

    model: Annotated[str, Field(description="NAME@VERSION")]
    send: bool = False


class VersionOut(Schema):
    """A version that the node knows."""

    model: ModelOut
    kind: str
    state: VersionState
    source: str
    added_at: datetime
    path: Annotated[str | None, Field(description="Relative to the data directory; null: installed.")]
    trusted: bool
    reason: str | None


class BoundsOut(Schema):
    """When a canary is stopped."""

    after: int
    errors: float
    slowdown: float
    disagreement: float


class CanaryOut(Schema):
    """A version that gets a share of the studies, in ten-thousandths."""

    model: ModelOut
    share: int
    since: datetime
    bounds: BoundsOut


class RolloutOut(Schema):
    """Who runs."""

    name: str
    champion: ModelOut
    previous: list[ModelOut]
    canary: CanaryOut | None
    shadows: list[ModelOut]
    problem: str | None
    number: int


class FiguresOut(Schema):
    """How a canary does beside the champion."""

    jobs: int
    failed: int
    timed: int
    seconds: float | None
    champion_seconds: float | None
    compared: int
    disagreement: float | None


class DifferenceOut(Schema):
    """One statement that differs."""

    region: str
    key: str
    champion: float | str | None
    other: float | str | None
    relative: float


class ComparisonOut(Schema):
    """One study under the champion and under another version."""

    name: str
    study_uid: str
    revision: int
    champion: ModelOut
    champion_job: str
    champion_state: JobState
    model: ModelOut
    job: str
    state: JobState
    role: Role
    differences: list[DifferenceOut]
    disagreement: float
    at: datetime


class AuditOut(Schema):
    """Who changed what about the models, when and why."""

    at: datetime
    who: str
    change: Change
    model: ModelOut
    why: str
    detail: dict[str, Any]
    id: int


class ModelStatusOut(Schema):
    """All that is known of one model name."""

    name: str
    rollout: RolloutOut | None
    versions: list[VersionOut]
    figures: FiguresOut | None
    comparisons: list[ComparisonOut]
    audit: list[AuditOut]


class WishOut(Schema):
    """The role that follows when the version passes."""

    role: Role | None
    share: int
    bounds: BoundsOut
    without_golden: bool


class TrialOut(Schema):
    """A gate: queued, running, or how it ended."""

    id: str
    model: ModelOut
    wish: WishOut
    who: str
    why: str
    state: TrialState
    attempt: int
    created_at: datetime
    owner: str | None
    lease_until: datetime | None
    finished_at: datetime | None
    device: str | None
    reason: str | None
    stages: Annotated[dict[str, float] | None, Field(description="Seconds of what was passed.")]
