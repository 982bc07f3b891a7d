"""Versions, rollouts, trials, comparisons and the audit, on every database that the store claims to serve."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from node.clock import SystemClock
from node.domain.audit import NODE, AuditEntry, Change
from node.domain.comparison import Comparison, Difference
from node.domain.errors import IllegalStep, LostLease
from node.domain.job import Job, JobState, JobStep, Role
from node.domain.model import KnownVersion, ModelVersion, VersionState
from node.domain.rollout import Bounds, Canary, Rollout
from node.domain.trial import Trial, TrialState, Wish
from node.services.oversight import Oversight
from node.services.steps import move_job
from node.store.database import Database

NOW = datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=60)
A, B, C = (ModelVersion("lung", v, v * 64, f"Lung {v}") for v in "abc")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/store.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    database = Database(url)
    database.prepare()
    yield database
    database.close()


def known(model: ModelVersion, **changes: object) -> KnownVersion:
    made = KnownVersion(model, "monai-bundle", VersionState.REGISTERED, "dir", NOW, "models/x", True, None)
    return replace(made, **changes)  # type: ignore[arg-type]


def trial(identity: str, **changes: object) -> Trial:
    wish = Wish(Role.CANARY, 500, Bounds(5, 0.1, 3.0, 0.3), True)
    made = Trial(identity, B, wish, "ann", "why", TrialState.QUEUED, 0, NOW)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_two_jobs_of_a_pair_that_end_at_the_same_instant_are_compared(database: Database) -> None:
    """The transaction of the second begins before that of the first ends, as two workers' may."""
    oversight = Oversight(database.write, SystemClock(), None)  # type: ignore[arg-type]
    send_to = {Role.CHAMPION: ("PACS",), Role.SHADOW: ()}
    jobs = [
        Job(role.value, "1.2", 1, "chest", model, send_to[role], JobState.RUNNING, 1, NOW, NOW, "me", role=role)
        for role, model in ((Role.CHAMPION, A), (Role.SHADOW, B))
    ]
    with database.write() as tx:
        for job in jobs:
            tx.jobs.add(job)

    def end(job: Job) -> None:
        with database.write() as tx:
            oversight.answered(tx, move_job(tx, job, JobStep.SUCCEED, NOW, owner=None, findings={"regions": {}}))

    second = threading.Thread(target=end, args=(jobs[1],))
    with database.write() as tx:
        oversight.answered(tx, move_job(tx, jobs[0], JobStep.SUCCEED, NOW, owner=None, findings={"regions": {}}))
        second.start()
        second.join(1)  # as far as it gets while the first has not ended
    second.join()
    with database.read() as tx:
        assert tx.comparisons.of_job(jobs[1].id) is not None


def test_what_goes_in_comes_out(database: Database) -> None:
    rollout = Rollout("lung", A, (B, C), None, (), None)
    full = Rollout("spleen", A, (), Canary(B, 500, NOW, Bounds(5, 0.1, 3.0, 0.3)), (C,), "look")
    difference = Difference("lung", "volume_ml", 100.0, None, 1.0)
    comparison = Comparison("lung", "1.2", 1, A, "j1", JobState.SUCCEEDED, B, "j2", JobState.REFUSED, Role.SHADOW,
                            (difference,), 1.0, NOW)  # fmt: skip
    entry = AuditEntry(NOW, NODE, Change.STOPPED, B, "too slow", {"figures": {"jobs": 10}})
    ended = trial("t2", state=TrialState.PASSED, device="cpu", stages={"load": 0.5}, finished_at=NOW)
    with database.write() as tx:
        tx.versions.add(known(A))
        tx.versions.add(known(B, path=None, kind="installed", added_at=NOW + LEASE))
        tx.rollouts.put(rollout)
        tx.rollouts.put(full)
        tx.trials.add(trial("t1"))
        tx.trials.add(ended)
        tx.comparisons.add(comparison)
        tx.audit.add(entry)
        tx.audit.add(replace(entry, model=ModelVersion("spleen", "1", "d" * 64)))
    with database.read() as tx:
        assert tx.versions.get(A) == known(A)
        assert tx.versions.get(C) is None
        assert [v.model for v in tx.versions.all(name="lung")] == [B, A]
        assert [v.model for v in tx.versions.all(name="other")] == []
        assert tx.rollouts.get("lung") == rollout
        assert tx.rollouts.all() == [rollout, full]
        assert tx.rollouts.get("brain") is None
        assert (tx.trials.get("t1"), tx.trials.get("t2")) == (trial("t1"), ended)
        assert tx.comparisons.of_job("j2") == comparison
        assert tx.comparisons.of_model(B, since=NOW) == [comparison]
        assert tx.comparisons.of_model(B, since=NOW + LEASE) == tx.comparisons.of_model(A) == []
        assert [replace(e, id=None) for e in tx.audit.latest(name="lung")] == [entry]
        assert len(tx.audit.latest()) == 2


def test_jobs_of_a_version(database: Database) -> None:
    job = Job("j1", "1.2", 1, "r", A, (), JobState.QUEUED, 0, NOW, NOW, role=Role.SHADOW)
    with database.write() as tx:
        tx.jobs.add(job)
        tx.jobs.add(replace(job, id="j2", state=JobState.DEAD, created_at=NOW + LEASE))
        tx.jobs.add(replace(job, id="j3", model=B))
    with database.read() as tx:
        assert tx.jobs.get("j1") == job
        assert [j.id for j in tx.jobs.of_model(A)] == ["j1", "j2"]
        assert [j.id for j in tx.jobs.of_model(A, since=NOW + LEASE)] == ["j2"]
        assert [j.id for j in tx.jobs.of_model(A, unfinished=True)] == ["j1"]


def test_jobs_that_are_never_sent_are_claimed_last(database: Database) -> None:
    job = Job("champion", "1.2", 1, "r", A, (), JobState.QUEUED, 0, NOW, NOW)
    with database.write() as tx:
        for role in (Role.SHADOW, Role.CONTROL):
            tx.jobs.add(replace(job, id=role.value, role=role, created_at=NOW - LEASE))
        tx.jobs.add(job)
    with database.write() as tx:
        claimed = [tx.jobs.claim(owner="me", now=NOW, lease=LEASE) for _ in range(3)]
    assert claimed[0] is not None
    assert claimed[0].id == "champion"
    assert None not in claimed


def test_a_rollout_that_was_changed_meanwhile_is_not_overwritten(database: Database) -> None:
    with database.write() as tx:
        tx.rollouts.put(Rollout("lung", A))
        first = tx.rollouts.get("lung", lock=True)
        assert first is not None
        tx.rollouts.put(first.led_by(B))
    for stale in (first, Rollout("lung", C)):
        with pytest.raises(IllegalStep, match="was changed meanwhile"), database.write() as tx:
            tx.rollouts.put(stale.led_by(C))


def test_a_version_that_moved_meanwhile_is_not_overwritten(database: Database) -> None:
    with database.write() as tx:
        tx.versions.add(known(A))
        tx.versions.update(known(A), known(A, state=VersionState.READY))
        with pytest.raises(IllegalStep, match="no longer registered"):
            tx.versions.update(known(A), known(A, state=VersionState.FAILED))


def test_trials_are_claimed_by_lease_the_oldest_first(database: Database) -> None:
    with database.write() as tx:
        tx.trials.add(trial("young", created_at=NOW + LEASE))
        tx.trials.add(trial("old"))
    with database.write() as tx:
        held = tx.trials.claim(owner="me", now=NOW, lease=LEASE)
        assert held is not None
        assert (held.id, held.attempt, held.state, held.lease_until) == ("old", 1, TrialState.RUNNING, NOW + LEASE)
        assert [t.id for t in tx.trials.owned()] == ["old"]
        tx.trials.heartbeat(held, now=NOW + LEASE, lease=LEASE)
        tx.trials.update(held, replace(held, state=TrialState.QUEUED, owner=None))
    for use in ("heartbeat", "update"):
        with pytest.raises(LostLease), database.write() as tx:
            if use == "heartbeat":
                tx.trials.heartbeat(held, now=NOW, lease=LEASE)
            else:
                tx.trials.update(held, replace(held, state=TrialState.PASSED))


@pytest.mark.parametrize("statement", ["UPDATE audit SET why = 'another'", "DELETE FROM audit"])
def test_the_database_refuses_to_change_the_audit(database: Database, statement: str) -> None:
    with database.write() as tx:
        tx.audit.add(AuditEntry(NOW, "ann", Change.ADDED, A, "why"))
    engine = create_engine(database.url)
    with pytest.raises(DatabaseError, match="append only"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
    with database.read() as tx:
        assert [e.why for e in tx.audit.latest()] == ["why"]


def test_a_job_from_before_the_roles_was_a_champions(tmp_path: Path) -> None:
    from importlib.resources import files

    from alembic import command
    from alembic.config import Config

    url = f"sqlite:///{tmp_path}/old.db"
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(files("node.store.migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO job (id, study_uid, revision, route, pipeline, model_version, model_digest, model_title,"
                " send_to, state, attempt, created_at, not_before)"
                " VALUES ('j1', '1.2', 1, 'r', 'lung', '1', 'd', '', '[\"PACS\"]', 'queued', 0, 0, 0)"
            )
        )
    engine.dispose()
    database = Database(url)
    database.prepare()
    with database.read() as tx:
        found = tx.jobs.get("j1")
    database.close()
    assert found is not None
    assert (found.role, found.send_to) == (Role.CHAMPION, ("PACS",))
