"""The tables. One class a table; the domain types never appear here, only what a column can hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Dialect, Float, Index, Integer, String, Text, TypeDecorator
from sqlmodel import Field, SQLModel


class UtcTime(TypeDecorator[datetime]):
    """An aware time, kept as seconds since 1970 in UTC: exact to the microsecond and the same in every database."""

    impl = Float(53)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:
        """Store; a naive time is a mistake in the node and raises."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time must not reach the database")
        return value.timestamp()

    def process_result_value(self, value: float | None, dialect: Dialect) -> datetime | None:
        """Load as an aware time in UTC."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


def _time(*, nullable: bool = False, index: bool = False) -> Any:
    return Field(sa_column=Column(UtcTime, nullable=nullable, index=index))


def _json() -> Any:
    return Field(sa_column=Column(JSON, nullable=True))


def _text() -> Any:
    return Field(default=None, sa_column=Column(Text, nullable=True))


class InstanceRow(SQLModel, table=True):
    """A kept instance."""

    __tablename__ = "instance"

    sop_instance_uid: str = Field(sa_column=Column(String(64), primary_key=True))
    sop_class_uid: str
    study_uid: str = Field(index=True)
    series_uid: str = Field(index=True)
    transfer_syntax_uid: str
    digest: str
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    path: str = Field(unique=True)
    origin: str
    at: datetime = _time()
    peer: str | None = None
    job_id: str | None = Field(default=None, index=True)
    revision: int = 0


class AsideRow(SQLModel, table=True):
    """An object kept aside."""

    __tablename__ = "aside"

    id: int | None = Field(default=None, primary_key=True)
    reason: str
    detail: str = Field(sa_column=Column(Text, nullable=False))
    path: str = Field(unique=True)
    at: datetime = _time()
    peer: str | None = None
    sop_instance_uid: str | None = Field(default=None, index=True)
    study_uid: str | None = Field(default=None, index=True)
    digest: str | None = None
    revision: int = 0


class StudyRow(SQLModel, table=True):
    """The assembly of a study."""

    __tablename__ = "study"
    __table_args__ = (Index("ix_study_due", "state", "settle_at"),)

    study_uid: str = Field(sa_column=Column(String(64), primary_key=True))
    state: str
    revision: int
    first_at: datetime = _time()
    last_at: datetime = _time(index=True)
    settle_at: datetime | None = _time(nullable=True)
    peer: str | None = None
    instances: int = 0


class JobRow(SQLModel, table=True):
    """One run of one model version over one study revision."""

    __tablename__ = "job"
    __table_args__ = (Index("ix_job_due", "state", "not_before"), Index("ix_job_noticed", "noticed", "state"))

    id: str = Field(sa_column=Column(String(36), primary_key=True))
    study_uid: str = Field(index=True)
    revision: int
    route: str
    pipeline: str
    model_version: str
    model_digest: str
    model_title: str = ""
    send_to: list[str] = Field(sa_column=Column(JSON, nullable=False))
    state: str
    attempt: int
    created_at: datetime = _time()
    not_before: datetime = _time()
    owner: str | None = None
    lease_until: datetime | None = _time(nullable=True)
    started_at: datetime | None = _time(nullable=True)
    finished_at: datetime | None = _time(nullable=True)
    reason: str | None = _text()
    findings: dict[str, Any] | None = _json()
    timings: dict[str, float] | None = _json()
    role: str
    priority: int
    noticed: bool = False


class DeliveryRow(SQLModel, table=True):
    """One instance owed to one peer."""

    __tablename__ = "delivery"
    __table_args__ = (
        Index("ix_delivery_due", "peer", "state", "not_before"),
        Index("ux_delivery", "sop_instance_uid", "peer", unique=True),
        Index("ix_delivery_verify", "peer", "state", "verify_at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(index=True)
    study_uid: str = Field(index=True)
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    peer: str
    state: str
    attempt: int
    position: int
    created_at: datetime = _time()
    not_before: datetime = _time()
    owner: str | None = None
    lease_until: datetime | None = _time(nullable=True)
    delivered_at: datetime | None = _time(nullable=True)
    status: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))
    reason: str | None = _text()
    priority: int = 0
    closes: bool = False
    verify_at: datetime | None = _time(nullable=True)
    transaction_uid: str | None = Field(default=None, index=True)
    missing: int = 0
    refusals: int = 0
    rejects: bool = False


class CircuitRow(SQLModel, table=True):
    """Whether a peer answers."""

    __tablename__ = "circuit"

    peer: str = Field(primary_key=True)
    state: str
    since: datetime = _time()
    failures: int = 0
    probe_at: datetime | None = _time(nullable=True)
    reason: str | None = _text()


class EventRow(SQLModel, table=True):
    """What happened."""

    __tablename__ = "event"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = _time()
    subject: str
    subject_id: str
    study_uid: str | None = Field(default=None, index=True)
    step: str
    from_state: str | None = None
    to_state: str | None = None
    actor: str | None = None
    detail: dict[str, Any] | None = _json()


class DecisionRow(SQLModel, table=True):
    """What one route said of one study revision."""

    __tablename__ = "decision"

    id: int | None = Field(default=None, primary_key=True)
    study_uid: str = Field(index=True)
    revision: int
    route: str
    matched: bool
    reason: str = Field(sa_column=Column(Text, nullable=False))
    at: datetime = _time()
    job_id: str | None = None


class CommitmentRow(SQLModel, table=True):
    """A storage commitment that a peer asked for; ``references`` are pairs of SOP class and instance UID."""

    __tablename__ = "commitment"
    __table_args__ = (Index("ix_commitment_due", "state", "due_at"),)

    id: int | None = Field(default=None, primary_key=True)
    transaction_uid: str = Field(index=True)
    peer: str
    references: list[list[str]] = Field(sa_column=Column("named", JSON, nullable=False))
    state: str
    asked_at: datetime = _time()
    due_at: datetime = _time()
    failures: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    attempt: int = 0
    owner: str | None = None
    lease_until: datetime | None = _time(nullable=True)
    reason: str | None = _text()


class AskedCommitmentRow(SQLModel, table=True):
    """A storage commitment that we ask a peer for; ``instances`` are attempts by the ids of deliveries."""

    __tablename__ = "asked_commitment"

    transaction_uid: str = Field(sa_column=Column(String(64), primary_key=True))
    peer: str
    study_uid: str
    instances: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    number: int
    asked_at: datetime = _time()
    accepted_at: datetime | None = _time(nullable=True)
    reported_at: datetime | None = _time(nullable=True)


class ManifestRow(SQLModel, table=True):
    """What one message of a peer says of one study."""

    __tablename__ = "manifest"
    __table_args__ = (Index("ix_manifest_uid", "kind", "uid"),)

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    uid: str
    study_uid: str | None = Field(default=None, index=True)
    peer: str
    at: datetime = _time(index=True)
    state: str


class ManifestInstanceRow(SQLModel, table=True):
    """An instance that a manifest names."""

    __tablename__ = "manifest_instance"

    manifest_id: int = Field(foreign_key="manifest.id", primary_key=True)
    sop_instance_uid: str = Field(sa_column=Column(String(64), primary_key=True, index=True))


class RemovalRow(SQLModel, table=True):
    """Files on their way out: a folder of the trash."""

    __tablename__ = "removal"

    name: str = Field(sa_column=Column(String(100), primary_key=True))
    study_uid: str
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = _time()


class PrunedRow(SQLModel, table=True):
    """How much was removed so far."""

    __tablename__ = "pruned"

    kind: str = Field(sa_column=Column(String(20), primary_key=True))
    number: int = Field(sa_column=Column(BigInteger, nullable=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = _time()


class VersionRow(SQLModel, table=True):
    """A model version that the node knows."""

    __tablename__ = "model_version"

    name: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    version: str
    title: str
    kind: str
    state: str
    source: str
    added_at: datetime = _time()
    path: str | None = None
    trusted: bool
    reason: str | None = _text()


class RolloutRow(SQLModel, table=True):
    """The pointers of one model name. Versions are kept as they were named, not as references."""

    __tablename__ = "rollout"

    name: str = Field(primary_key=True)
    number: int
    champion: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    previous: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    canary: dict[str, Any] | None = Field(sa_column=Column(JSON(none_as_null=True), nullable=True))
    shadows: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    problem: str | None = _text()


class TrialRow(SQLModel, table=True):
    """A gate to be passed."""

    __tablename__ = "trial"

    id: str = Field(sa_column=Column(String(36), primary_key=True))
    model: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    wish: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    who: str
    why: str = Field(sa_column=Column(Text, nullable=False))
    state: str = Field(index=True)
    attempt: int
    created_at: datetime = _time()
    owner: str | None = None
    lease_until: datetime | None = _time(nullable=True)
    finished_at: datetime | None = _time(nullable=True)
    device: str | None = None
    reason: str | None = _text()
    stages: dict[str, float] | None = _json()


class ComparisonRow(SQLModel, table=True):
    """One study under the champion and under another version."""

    __tablename__ = "comparison"
    __table_args__ = (Index("ix_comparison_version", "name", "model_digest", "at"),)

    job: str = Field(sa_column=Column(String(36), primary_key=True))
    name: str
    study_uid: str = Field(index=True)
    revision: int
    champion: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    champion_job: str
    champion_state: str
    model: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    model_digest: str
    state: str
    role: str
    differences: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    disagreement: float
    at: datetime = _time()


class AuditRow(SQLModel, table=True):
    """Who changed what about the models, and why. The database itself refuses to change or remove a row."""

    __tablename__ = "audit"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = _time()
    who: str
    change: str
    name: str = Field(index=True)
    version: str
    digest: str
    title: str
    why: str = Field(sa_column=Column(Text, nullable=False))
    detail: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
