"""The gate of a version, as work that a worker claims; and what follows when it passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from node.domain.job import Provenance, Role
from node.domain.model import ModelVersion
from node.domain.rollout import Bounds


class TrialState(StrEnum):
    """Where a trial stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


class TrialStep(StrEnum):
    """What can happen to a trial."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    LEASE_EXPIRED = "lease expired"


TRIAL: Mapping[TrialState, Mapping[TrialStep, TrialState]] = {
    TrialState.QUEUED: {TrialStep.CLAIM: TrialState.RUNNING},
    TrialState.RUNNING: {
        TrialStep.SUCCEED: TrialState.PASSED,
        TrialStep.FAIL: TrialState.FAILED,
        TrialStep.LEASE_EXPIRED: TrialState.QUEUED,
    },
    TrialState.PASSED: {},
    TrialState.FAILED: {},
}


@dataclass(frozen=True)
class Wish:
    """The role that a version gets when it passes, None for none. ``share`` and ``bounds`` are a canary's."""

    role: Role | None = None
    share: int = 0
    bounds: Bounds = field(default_factory=Bounds)
    without_golden: bool = False


@dataclass(frozen=True)
class Trial:
    """One row. ``stages`` are the seconds of what was passed; ``reason`` says what was not."""

    id: str
    model: ModelVersion
    wish: Wish
    who: str
    why: str
    state: TrialState
    attempt: int
    created_at: datetime
    owner: str | None = None
    lease_until: datetime | None = None
    finished_at: datetime | None = None
    device: str | None = None
    reason: str | None = None
    stages: Mapping[str, float] | None = None


@dataclass(frozen=True)
class TrialInput:
    """All that the process needs that tries a version; ``scratch`` is empty, for the results of the golden case."""

    provenance: Provenance
    device: str
    scratch: Path
    version_dir: Path | None
    trust_code: bool
    without_golden: bool


@dataclass(frozen=True)
class TrialOutput:
    """``reason`` is None where everything was passed. ``stages``: seconds of verify, load, warm up and golden case.

    ``model_failed``: it is the version that failed, not the means to try it. ``device``: where it was tried; ``auto``
    names none.
    """

    reason: str | None
    stages: Mapping[str, float] = field(default_factory=dict)
    model_failed: bool = False
    device: str | None = None
