"""What is old enough to be removed, on every database that the node claims to serve."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from node.domain.commitment import CommitmentState
from node.domain.delivery import DeliveryState
from node.domain.events import Event, Subject
from node.domain.instance import Aside, AsideReason, Origin
from node.domain.job import JobState
from node.domain.manifest import ManifestKind
from node.domain.retention import Amount, Contents, Kind, Removal
from node.domain.route import Decision
from node.domain.study import StudyState
from node.domain.verification import AskedCommitment
from node.store.database import Database
from tests.rows import LEASE, NOW, commitment, delivery, instance, job, manifest, study

LATER = NOW + timedelta(days=1)


def test_routed_studies_are_given_one_chunk_after_the_other(database: Database) -> None:
    with database.write() as tx:
        for n in range(5):
            tx.studies.add(study(f"1.{n}", state=StudyState.ROUTED))
        tx.studies.add(study("1.5", state=StudyState.SETTLED))
        tx.studies.add(study("1.6", state=StudyState.ROUTED, last_at=LATER))
        assert tx.retention.oldest_study() == NOW
    with database.read() as tx:
        first = tx.retention.routed_before(LATER, after="", limit=3)
        second = tx.retention.routed_before(LATER, after=first[-1].study_uid, limit=3)
    assert [s.study_uid for s in (*first, *second)] == [f"1.{n}" for n in range(5)]


def test_the_contents_of_a_study_and_what_stays_of_it(database: Database) -> None:
    def aside(reason: AsideReason) -> Aside:
        return Aside(reason, "x", f"aside/{reason}/x.dcm", NOW, "CT1", "1.1", "1.2.3", "e" * 64)

    result = instance("1.9", origin=Origin.RESULT, job_id="j1", path="results/j1/1/1.9.dcm", size=5)
    with database.write() as tx:
        tx.instances.add([instance("1.1", size=7), instance("8.1", study_uid="8"), result])
        tx.jobs.add(job())
        tx.instances.add_aside(aside(AsideReason.CORRECTION))
        tx.instances.add_aside(aside(AsideReason.CONFLICT))
        conflict, correction = tx.instances.asides()
        assert tx.instances.asides(after=correction.id or 0) == [conflict]
        assert tx.instances.asides(after=conflict.id or 0) == []
        received = frozenset({instance("1.1").path})
        assert tx.retention.contents("1.2.3") == Contents(received, ("aside/correction/x.dcm",), ("j1",), 12)
        tx.retention.drop("1.2.3")
    with database.read() as tx:
        assert set(tx.instances.known(["1.1", "8.1", "1.9"])) == {"8.1", "1.9"}
        assert [a.reason for a in tx.instances.asides()] == [AsideReason.CONFLICT]
        assert [a.reason for a in tx.retention.asides_before(LATER)] == [AsideReason.CONFLICT]
        assert tx.retention.asides_before(NOW) == []
    with database.write() as tx:
        tx.retention.drop_aside("aside/conflict/x.dcm")
        assert tx.instances.count_asides() == 0


def test_an_open_commitment_names_its_study(database: Database) -> None:
    with database.write() as tx:
        tx.instances.add([instance("1.2"), instance("7", study_uid="1.2.9")])
        tx.manifests.add([manifest()])
        tx.commitments.add(commitment())
        assert tx.retention.is_named_by_open_commitment("1.2.3")
        assert not tx.retention.is_named_by_open_commitment("1.2.9")
        (open_,) = tx.commitments.in_state(CommitmentState.OWED)
        tx.commitments.update(open_, replace(open_, state=CommitmentState.REPORTED))
        assert not tx.retention.is_named_by_open_commitment("1.2.3")


def test_what_is_on_its_way_out_and_what_is_gone(database: Database) -> None:
    removal = Removal("1.2.3-1", "1.2.3", 5 << 31, NOW)
    with database.write() as tx:
        tx.retention.add_removal(removal)
        assert tx.retention.removals() == [removal]
        tx.retention.removed("1.2.3-1")
        tx.retention.count(Kind.STUDIES, Amount(1, 5 << 31), NOW)
        tx.retention.count(Kind.STUDIES, Amount(2, 1), LATER)
    with database.read() as tx:
        assert tx.retention.removals() == []
        assert tx.retention.totals() == dict.fromkeys(Kind, Amount()) | {Kind.STUDIES: Amount(3, (5 << 31) + 1)}


def test_rows_that_are_stale_and_rows_that_are_not(database: Database) -> None:
    """Of a study that is removed, of one that is kept, and of none."""
    with database.write() as tx:
        for uid, state in (("1.2.3", StudyState.EXPIRED), ("1.2.9", StudyState.ROUTED)):
            tx.studies.add(study(uid, state=state))
            of_it = {"study_uid": uid}
            tx.jobs.add(job(f"j {uid}", state=JobState.SUCCEEDED, finished_at=NOW, **of_it))
            made = {"origin": Origin.RESULT, "series_uid": f"{uid}.4", **of_it}
            tx.instances.add([instance(f"{uid}.{n}", path=f"results/{uid}/{n}", **made) for n in (1, 2)])
            tx.deliveries.add([delivery(f"{uid}.1", job_id=f"j {uid}", state=DeliveryState.DELIVERED, **of_it)])
            tx.journal.add(Event(Subject.STUDY, uid, "open", NOW, uid))
            tx.journal.add_decision(Decision(uid, 1, "chest", True, "it fits", NOW))
        tx.journal.add(Event(Subject.COMMITMENT, "2.25.1", "ask", NOW))
        tx.journal.add(Event(Subject.COMMITMENT, "2.25.1", "report", LATER))
        tx.commitments.add(commitment("2.25.1"))
        tx.commitments.add(commitment("2.25.2", state=CommitmentState.REPORTED))
        tx.manifests.add([manifest("2.25.1"), manifest("2.25.2"), manifest("2.25.3", at=LATER)])
        (waits,) = tx.deliveries.of_study("1.2.9")
        tx.deliveries.look_again([waits], transaction_uid="2.25.8")
        for uid in ("2.25.7", "2.25.8"):
            tx.asked_commitments.add(AskedCommitment(uid, "PACS", "1.2.9", {waits.id: 1}, 1, NOW))
        assert tx.retention.stale(NOW) == {}
    while True:
        with database.write() as tx:
            stale = tx.retention.stale(NOW + LEASE)
            if not stale:
                break
            assert tx.retention.drop_stale(stale) == sum(map(len, stale.values()))
    with database.read() as tx:
        kept, gone = tx.jobs.get("j 1.2.9"), tx.jobs.get("j 1.2.3")
        assert (kept is not None, gone) == (True, None)
        assert [len(tx.deliveries.of_study(uid)) for uid in ("1.2.3", "1.2.9")] == [0, 1]
        assert [len(tx.journal.decisions(study_uid=uid)) for uid in ("1.2.3", "1.2.9")] == [0, 1]
        assert {(e.subject_id, e.step) for e in tx.journal.latest()} == {("1.2.9", "open"), ("2.25.1", "report")}
        assert set(tx.instances.known(["1.2.3.1", "1.2.3.2", "1.2.9.1", "1.2.9.2"])) == {
            "1.2.3.1", "1.2.9.1", "1.2.9.2"
        }  # fmt: skip
        assert tx.instances.is_result_series("1.2.3.4")
        assert [bool(tx.commitments.of_transaction(uid)) for uid in ("2.25.1", "2.25.2")] == [True, False]
        manifests = [bool(tx.manifests.get(ManifestKind.COMMITMENT, f"2.25.{n}")) for n in (1, 2, 3)]
        assert manifests == [True, False, True]
        assert [tx.asked_commitments.get(uid) is not None for uid in ("2.25.7", "2.25.8")] == [False, True]
