"""The job table, on every database that the node claims to serve."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from node.domain.errors import LostLease
from node.domain.job import Hold, JobState, Role
from node.domain.model import ModelVersion
from node.domain.priority import Priority
from node.store.database import Database
from tests.rows import LEASE, NOW, job


def test_a_job_is_noticed_once(database: Database) -> None:
    refused, dead = job("j1", state=JobState.REFUSED), job("j2", state=JobState.DEAD, created_at=NOW - LEASE)
    with database.write() as tx:
        for made in (refused, dead, job("j3"), job("j4", state=JobState.DEAD, noticed=True)):
            tx.jobs.add(made)
    with database.write() as tx:
        assert tx.jobs.unnoticed() == [dead, refused]
        assert tx.jobs.mark_noticed(dead)
        assert not tx.jobs.mark_noticed(dead)
        assert not tx.jobs.mark_noticed(replace(refused, state=JobState.DEAD))
        assert tx.jobs.unnoticed() == [refused]


def test_a_claim_counts_the_attempt_and_takes_the_oldest_due_job(database: Database) -> None:
    with database.write() as tx:
        tx.jobs.add(job("late", not_before=NOW + LEASE))
        tx.jobs.add(job("young", created_at=NOW + timedelta(seconds=1)))
        tx.jobs.add(job("old"))
    with database.write() as tx:
        claimed = tx.jobs.claim(owner="me", now=NOW, lease=LEASE)
    assert claimed is not None
    assert (claimed.id, claimed.attempt, claimed.state, claimed.owner) == ("old", 1, JobState.RUNNING, "me")
    assert claimed.lease_until == NOW + LEASE


def test_the_most_urgent_job_is_claimed_first(database: Database) -> None:
    with database.write() as tx:
        for name, priority, age in (
            ("old", Priority.ROUTINE, 3),
            ("stat", Priority.STAT, 0),
            ("high", Priority.HIGH, 1),
        ):
            tx.jobs.add(job(name, priority=priority, created_at=NOW - age * LEASE))
        claimed = [tx.jobs.claim(owner="me", now=NOW, lease=LEASE) for _ in range(3)]
    assert [c.id for c in claimed if c] == ["stat", "high", "old"]


def test_a_job_that_was_tried_is_not_overtaken(database: Database) -> None:
    with database.write() as tx:
        tx.jobs.add(job("tried", attempt=1, created_at=NOW - LEASE))
        tx.jobs.add(job("fresh"))
        assert tx.jobs.claim(owner="me", now=NOW, lease=LEASE, untried=True) is None
        tried = tx.jobs.claim(owner="me", now=NOW, lease=LEASE)
        fresh = tx.jobs.claim(owner="me", now=NOW, lease=LEASE, untried=True)
    assert tried is not None
    assert fresh is not None
    assert (tried.id, fresh.id) == ("tried", "fresh")


def test_jobs_of_a_version_are_claimed_together(database: Database) -> None:
    other = ModelVersion("p", "2", "e" * 64, "P")
    with database.write() as tx:
        for n, name in enumerate(("first", "second", "third", "fourth")):
            tx.jobs.add(job(name, created_at=NOW - LEASE + timedelta(seconds=n)))
        for name, change in {
            "other version": {"model": other},
            "urgent": {"priority": Priority.STAT, "created_at": NOW},
            "tried": {"attempt": 1, "created_at": NOW},
            "unsent": {"role": Role.SHADOW, "send_to": ()},
            "later": {"not_before": NOW + LEASE},
        }.items():
            tx.jobs.add(job(name, **change))
        assert tx.jobs.untried(job().model) == 7
        first = tx.jobs.get("first")
        assert first is not None
        like = tx.jobs.claim_like(first, owner="me", now=NOW, lease=LEASE, limit=3)
        assert [(each.id, each.attempt, each.state) for each in like] == [
            (name, 1, JobState.RUNNING) for name in ("first", "second", "third")
        ]
        assert [each.id for each in tx.jobs.claim_like(first, owner="me", now=NOW, lease=LEASE, limit=3)] == ["fourth"]


def test_jobs_that_may_wait_for_others_are_passed_over(database: Database) -> None:
    fresh = NOW - timedelta(seconds=1)
    hold = Hold(frozenset({"f" * 64}), NOW - timedelta(seconds=2))
    with database.write() as tx:
        tx.jobs.add(job("waits", created_at=fresh))
        assert tx.jobs.claim(owner="me", now=NOW, lease=LEASE, hold=hold) is None
        tx.jobs.add(job("waited", created_at=NOW - LEASE))
        tx.jobs.add(job("tried", created_at=fresh, attempt=1))
        tx.jobs.add(job("stat", created_at=fresh, priority=Priority.STAT))
        claimed = [tx.jobs.claim(owner="me", now=NOW, lease=LEASE, hold=hold) for _ in range(4)]
        assert [each and each.id for each in claimed] == ["stat", "waited", "tried", None]
        assert tx.jobs.claim(owner="me", now=NOW, lease=LEASE) is not None


def test_a_lost_lease_is_noticed(database: Database) -> None:
    with database.write() as tx:
        tx.jobs.add(job())
    with database.write() as tx:
        held = tx.jobs.claim(owner="me", now=NOW, lease=LEASE)
    assert held is not None
    with database.write() as tx:
        tx.jobs.update(held, replace(held, state=JobState.QUEUED, owner=None))
    with database.write() as tx, pytest.raises(LostLease):
        tx.jobs.heartbeat(held, now=NOW, lease=LEASE)
    with database.write() as tx, pytest.raises(LostLease):
        tx.jobs.update(held, replace(held, state=JobState.SUCCEEDED))


def test_many_claimers_never_share(database: Database) -> None:
    with database.write() as tx:
        for n in range(40):
            tx.jobs.add(job(f"j{n:02}"))
    taken: list[str] = []

    def claim() -> None:
        while True:
            with database.write() as tx:
                claimed = tx.jobs.claim(owner=threading.current_thread().name, now=NOW, lease=LEASE)
            if claimed is None:
                return
            taken.append(claimed.id)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"j{n:02}" for n in range(40)]
