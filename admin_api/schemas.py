"""The answers of the API, typed for OpenAPI. Field names are those of the domain; times are in UTC."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from node.domain.circuit import CircuitState
from node.domain.delivery import DeliveryState
from node.domain.events import Subject
from node.domain.instance import AsideReason
from node.domain.job import JobState, Role
from node.domain.peer import Verify
from node.domain.priority import Priority
from node.domain.retention import Kind
from node.domain.route import Operator
from node.domain.study import StudyState


class Schema(BaseModel):
    """Read from the domain object of the same fields."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class ErrorOut(Schema):
    """What was wrong, and what would mend it."""

    field: str | None
    problem: str
    fix: str


class ErrorAnswer(Schema):
    """The body of every answer from 400 on."""

    error: ErrorOut


class HealthOut(Schema):
    """The API answers."""

    status: str


class ReadyOut(Schema):
    """Whether the node can do its work, and why not."""

    ready: bool
    problems: list[str]


class CircuitOut(Schema):
    """Whether a peer answers: one that is open is only probed."""

    peer: str
    state: CircuitState
    since: datetime
    failures: Annotated[int, Field(description="In a row, failed probes too.")]
    probe_at: Annotated[datetime | None, Field(description="When it is probed next.")]
    reason: Annotated[str | None, Field(description="What the last failure was.")]


class PeerOut(Schema):
    """A peer and its part of the outbox."""

    name: str
    ae_title: Annotated[str | None, Field(description="null: no longer configured")]
    host: str | None
    port: int | None
    receive: bool
    send: bool
    deliveries: dict[DeliveryState, int]
    oldest_pending_seconds: Annotated[float | None, Field(description="Age of the delivery that waits longest.")]
    verify: Annotated[Verify, Field(description="How it is proved that the peer has what it was sent.")]
    unverified: Annotated[int, Field(description="Instances that were delivered and are to be verified.")]
    oldest_unverified_seconds: Annotated[float | None, Field(description="Time since the first of them was delivered.")]
    circuit: Annotated[CircuitOut | None, Field(description="null: it never failed to answer")]


class StatusOut(Schema):
    """The node at one moment."""

    at: datetime
    version: str
    ae_title: str
    started_at: datetime
    uptime_seconds: float
    ready: bool
    problems: list[str]
    studies: dict[StudyState, int]
    jobs: dict[JobState, int]
    deliveries: dict[DeliveryState, int]
    peers: list[PeerOut]
    instances: Annotated[int, Field(description="Instances that are kept, results too.")]
    asides: Annotated[int, Field(description="Objects that lie aside for a person to look at.")]
    free_bytes: int


class StudyOut(Schema):
    """A study as the node knows it."""

    study_uid: str
    state: StudyState
    revision: int
    first_at: datetime
    last_at: datetime
    settle_at: Annotated[datetime | None, Field(description="When the quiet time is over, while receiving.")]
    peer: Annotated[str | None, Field(description="Calling AE title of the latest instances.")]
    instances: int


class SeriesOut(Schema):
    """The received instances of one series; size in bytes."""

    series_uid: str
    instances: int
    size: int


class ModelOut(Schema):
    """An immutable model version; digest is a SHA-256 in hex."""

    name: str
    version: str
    digest: str
    title: str


class JobOut(Schema):
    """One run of one model version over one revision of one study."""

    id: str
    study_uid: str
    revision: int
    route: str
    model: ModelOut
    send_to: list[str]
    state: JobState
    attempt: int
    created_at: datetime
    not_before: datetime
    owner: str | None
    lease_until: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    reason: Annotated[str | None, Field(description="Why it was refused, failed or is waiting to be run again.")]
    findings: dict[str, Any] | None
    timings: Annotated[dict[str, float] | None, Field(description="Seconds by stage.")]
    priority: Annotated[Priority, Field(description="0 routine, 1 high, 2 STAT: the most urgent is run first.")]
    role: Annotated[Role, Field(description="Results of a shadow or control are never sent.")]
    noticed: Annotated[bool, Field(description="It ended without results, and a notice of that is owed where one is.")]


class DeliveryOut(Schema):
    """One instance owed to one peer."""

    id: int
    job_id: str
    study_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Annotated[str, Field(description="Relative to the data directory.")]
    peer: str
    state: DeliveryState
    attempt: int
    position: Annotated[int, Field(description="Sending order within the job.")]
    created_at: datetime
    not_before: datetime
    owner: str | None
    lease_until: datetime | None
    delivered_at: datetime | None
    status: Annotated[int | None, Field(description="The peer's last C-STORE status (PS3.4 B.2.3).")]
    reason: str | None
    priority: Annotated[Priority, Field(description="0 routine, 1 high, 2 STAT: the most urgent is sent first.")]
    closes: Annotated[bool, Field(description="It ties the others of its job together and goes after them.")]
    rejects: Annotated[bool, Field(description="It withdraws earlier results, when all others of its job are there.")]
    verify_at: Annotated[datetime | None, Field(description="When the peer is asked (again) whether it has it.")]
    transaction_uid: Annotated[str | None, Field(description="The storage commitment that was asked for it.")]
    missing: Annotated[int, Field(description="How often the peer had answered with success and did not have it.")]
    refusals: Annotated[int, Field(description="How often it was answered in a way that seldom passes.")]


class DecisionOut(Schema):
    """What one route said of one study revision; the route '-' says that none took it."""

    study_uid: str
    revision: int
    route: str
    matched: bool
    reason: str
    at: datetime
    job_id: str | None


class AsideOut(Schema):
    """An object that was kept aside, with the reason."""

    id: int
    reason: AsideReason
    detail: str
    path: Annotated[str, Field(description="Relative to the data directory.")]
    at: datetime
    peer: str | None
    sop_instance_uid: str | None
    study_uid: str | None
    digest: str | None
    revision: Annotated[int, Field(description="The study revision that a correction came in; 0 for all others.")]


class EventOut(Schema):
    """Something that happened, written in the transaction of its step."""

    id: int
    subject: Subject
    subject_id: str
    study_uid: str | None
    step: str
    from_state: str | None
    to_state: str | None
    at: datetime
    actor: Annotated[str | None, Field(description="Who asked for it, where a person did.")]
    detail: dict[str, Any]


class StudyDetailOut(Schema):
    """All that is known of one study."""

    study: StudyOut
    series: list[SeriesOut]
    decisions: list[DecisionOut]
    jobs: list[JobOut]
    deliveries: list[DeliveryOut]
    asides: list[AsideOut]
    timeline: list[EventOut]


class ConditionOut(Schema):
    """One line of a route's ``when``."""

    keyword: str
    operator: Operator
    operands: list[str]


class RouteOut(Schema):
    """A route, as configured."""

    name: str
    when: list[ConditionOut]
    pipeline: str
    send_to: list[str]


class PipelineOut(Schema):
    """An installed pipeline: its model, or why it is unavailable."""

    name: str
    model: ModelOut | None
    unavailable: str | None


class KeepOut(Schema):
    """For how long what the node holds is kept, as ISO 8601 durations; null is for ever."""

    studies: timedelta | None
    aside: timedelta | None
    quarantine: timedelta | None
    history: timedelta | None


class AmountOut(Schema):
    """How many, and the bytes of their files."""

    number: int
    size: int


class QuarantinedRunOut(Schema):
    """What one run made that failed the check; path is relative to the data directory."""

    path: str
    job_id: str
    at: datetime
    amount: Annotated[AmountOut, Field(description="Of its files.")]


class RetentionOut(Schema):
    """What is kept, and what was removed because it was old enough."""

    keep: KeepOut
    removed: dict[Kind, AmountOut]
    oldest_study: Annotated[datetime | None, Field(description="When its last instance came.")]
    quarantine: list[QuarantinedRunOut]
