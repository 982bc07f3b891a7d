"""Assembling: rows in batches, quiet time, revisions."""

from __future__ import annotations

from node.domain.instance import Aside, AsideReason
from node.domain.job import JobState
from node.domain.study import Released, StudyState
from tests.house import LEASE, House


def test_a_study_settles_after_its_quiet_time_and_not_before(house: House) -> None:
    house.assemble.index([house.receive("1.1"), house.receive("1.2")])
    house.clock.tick(6)
    house.assemble.index([house.receive("1.3")])
    house.clock.tick(9.9)
    assert house.assemble.settle() == 0
    house.clock.tick(0.2)
    assert house.assemble.settle() == 1
    with house.database.read() as tx:
        study = tx.studies.get("1.2")
        events = [(e.step, e.to_state) for e in tx.journal.of_study("1.2")]
    assert study is not None
    assert (study.state, study.revision, study.instances) == (StudyState.SETTLED, 1, 3)
    assert events == [("open", "receiving"), ("quiet", "settled")]


def test_without_evidence_a_release_settles_nothing(house: House) -> None:
    house.assemble.index([house.receive("1.1"), Released("CT1", frozenset(("1.2",)), house.clock.now())])
    house.clock.tick(9.9)
    assert house.assemble.settle() == 0
    house.clock.tick(0.2)
    assert house.assemble.settle() == 1
    with house.database.read() as tx:
        assert tx.journal.of_study("1.2")[-1].detail == {"revision": 1, "evidence": "quiet for 10.1 s", "instances": 1}


def test_a_peer_may_have_a_quiet_time_of_its_own(house: House) -> None:
    house.assemble.index([house.receive("1.1", peer="SLOW")])
    house.clock.tick(59)
    assert house.assemble.settle() == 0
    house.clock.tick(2)
    assert house.assemble.settle() == 1


def test_a_late_instance_opens_the_next_revision(house: House) -> None:
    job = house.settled_job()
    house.assemble.index([house.receive("1.2.3.2")])
    with house.database.read() as tx:
        study = tx.studies.get("1.2")
        first = tx.jobs.get(job.id)
        seen = [i.sop_instance_uid for i in tx.instances.of_study("1.2", up_to_revision=1)]
    assert study is not None
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)
    assert seen == ["1.2.3.1"]
    assert first is not None
    assert first.state is JobState.CANCELLED
    assert first.reason == "superseded by revision 2 before it was run"
    house.clock.tick(11)
    house.assemble.settle()
    house.dispatch.route()
    with house.database.read() as tx:
        assert sorted((j.revision, j.state.value) for j in tx.jobs.of_study("1.2")) == [(1, "cancelled"), (2, "queued")]


def test_a_job_that_runs_is_not_cancelled_by_a_late_instance(house: House) -> None:
    job = house.settled_job()
    with house.database.write() as tx:
        tx.jobs.claim(owner="w", now=house.clock.now(), lease=LEASE)
    house.assemble.index([house.receive("1.2.3.2")])
    with house.database.read() as tx:
        running = tx.jobs.get(job.id)
    assert running is not None
    assert running.state is JobState.RUNNING


def test_indexing_twice_changes_nothing(house: House) -> None:
    instance = house.receive("1.1")
    house.assemble.index([instance])
    house.assemble.index([instance, instance])
    with house.database.read() as tx:
        study = tx.studies.get("1.2")
        assert tx.instances.count() == 1
    assert study is not None
    assert (study.revision, study.instances) == (1, 1)


def test_one_uid_in_two_studies_at_once_is_a_conflict(house: House) -> None:
    house.assemble.index([house.receive("1.1"), house.receive("1.1", study="1.9")])
    with house.database.read() as tx:
        kept = tx.instances.get("1.1")
        asides = tx.instances.asides()
        assert tx.studies.get("1.9") is None
    assert kept is not None
    assert kept.study_uid == "1.2"
    assert [(a.reason, a.study_uid) for a in asides] == [(AsideReason.CONFLICT, "1.9")]


def test_what_lies_aside_is_noted_once(house: House) -> None:
    aside = Aside(AsideReason.INVALID, "StudyInstanceUID: is missing", "aside/invalid/x.dcm", house.clock.now(), "CT1")
    house.assemble.index([aside])
    house.assemble.index([aside])
    with house.database.read() as tx:
        assert len(tx.instances.asides()) == 1
        assert [e.step for e in tx.journal.latest()] == ["aside: invalid"]
