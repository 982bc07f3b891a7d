"""One database: opening it, bringing its schema up to date, and the unit of work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib.resources import files
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlmodel import Session

from node.domain.errors import InvalidSettings, Unavailable
from node.repositories import UnitOfWork
from node.store.asked_commitments import AskedCommitmentRepository
from node.store.circuits import CircuitRepository
from node.store.commitments import CommitmentRepository
from node.store.deliveries import DeliveryRepository
from node.store.instances import InstanceRepository
from node.store.jobs import JobRepository
from node.store.journal import JournalRepository
from node.store.manifests import ManifestRepository
from node.store.models import (
    AuditRepository,
    ComparisonRepository,
    RolloutRepository,
    TrialRepository,
    VersionRepository,
)
from node.store.retention import RetentionRepository
from node.store.studies import StudyRepository

SCHEMA = "0009"  # the newest migration; compared before Alembic is imported, which keeps start-up short
_BUSY_SECONDS = 30

# How SQLite begins a transaction. FULL: what was committed survives a power cut.
_BEGIN_WRITE = ("PRAGMA synchronous=FULL", "BEGIN IMMEDIATE")
_BEGIN_UNSYNCED = ("PRAGMA synchronous=NORMAL", "BEGIN IMMEDIATE")
_BEGIN_READ = ("BEGIN",)


class SqlUnitOfWork:
    """One transaction over one session; implements ``node.repositories.UnitOfWork``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def instances(self) -> InstanceRepository:
        """The index of kept instances."""
        return InstanceRepository(self._session)

    @cached_property
    def studies(self) -> StudyRepository:
        """The assemblies."""
        return StudyRepository(self._session)

    @cached_property
    def jobs(self) -> JobRepository:
        """The job table."""
        return JobRepository(self._session)

    @cached_property
    def deliveries(self) -> DeliveryRepository:
        """The outbox."""
        return DeliveryRepository(self._session)

    @cached_property
    def circuits(self) -> CircuitRepository:
        """Which peers answer."""
        return CircuitRepository(self._session)

    @cached_property
    def commitments(self) -> CommitmentRepository:
        """Storage commitments that peers asked for."""
        return CommitmentRepository(self._session)

    @cached_property
    def asked_commitments(self) -> AskedCommitmentRepository:
        """Storage commitments that we ask peers for."""
        return AskedCommitmentRepository(self._session)

    @cached_property
    def manifests(self) -> ManifestRepository:
        """What peers say that studies consist of."""
        return ManifestRepository(self._session)

    @cached_property
    def retention(self) -> RetentionRepository:
        """What is old enough to be removed."""
        return RetentionRepository(self._session)

    @cached_property
    def journal(self) -> JournalRepository:
        """Events and decisions."""
        return JournalRepository(self._session)

    @cached_property
    def versions(self) -> VersionRepository:
        """The model versions."""
        return VersionRepository(self._session)

    @cached_property
    def rollouts(self) -> RolloutRepository:
        """The pointers to them."""
        return RolloutRepository(self._session)

    @cached_property
    def trials(self) -> TrialRepository:
        """Gates to be passed."""
        return TrialRepository(self._session)

    @cached_property
    def comparisons(self) -> ComparisonRepository:
        """Versions beside the champion."""
        return ComparisonRepository(self._session)

    @cached_property
    def audit(self) -> AuditRepository:
        """Who changed what about the models."""
        return AuditRepository(self._session)


class Database:
    """A database by its SQLAlchemy URL (SQLite or PostgreSQL).

    Raises:
        Unavailable: the driver of that database is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _sqlite(url) if url.startswith("sqlite") else _other(url)

    def prepare(self, *, apart: bool = False) -> None:
        """Bring the schema up to date.

        Args:
            apart: in a fork, for a process that goes on for months: Alembic stays in memory once it was imported. There
                must be no other thread yet.

        Raises:
            InvalidSettings: the database was written by a newer version of the node.
        """
        with self._engine.connect() as connection:
            found = _schema_of(connection)
        if found == SCHEMA:
            return
        if found is not None and found > SCHEMA:
            raise InvalidSettings(
                "database.url",
                f"has the schema {found}, newer than this version's {SCHEMA}",
                "Install the newer version",
            )
        if not (apart and self._migrated_apart()):
            _migrate(self._engine)

    def _migrated_apart(self) -> bool:
        """Whether a fork has done it; why it could not is found by doing it here."""
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(Exception):
                self._engine.dispose(close=False)  # the connections belong to the parent
                _migrate(self._engine)
                code = 0
            os._exit(code)
        return os.waitpid(child, 0)[1] == 0

    @contextmanager
    def write(self) -> Iterator[UnitOfWork]:
        """A transaction that writes; on SQLite the write lock is taken at the start, so it never fails half-way."""
        with self._session(_BEGIN_WRITE) as session:
            yield SqlUnitOfWork(session)
            session.commit()

    @contextmanager
    def write_unsynced(self) -> Iterator[UnitOfWork]:
        """As ``write``, without waiting for the disk: it survives the end of the process, but a power cut only once a
        later ``write`` has ended. Others see it at once, and what comes after it is never kept without it."""
        with self._session(_BEGIN_UNSYNCED) as session:
            if session.get_bind().dialect.name == "postgresql":
                session.execute(text("SET LOCAL synchronous_commit = off"))
            yield SqlUnitOfWork(session)
            session.commit()

    @contextmanager
    def read(self) -> Iterator[UnitOfWork]:
        """A transaction that only reads."""
        with self._session(_BEGIN_READ) as session:
            yield SqlUnitOfWork(session)

    @contextmanager
    def _session(self, begin: Sequence[str]) -> Iterator[Session]:
        with self._engine.connect() as connection:
            bound = connection.execution_options(ainode_begin=begin)
            with Session(bound, expire_on_commit=False, autoflush=False) as session:
                yield session

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _open(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions: _begin does
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        for statement in connection.get_execution_options().get("ainode_begin", _BEGIN_WRITE):
            connection.exec_driver_sql(statement)

    return engine


def _other(url: str) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise Unavailable(f"database.url needs the module {error.name!r}: install ainode[postgres]") from None


def _schema_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("node.store.migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
