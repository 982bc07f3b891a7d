"""The store, held to ``node.repositories`` on every database that it claims to serve."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from node.domain.commitment import CommitmentState
from node.domain.delivery import DeliveryState
from node.domain.errors import IllegalStep, LostLease
from node.domain.events import Event, Subject
from node.domain.instance import Aside, AsideReason, Origin
from node.domain.job import JobState
from node.domain.manifest import ManifestKind, ManifestState
from node.domain.route import Decision
from node.domain.study import StudyState
from node.domain.verification import AskedCommitment
from node.store.database import Database
from tests.rows import LEASE, NOW, commitment, delivery, instance, job, manifest, study


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
