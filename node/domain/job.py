"""One run of one model version over one revision of one study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from node.domain.model import ModelVersion, Qualification
from node.domain.priority import Priority
from node.domain.profile import FULL, Profile
from node.domain.study import StudyContent


class Role(StrEnum):
    """Why a version runs on a study: the rollout chose it, or a person asked for it."""

    CHAMPION = "champion"
    CANARY = "canary"
    SHADOW = "shadow"
    CONTROL = "control"  # the champion, beside a canary, so that the two can be compared
    REPLAY = "replay"


UNSENT = frozenset({Role.SHADOW, Role.CONTROL})  # stored and compared; no result of theirs ever leaves the node


class JobState(StrEnum):
    """Where a job stands. ``REFUSED`` is an answer ("not for this model"), ``DEAD`` waits for a person."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    DEAD = "dead"
    CANCELLED = "cancelled"


class JobStep(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    REFUSE = "refuse"
    RETRY = "retry"
    LEASE_EXPIRED = "lease expired"
    GIVE_UP = "give up"
    CANCEL = "cancel"
    REQUEUE = "requeue"
    DISMISS = "dismiss"  # a person has looked at it, and nothing more is to be done


JOB: Mapping[JobState, Mapping[JobStep, JobState]] = {
    JobState.QUEUED: {JobStep.CLAIM: JobState.RUNNING, JobStep.CANCEL: JobState.CANCELLED},
    JobState.RUNNING: {
        JobStep.SUCCEED: JobState.SUCCEEDED,
        JobStep.REFUSE: JobState.REFUSED,
        JobStep.RETRY: JobState.QUEUED,
        JobStep.LEASE_EXPIRED: JobState.QUEUED,
        JobStep.GIVE_UP: JobState.DEAD,
        JobStep.CANCEL: JobState.CANCELLED,
    },
    JobState.SUCCEEDED: {},
    JobState.REFUSED: {},
    JobState.DEAD: {JobStep.REQUEUE: JobState.QUEUED, JobStep.DISMISS: JobState.CANCELLED},
    JobState.CANCELLED: {},
}


@dataclass(frozen=True)
class Job:
    """One row of the job table. ``attempt`` is counted at claim, so a study that kills its process comes to an end.

    ``noticed``: it has ended without results, and whoever is to be told of that is owed a notice, or nobody is.

    A job in an unsent role has no destinations, and cannot be made with one: deliveries come from ``send_to`` alone.
    """

    id: str
    study_uid: str
    revision: int
    route: str
    model: ModelVersion
    send_to: tuple[str, ...]
    state: JobState
    attempt: int
    created_at: datetime
    not_before: datetime
    owner: str | None = None
    lease_until: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str | None = None
    findings: Mapping[str, Any] | None = None
    timings: Mapping[str, float] | None = None
    priority: Priority = Priority.ROUTINE
    role: Role = Role.CHAMPION
    noticed: bool = False

    def __post_init__(self) -> None:
        if self.role in UNSENT and self.send_to:
            raise ValueError(f"a {self.role.value} job is never sent, not to {', '.join(self.send_to)}")


@dataclass(frozen=True)
class Hold:
    """Jobs that wait a little for others: of versions with these digests, created after that time."""

    digests: frozenset[str]
    since: datetime


@dataclass(frozen=True)
class Provenance:
    """Who made a result: written into every object that leaves the node.

    ``started_at`` is aware and becomes ContentDate/Time. ``node_uid`` identifies this installation; with the model's
    name, version and digest it gives the DeviceUID of the algorithm.
    """

    job_id: str
    model: ModelVersion
    qualification: Qualification
    started_at: datetime
    node_name: str
    node_uid: str
    node_version: str
    revision: int = 1


@dataclass(frozen=True)
class ResultReference:
    """A result that left the node. ``path`` is where it lies here, None where it does not any more."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path | None = field(default=None, compare=False)


@dataclass(frozen=True)
class JobInput:
    """All that a worker needs: no database session, no credentials.

    ``version_dir`` is where a registered version lies, None for an installed one; ``trust_code`` allows its own code.
    The results are written once for each of ``profiles``. ``supersedes`` are, by name of the profile, the results that
    these replace, in the order in which they were sent. ``identity`` is a later header of an instance that was read,
    whose patient and study are to be believed instead.
    """

    provenance: Provenance
    study: StudyContent
    device: str
    out_dir: Path
    version_dir: Path | None = None
    trust_code: bool = False
    profiles: tuple[Profile, ...] = (FULL,)
    supersedes: Mapping[str, tuple[ResultReference, ...]] = field(default_factory=dict)
    identity: Path | None = None


@dataclass(frozen=True)
class ResultFile:
    """A result object that was written, read back and checked. ``path`` is absolute.

    ``rejects``: it withdraws earlier results, and may be sent only when all others of its set are there.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    path: Path
    profile: str = FULL.name
    rejects: bool = False


class Outcome(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class JobOutput:
    """What a run returns. ``results`` is in sending order: what others refer to first, then the SR, what rejects last.

    ``findings`` is the summary for the job row (JSON types only); ``timings`` are seconds by stage; ``inputs`` maps
    SOPInstanceUID to digest for what was read. ``problems`` is what the check found: then the objects lie in the job's
    directory, and none is a result. ``model_failed``: the version itself could not be verified or loaded, so
    that no study will do better. ``batches``: it takes several studies at once.
    """

    outcome: Outcome
    reason: str | None = None
    retry: bool = False
    results: tuple[ResultFile, ...] = ()
    findings: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    model_failed: bool = False
    batches: bool = False
