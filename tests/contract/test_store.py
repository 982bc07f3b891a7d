"""The store, held to ``node.ports`` on every database that it claims to serve."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest

from node.domain.circuit import Circuit, CircuitState
from node.domain.commitment import Commitment, CommitmentState, Reference
from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import IllegalStep, InvalidSettings, LostLease
from node.domain.events import Event, Subject
from node.domain.instance import Aside, AsideReason, Instance, Origin
from node.domain.job import Hold, Job, JobState, Role
from node.domain.manifest import Manifest, ManifestKind, ManifestState
from node.domain.model import ModelVersion
from node.domain.priority import Priority
from node.domain.route import Decision
from node.domain.study import Study, StudyState
from node.domain.verification import AskedCommitment
from node.store.database import SCHEMA, Database

NOW = datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=60)


def study(uid: str = "1.2.3", **changes: object) -> Study:
    return replace(Study(uid, StudyState.RECEIVING, 1, NOW, NOW, NOW + LEASE, "CT1", 1), **changes)  # type: ignore[arg-type]


def instance(uid: str, **changes: object) -> Instance:
    made = Instance(uid, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.3.4", "1.2.840.10008.1.2.1", "d" * 64, 3 << 31,
                    f"instances/1.2.3/1.2.3.4/{uid}.dcm", Origin.RECEIVED, NOW, "CT1", None, 1)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def job(uid: str = "j1", **changes: object) -> Job:
    made = Job(uid, "1.2.3", 1, "chest", ModelVersion("p", "1", "f" * 64, "P"), ("PACS",), JobState.QUEUED, 0, NOW, NOW)
    return replace(made, **changes)  # type: ignore[arg-type]


def delivery(uid: str, **changes: object) -> Delivery:
    made = Delivery(0, "j1", "1.2.3", uid, "1.2", "1.2.840.10008.1.2.1", "results/x", "PACS", DeliveryState.PENDING,
                    0, 0, NOW, NOW)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def commitment(uid: str = "2.25.1", **changes: object) -> Commitment:
    named = (Reference("1.2.840.10008.5.1.4.1.1.2", "1.1"), Reference("1.2.840.10008.5.1.4.1.1.4", "1.2"))
    made = Commitment(0, uid, "CT1", named, CommitmentState.OWED, NOW, NOW, {"1.2": 0x0112})
    return replace(made, **changes)  # type: ignore[arg-type]


def manifest(uid: str = "2.25.1", **changes: object) -> Manifest:
    made = Manifest(ManifestKind.COMMITMENT, uid, None, "CT1", NOW, frozenset(("1.1", "1.2")))
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_goes_in_comes_out(database: Database) -> None:
    decision = Decision("1.2.3", 1, "chest", True, "series 1.2.3.4 meets Modality CT", NOW, "j1")
    event = Event(Subject.STUDY, "1.2.3", "open", NOW, "1.2.3", None, "receiving", None, {"peer": "CT1"})
    aside = Aside(AsideReason.CONFLICT, "other bytes", "aside/conflict/x.dcm", NOW, "CT1", "1.9", "1.2.3", "e" * 64)
    done = job("j2", findings={"volume": 1.5}, timings={"read": 0.5}, state=JobState.SUCCEEDED)
    with database.write() as tx:
        tx.studies.add(study())
        tx.instances.add([instance("1.1"), instance("1.2", revision=2), instance("1.3", origin=Origin.RESULT)])
        assert tx.instances.add_aside(aside)
        assert not tx.instances.add_aside(aside)
        tx.jobs.add(job())
        tx.jobs.add(done)
        tx.deliveries.add([delivery("1.3")])
        tx.journal.add(event)
        tx.journal.add_decision(decision)
    with database.read() as tx:
        assert tx.studies.get("1.2.3") == study()
        assert tx.instances.get("1.1") == instance("1.1")
        assert [i.sop_instance_uid for i in tx.instances.of_study("1.2.3", up_to_revision=1)] == ["1.1"]
        assert set(tx.instances.known(["1.1", "1.3", "9"])) == {"1.1", "1.3"}
        assert tx.instances.is_result_series("1.2.3.4")
        assert not tx.instances.is_result_series("1.2.3.5")
        assert tx.instances.count() == 3
        assert [replace(a, id=None) for a in tx.instances.asides()] == [aside]
        assert tx.jobs.get("j1") == job()
        assert tx.jobs.get("j2") == done
        assert [replace(d, id=0) for d in tx.deliveries.of_study("1.2.3")] == [delivery("1.3")]
        assert tx.deliveries.oldest_pending() == {"PACS": NOW}
        assert tx.deliveries.counts() == {("PACS", DeliveryState.PENDING): 1}
        assert [replace(e, id=None) for e in tx.journal.of_study("1.2.3")] == [event]
        assert tx.journal.decisions(study_uid="1.2.3") == [decision]


def test_corrections_are_found_by_instance_and_by_revision(database: Database) -> None:
    def corrected(uid: str, revision: int, at: int) -> Aside:
        path = f"aside/correction/{uid}-{at}.dcm"
        when = NOW + timedelta(seconds=at)
        return Aside(AsideReason.CORRECTION, "PatientID", path, when, "PACS", uid, "1.2.3", "e" * 64, None, revision)

    first, second, other = corrected("1.9", 2, 5), corrected("1.9", 3, 9), corrected("1.8", 2, 7)
    with database.write() as tx:
        for aside in (second, first, other, replace(first, reason=AsideReason.CONFLICT, path="aside/conflict/x.dcm")):
            assert tx.instances.add_aside(aside)
    with database.read() as tx:
        latest = tx.instances.correction_of("1.9")
        assert latest is not None
        assert replace(latest, id=None) == second
        assert tx.instances.correction_of("1.7") is None
        up_to = {n: tx.instances.corrections("1.2.3", up_to_revision=n) for n in (1, 2, 3)}
    assert {n: [replace(a, id=None) for a in found] for n, found in up_to.items()} == {
        1: [], 2: [first, other], 3: [first, other, second]
    }  # fmt: skip


def test_what_a_peer_has_of_the_job_before(database: Database) -> None:
    def at(seconds: int) -> datetime:
        return NOW + timedelta(seconds=seconds)

    dead, sent = DeliveryState.DEAD, DeliveryState.COMMITTED
    with database.write() as tx:
        for number, job_id in enumerate(("j1", "j2", "j3")):
            tx.jobs.add(job(job_id, created_at=at(number)))
        tx.jobs.add(job("other", created_at=NOW, route="head"))
        owed = {"1.1": "j1", "1.2": "j1", "1.3": "j2", "1.4": "j2", "1.5": "other", "1.6": "j3"}
        tx.instances.add(instance(uid, origin=Origin.RESULT, job_id=job_id) for uid, job_id in owed.items())
        tx.deliveries.add(
            [
                delivery("1.2", job_id="j1", position=1, state=sent),
                delivery("1.1", job_id="j1", position=0),
                delivery("1.2", job_id="j1", position=0, peer="VIEWER"),
                delivery("1.3", job_id="j2", state=dead),
                delivery("1.4", job_id="j2", peer="VIEWER", state=dead),
                delivery("1.5", job_id="other", state=sent),
                delivery("1.6", job_id="j3"),
            ]
        )
    with database.read() as tx:
        before = {name: tx.instances.results_before(job(name, created_at=at(n))) for n, name in enumerate(("j1", "j2"))}
        later = tx.instances.results_before(job("j4", created_at=at(9)))
    assert {p: [r.sop_instance_uid for r in found] for p, found in before["j2"].items()} == {
        "PACS": ["1.1", "1.2"], "VIEWER": ["1.2"]
    }  # fmt: skip
    assert {p: [r.sop_instance_uid for r in found] for p, found in later.items()} == {
        "PACS": ["1.6"],
        "VIEWER": ["1.2"],
    }


def test_sets_of_which_nothing_was_sent(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add(
            [
                delivery("1.1"),
                delivery("1.2"),
                delivery("1.1", peer="VIEWER"),
                delivery("1.2", peer="VIEWER", state=DeliveryState.SENDING),
                delivery("1.3", job_id="j2", state=DeliveryState.DELIVERED),
                delivery("1.4", study_uid="1.2.4"),
            ]
        )
        found = tx.deliveries.unbegun("1.2.3")
    assert [(d.peer, d.sop_instance_uid) for d in found] == [("PACS", "1.1"), ("PACS", "1.2")]


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


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError, match="half-way"), database.write() as tx:
        tx.studies.add(study())
        raise RuntimeError("half-way")
    with database.read() as tx:
        assert tx.studies.get("1.2.3") is None


def test_a_study_that_moved_meanwhile_is_not_overwritten(database: Database) -> None:
    with database.write() as tx:
        tx.studies.add(study())
        tx.studies.update(study(), study(last_at=NOW + LEASE))
        with pytest.raises(IllegalStep, match=r"1\.2\.3"):
            tx.studies.update(study(), study(state=StudyState.SETTLED))


def test_due_studies_are_those_whose_quiet_time_is_over(database: Database) -> None:
    with database.write() as tx:
        tx.studies.add(study("1.1"))
        tx.studies.add(study("1.2", settle_at=NOW + 2 * LEASE))
        tx.studies.add(study("1.3", state=StudyState.SETTLED))
    with database.read() as tx:
        assert [s.study_uid for s in tx.studies.due(NOW + LEASE)] == ["1.1"]


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


def claimed(database: Database, *, limit: int = 10, trial: bool = False, now: datetime = NOW) -> list[str]:
    with database.write() as tx:
        found = tx.deliveries.claim(peer="PACS", owner="me", now=now, lease=LEASE, limit=limit, trial=trial)
    return [d.sop_instance_uid for d in found]


def test_the_most_urgent_job_is_claimed_first_and_of_a_job_what_closes_it_last(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.9", job_id="a", closes=True), delivery("1.8", job_id="a", position=5)])
        tx.deliveries.add([delivery("2.1", job_id="b", priority=Priority.STAT, created_at=NOW + LEASE)])
        assert not tx.deliveries.is_due_above("PACS", Priority.STAT, NOW)
        assert tx.deliveries.is_due_above("PACS", Priority.HIGH, NOW)
        assert not tx.deliveries.is_due_above("OTHER", Priority.ROUTINE, NOW)
    assert claimed(database) == ["2.1", "1.8", "1.9"]


def test_what_closes_a_job_waits_for_what_is_not_due(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1", job_id="a"), delivery("1.2", job_id="a", not_before=NOW + LEASE)])
        tx.deliveries.add([delivery("1.3", job_id="a", closes=True)])
        tx.deliveries.add([delivery("1.2", job_id="a", peer="OTHER", state=DeliveryState.DEAD)])
    assert claimed(database) == ["1.1"]
    assert claimed(database) == [], "the rest waits while somebody sends of the job"
    with database.write() as tx:
        sent = next(d for d in tx.deliveries.of_study("1.2.3") if d.state is DeliveryState.SENDING)
        tx.deliveries.update(sent, replace(sent, state=DeliveryState.DELIVERED))
    assert claimed(database) == []
    assert claimed(database, now=NOW + LEASE) == ["1.2", "1.3"]


def test_a_trial_takes_what_was_tried_least_and_never_what_closes_a_job_ahead(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1", job_id="a", attempt=3), delivery("1.2", job_id="a", closes=True)])
        tx.deliveries.add([delivery("1.3", job_id="b", attempt=1)])
    assert claimed(database, limit=1, trial=True) == ["1.3"]
    assert claimed(database, limit=1, trial=True) == ["1.1"]


def test_two_claims_at_once_never_share_a_job(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery(f"{job}.{n}", job_id=job) for job in ("1", "2") for n in range(5)])
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(claimed(database, limit=3))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(uids) for uids in found) == [3, 3]
    assert {uid[0] for uid in found[0]} != {uid[0] for uid in found[1]}


def test_many_are_moved_at_once_or_none(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1"), delivery("1.2")])
    with database.read() as tx:
        first, second = tx.deliveries.of_study("1.2.3")
    stale = replace(second, owner="somebody else")
    with pytest.raises(LostLease, match="one of 1 others"), database.write() as tx:
        tx.deliveries.update_all([(first, replace(first, reason="a")), (stale, replace(stale, reason="b"))])
    with database.write() as tx:
        assert [d.reason for d in tx.deliveries.of_study("1.2.3")] == [None, None]
        tx.deliveries.update_all([(first, replace(first, reason="a")), (second, replace(second, reason="b"))])
        assert [d.reason for d in tx.deliveries.of_study("1.2.3")] == ["a", "b"]


def test_what_is_owed_for_too_long_is_found(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1"), delivery("1.2", created_at=NOW + LEASE), delivery("1.3", peer="OTHER")])
        assert [d.sop_instance_uid for d in tx.deliveries.overdue("PACS", NOW + LEASE)] == ["1.1"]


def test_how_a_peer_stands_is_kept(database: Database) -> None:
    closed = Circuit("PACS", CircuitState.CLOSED, NOW)
    down = closed.failed(NOW, "refused", LEASE)
    for circuit in (closed, down):
        with database.write() as tx:
            tx.circuits.put(circuit)
    with database.read() as tx:
        assert tx.circuits.all() == {"PACS": down}


def test_deliveries_are_claimed_by_peer_in_sending_order(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.3", position=2), delivery("1.2", position=1), delivery("1.1", position=0)])
        tx.deliveries.add([delivery("1.1", peer="OTHER"), delivery("1.4", not_before=NOW + LEASE)])
    with database.write() as tx:
        claimed = tx.deliveries.claim(peer="PACS", owner="me", now=NOW, lease=LEASE, limit=10)
    assert [d.sop_instance_uid for d in claimed] == ["1.1", "1.2", "1.3"]
    assert {d.attempt for d in claimed} == {1}
    with database.write() as tx:
        assert tx.deliveries.claim(peer="PACS", owner="me", now=NOW, lease=LEASE, limit=10) == []
        tx.deliveries.heartbeat(claimed, now=NOW + LEASE, lease=LEASE)
        found = tx.deliveries.get(claimed[0].id)
    assert found is not None
    assert found.lease_until == NOW + 2 * LEASE


def test_a_commitment_comes_out_as_it_went_in_and_is_claimed_once(database: Database) -> None:
    asked = commitment("2.25.2", state=CommitmentState.ASKED, failures={})
    with database.write() as tx:
        tx.commitments.add(commitment())
        tx.commitments.add(asked)
        tx.commitments.add(commitment("2.25.3", due_at=NOW + LEASE))
        tx.commitments.add(commitment("2.25.4", peer="OTHER"))
    with database.read() as tx:
        assert [replace(c, id=0) for c in tx.commitments.of_transaction("2.25.1")] == [commitment()]
        assert [replace(c, id=0) for c in tx.commitments.in_state(CommitmentState.ASKED)] == [asked]
        assert tx.commitments.counts() == {CommitmentState.OWED: 3, CommitmentState.ASKED: 1}
        assert tx.commitments.is_due("CT1", NOW)
        assert not tx.commitments.is_due("CT2", NOW)
    with database.write() as tx:
        claimed = tx.commitments.claim(peer="CT1", owner="me", now=NOW, lease=LEASE)
        assert claimed is not None
        assert (claimed.transaction_uid, claimed.attempt, claimed.state) == ("2.25.1", 1, CommitmentState.REPORTING)
        assert (claimed.owner, claimed.lease_until) == ("me", NOW + LEASE)
        assert tx.commitments.claim(peer="CT1", owner="me", now=NOW, lease=LEASE) is None
    with database.write() as tx:
        tx.commitments.update(claimed, replace(claimed, state=CommitmentState.OWED, owner=None))
        with pytest.raises(LostLease):
            tx.commitments.update(claimed, replace(claimed, state=CommitmentState.REPORTED))


def delivered(uid: str, **changes: object) -> Delivery:
    there: dict[str, object] = {"state": DeliveryState.DELIVERED, "attempt": 1, "delivered_at": NOW, "verify_at": NOW}
    return delivery(uid, **(there | changes))


def test_what_was_delivered_is_due_to_be_verified_by_peer_the_oldest_job_first(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add(
            [
                delivered("1.2", job_id="j2", position=1),
                delivered("1.1", job_id="j2"),
                delivered("1.3", created_at=NOW - LEASE),
                delivered("1.4", verify_at=NOW + LEASE),
                delivered("1.5", verify_at=None),
                delivered("1.6", peer="OTHER"),
                delivered("1.7", state=DeliveryState.COMMITTED),
                delivery("1.8", job_id="j2"),
                delivery("1.9", job_id="j3"),
            ]
        )
    with database.read() as tx:
        due = tx.deliveries.to_verify("PACS", NOW, limit=10)
        assert [d.sop_instance_uid for d in due] == ["1.3", "1.1", "1.2"]
        assert tx.deliveries.to_verify("PACS", NOW, limit=1) == due[:1]
        assert tx.deliveries.unsent_jobs("PACS", {"j1", "j2"}) == {"j2"}
        assert tx.deliveries.unverified() == {"PACS": (4, NOW), "OTHER": (1, NOW)}


def test_a_look_is_put_off_only_while_it_is_delivered(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivered("1.1"), delivered("1.2")])
    with database.write() as tx:
        first, second = tx.deliveries.to_verify("PACS", NOW, limit=10, lock=True)
        tx.deliveries.update(second, replace(second, state=DeliveryState.COMMITTED, verify_at=None))
        tx.deliveries.look_again([first, second], verify_at=NOW + LEASE, reason="not yet", transaction_uid="2.25.1")
    with database.write() as tx:
        put_off, committed = tx.deliveries.held([second.id, first.id])
    assert put_off == replace(first, verify_at=NOW + LEASE, reason="not yet", transaction_uid="2.25.1")
    assert (committed.state, committed.verify_at, committed.reason) == (DeliveryState.COMMITTED, None, None)


def test_many_that_verify_never_share(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivered(f"1.{n}", job_id=f"j{n}") for n in range(20)])
    taken: list[int] = []

    def take() -> None:
        for _ in range(10):
            with database.write() as tx:
                due = tx.deliveries.to_verify("PACS", NOW, limit=4, lock=True)
                tx.deliveries.look_again(due, verify_at=NOW + LEASE)
            taken.extend(d.id for d in due)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 20


def test_an_asked_commitment_comes_out_as_it_went_in(database: Database) -> None:
    asked = AskedCommitment("2.25.1", "PACS", "1.2.3", {7: 1, 8: 2}, 1, NOW)
    with database.write() as tx:
        tx.asked_commitments.add(asked)
        assert tx.asked_commitments.get("2.25.2") is None
        tx.asked_commitments.accepted("2.25.1", NOW + LEASE)
    with database.write() as tx:
        assert tx.asked_commitments.get("2.25.1") == replace(asked, accepted_at=NOW + LEASE)
        tx.asked_commitments.reported("2.25.1", NOW + 2 * LEASE)
    with database.read() as tx:
        assert tx.asked_commitments.get("2.25.1") == replace(
            asked, accepted_at=NOW + LEASE, reported_at=NOW + 2 * LEASE
        )


def test_manifests_are_found_by_study_and_by_instance(database: Database) -> None:
    step = manifest("2.25.2", kind=ManifestKind.MPPS, study_uid="1.2.3", state=ManifestState.IN_PROGRESS)
    other = manifest("2.25.3", kind=ManifestKind.IAN, study_uid="1.2.4", instances=frozenset(("9",)))
    with database.write() as tx:
        tx.manifests.add([manifest(), step, other])
    with database.read() as tx:
        assert tx.manifests.get(ManifestKind.COMMITMENT, "2.25.1") == [manifest()]
        assert tx.manifests.get(ManifestKind.MPPS, "2.25.1") == []
        assert tx.manifests.of_study("1.2.3") == [step], "no instance of the commitment has a row yet"
        numbers = [number for number, _ in tx.manifests.changed_since(NOW)]
        assert [tx.manifests.studies_of(number) for number in numbers] == [set(), {"1.2.3"}, {"1.2.4"}]
    with database.write() as tx:
        tx.instances.add([instance("1.2"), instance("7", study_uid="1.2.9")])
    with database.read() as tx:
        assert tx.manifests.of_study("1.2.3") == [manifest(), step]
        assert tx.manifests.studies_of(numbers[0]) == {"1.2.3"}


def test_a_changed_manifest_takes_the_place_of_what_was_said_before(database: Database) -> None:
    step = manifest(kind=ManifestKind.MPPS, study_uid="1.2.3", state=ManifestState.IN_PROGRESS)
    ended = replace(step, state=ManifestState.COMPLETED, instances=frozenset(("5",)), at=NOW + LEASE)
    elsewhere = replace(ended, study_uid="1.2.4")
    with database.write() as tx:
        tx.manifests.add([step, manifest()])
        tx.manifests.replace([ended, elsewhere])
    with database.read() as tx:
        assert tx.manifests.get(ManifestKind.MPPS, step.uid) == [ended, elsewhere]
        assert tx.manifests.get(ManifestKind.COMMITMENT, step.uid) == [manifest()]
        assert [at for _, at in tx.manifests.changed_since(NOW + LEASE)] == [NOW + LEASE] * 2


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    from sqlalchemy import create_engine, text

    url = f"sqlite:///{tmp_path}/newer.db"
    first = Database(url)
    first.prepare()
    first.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    newer = Database(url)
    with pytest.raises(InvalidSettings, match=f"9999.*{SCHEMA}"):
        newer.prepare()
    newer.close()


def test_what_was_announced_of_studies_that_never_came_is_forgotten(database: Database) -> None:
    came = manifest("2.25.2", kind=ManifestKind.IAN, study_uid="1.2.3")
    never = manifest("2.25.3", kind=ManifestKind.IAN, study_uid="1.2.4")
    lately = manifest("2.25.4", kind=ManifestKind.IAN, study_uid="1.2.4", at=NOW + LEASE)
    with database.write() as tx:
        tx.studies.add(study("1.2.3"))
        tx.manifests.add([manifest(), came, never, lately])
        assert tx.manifests.forget(NOW + LEASE) == 1
    with database.read() as tx:
        assert tx.manifests.get(ManifestKind.COMMITMENT, "2.25.1") == [manifest()]
        assert [tx.manifests.get(ManifestKind.IAN, m.uid) for m in (came, never, lately)] == [[came], [], [lately]]


def test_a_database_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text

    url = f"sqlite:///{tmp_path}/older.db"
    config = Config()
    config.set_main_option("script_location", str(files("node.store.migrations")))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text("INSERT INTO study VALUES ('1.2.3', 'receiving', 1, :now, :now, :now, 'CT1', 1)"), {"now": 0.0}
        )
    engine.dispose()
    database = Database(url)
    database.prepare()
    with database.write() as tx:
        assert [s.study_uid for s in tx.studies.latest()] == ["1.2.3"]
        tx.commitments.add(commitment())
    database.close()


def test_the_migrations_give_the_tables_of_the_code(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine
    from sqlmodel import SQLModel

    url = f"sqlite:///{tmp_path}/schema.db"
    database = Database(url)
    database.prepare()
    database.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    engine.dispose()


def test_a_schema_that_is_made_apart_is_there(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/apart.db")
    database.prepare(apart=True)
    with database.read() as tx:
        assert tx.instances.count() == 0
    database.prepare()
    database.close()
