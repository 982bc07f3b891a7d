"""What is kept for long enough is removed; what is not done with stays, whatever its age."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from node.domain.commitment import CommitmentState, Reference
from node.domain.delivery import DeliveryState
from node.domain.errors import IllegalStep
from node.domain.job import JobInput, JobOutput, JobState, Outcome
from node.domain.retention import Amount, Keep, Kind
from node.domain.study import StudyState
from node.services.commitment import AskCommitment
from tests import objects
from tests.house import CT, PACS, House, everything, succeed
from tests.pruning import DAY, KEEP, done, files, study


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def test_a_study_goes_with_its_results_when_all_of_it_is_done_for_so_long(house: House) -> None:
    done(house)
    prune = house.prune(KEEP)
    house.clock.tick(30 * DAY - 60)
    prune.prune()
    assert (study(house).state, len(files(house))) == (StudyState.ROUTED, 4)
    house.clock.tick(120)
    assert prune.due().amounts[Kind.STUDIES].number == 1
    assert prune.prune()
    assert (study(house).state, study(house).instances, files(house)) == (StudyState.EXPIRED, 0, [])
    assert prune.due().amounts[Kind.STUDIES] == Amount()
    with house.database.read() as tx:
        assert tx.instances.of_study("1.2") == []
        assert tx.instances.count() == 0
        assert tx.instances.is_result_series("2.25.9"), "what comes back is still known"
        assert {d.state for d in tx.deliveries.of_study("1.2")} == {DeliveryState.DELIVERED}
        assert tx.retention.totals()[Kind.STUDIES].number == 1
        assert tx.retention.totals()[Kind.STUDIES].size > 0
        assert tx.retention.oldest_study() is None
        (event,) = [e for e in tx.journal.of_study("1.2") if e.step == "expire"]
    assert event.detail["instances"] == 1
    assert not house.files.absolute("instances/1.2").exists()


def test_nothing_goes_without_a_setting(house: House) -> None:
    done(house)
    house.clock.tick(10_000 * DAY)
    house.prune(Keep()).prune()
    assert (study(house).state, len(files(house))) == (StudyState.ROUTED, 4)


def fails(job: JobInput) -> JobOutput:
    return JobOutput(Outcome.FAILED, reason="InvalidInput: the grid is odd")


def refuses(job: JobInput) -> JobOutput:
    return JobOutput(Outcome.REFUSED, reason="no")


def receiving(house: House) -> None:
    house.assemble.index([house.receive("1.2.3.1")])


def settled(house: House) -> None:
    receiving(house)
    house.clock.tick(11)
    house.assemble.settle()


def queued(house: House) -> None:
    house.settled_job()


def dead(house: House) -> None:
    house.settled_job()
    house.worker(fails).work()


def unnoticed(house: House) -> None:
    house.settled_job()
    house.worker(refuses).work()


def undelivered(house: House) -> None:
    house.settled_job()
    house.worker(succeed).work()


def rejected(house: House) -> None:
    undelivered(house)
    house.sender.status = lambda path: 0xA900 if path.name == "2.25.2.dcm" else 0
    everything(house.outbox())


def unverified(house: House) -> None:
    undelivered(house)
    everything(house.outbox(peer=replace(PACS, verify="query")))


def asked_about(house: House) -> None:
    done(house)
    AskCommitment(house.database.write, house.clock).ask("2.25.7", "CT1", [Reference(CT, "1.2.3.1")])


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (receiving, None),
        (settled, None),
        (queued, "a job waits or runs"),
        (dead, "a job is dead: requeue or dismiss it"),
        (unnoticed, "a notice is still to be given"),
        (undelivered, "a result is not delivered yet"),
        (rejected, "a delivery is dead: requeue or dismiss it"),
        (unverified, "a result is not verified yet"),
        (asked_about, "a peer has asked for storage commitment and was not told yet"),
    ],
)
def test_what_is_not_done_with_is_never_removed(house: House, state: Callable[[House], None], why: str | None) -> None:
    state(house)
    before = files(house)
    house.clock.tick(1000 * DAY)
    prune = house.prune(KEEP, verified=["PACS"])
    assert dict(prune.due().held) == ({why: 1} if why else {})
    prune.prune()
    assert files(house) == before
    assert study(house).state is not StudyState.EXPIRED


def test_what_is_being_sent_stays(house: House) -> None:
    done(house)
    house.clock.tick(31 * DAY)
    house.prune(KEEP, being_sent=lambda uid: uid == "1.2").prune()
    assert study(house).state is StudyState.ROUTED


def test_what_was_dead_goes_when_a_person_has_dismissed_it(house: House) -> None:
    dead(house)
    with house.database.read() as tx:
        (job,) = tx.jobs.of_study("1.2")
    with pytest.raises(IllegalStep, match="when its notice was given"):
        house.requeue.dismiss_job(job.id, "ann")
    with house.database.write() as tx:
        tx.jobs.mark_noticed(job)
    assert house.requeue.dismiss_job(job.id, "ann").state is JobState.CANCELLED
    with pytest.raises(IllegalStep, match="only a dead job can be dismissed"):
        house.requeue.dismiss_job(job.id, "ann")
    house.clock.tick(31 * DAY)
    house.prune(KEEP).prune()
    assert study(house).state is StudyState.EXPIRED


def test_a_dead_delivery_too(house: House) -> None:
    rejected(house)
    with house.database.read() as tx:
        (row,) = [d for d in tx.deliveries.of_study("1.2") if d.state is DeliveryState.DEAD]
    assert house.requeue.dismiss_delivery(row.id, "ann").state is DeliveryState.WITHDRAWN
    house.clock.tick(31 * DAY)
    house.prune(KEEP).prune()
    assert study(house).state is StudyState.EXPIRED


def test_a_peer_that_does_not_verify_any_more_holds_nothing(house: House) -> None:
    unverified(house)
    house.clock.tick(31 * DAY)
    house.prune(KEEP).prune()
    assert study(house).state is StudyState.EXPIRED


def test_a_commitment_that_was_told_holds_nothing(house: House) -> None:
    asked_about(house)
    with house.database.write() as tx:
        (asked,) = tx.commitments.in_state(CommitmentState.ASKED)
        tx.commitments.update(asked, replace(asked, state=CommitmentState.REPORTED))
    house.clock.tick(31 * DAY)
    house.prune(KEEP).prune()
    assert study(house).state is StudyState.EXPIRED


def test_what_comes_again_is_a_new_revision_with_a_job_of_its_own_that_replaces_the_old_results(house: House) -> None:
    done(house)
    house.clock.tick(31 * DAY)
    house.prune(KEEP).prune()
    job = house.settled_job()
    assert (study(house).revision, study(house).instances, job.revision) == (2, 1, 2)
    seen: list[JobInput] = []

    def run(given: JobInput) -> JobOutput:
        seen.append(given)
        return succeed(given, prefix="7")

    house.worker(run).work()
    (given,) = seen
    assert [i.sop_instance_uid for s in given.study.series for i in s.instances] == ["1.2.3.1"]
    assert [r.sop_instance_uid for r in given.supersedes["full"]] == ["2.25.1", "2.25.2", "2.25.3"]


def test_a_replay_of_what_is_gone_is_refused(house: House) -> None:
    from node.domain.model import INSTALLED, KnownVersion, VersionState
    from tests.house import MODEL

    done(house)
    house.clock.tick(31 * DAY)
    house.prune(KEEP).prune()
    known = KnownVersion(MODEL, INSTALLED, VersionState.READY, INSTALLED, house.clock.now())
    with pytest.raises(IllegalStep, match="are not kept any more"):
        house.replay.replay("1.2", known, send=False, who="ann", why="to see")


def test_a_correction_goes_with_its_study_and_objects_aside_by_themselves(tmp_path: Path) -> None:
    from tests.unit.test_corrections import CORRECTED, SERIES, STUDY, Ward

    ward = Ward(tmp_path)
    house = ward.house
    ward.settled()
    ward.inputs()
    everything(house.outbox())
    ward.send(*SERIES, **CORRECTED)
    ward.judge_after(1)
    ward.inputs()
    everything(house.outbox())
    conflict = objects.incoming(SOPInstanceUID=f"{SERIES[0]}.1", SeriesInstanceUID=SERIES[0], Rows=3)
    ward.receive.store(conflict)
    ward.assemble.index(ward.batch)
    aside = files(house, "aside")
    assert (len([p for p in aside if "/correction/" in p]), len([p for p in aside if "/conflict/" in p])) == (20, 2)
    house.clock.tick(31 * DAY)
    house.prune(KEEP).prune()
    assert (study(house, STUDY).state, files(house)) == (StudyState.EXPIRED, [])
    assert [p for p in files(house, "aside") if "/conflict/" not in p] == []
    assert len(files(house, "aside")) == 2
    keep = replace(KEEP, aside=timedelta(days=60))
    house.prune(keep).prune()
    assert len(files(house, "aside")) == 2
    house.clock.tick(30 * DAY)
    assert house.prune(keep).due().amounts[Kind.ASIDE].number == 1
    house.prune(keep).prune()
    assert files(house, "aside") == []
    with house.database.read() as tx:
        assert tx.instances.count_asides() == 0
        assert tx.retention.totals()[Kind.ASIDE].number == 1
    house.close()


def test_quarantine_goes_when_its_job_is_not_dead_any_more(house: House) -> None:
    keep = Keep(quarantine=timedelta(days=90))

    def spoilt(job: JobInput) -> JobOutput:
        (job.out_dir / "0000.dcm").write_bytes(b"spoilt")
        return JobOutput(Outcome.FAILED, reason="CheckFailed: x", problems=("x",))

    house.settled_job()
    house.worker(spoilt).work()
    with house.database.read() as tx:
        (job,) = tx.jobs.of_study("1.2")
    lie = files(house, "quarantine")
    assert len(lie) == 2
    (run,) = house.prune(keep).retained().quarantine
    assert (run.path, run.job_id, run.at, run.amount.number) == (f"quarantine/{job.id}/1", job.id, house.clock.now(), 2)
    house.clock.tick(91 * DAY)
    house.prune(keep).prune()
    assert files(house, "quarantine") == lie, "nobody has looked at it"
    house.requeue.requeue_job(job.id, "ann")
    house.worker(succeed).work()
    assert house.prune(keep).due().amounts[Kind.QUARANTINE].number == 1
    house.prune(keep).prune()
    assert files(house, "quarantine") == []
    assert not house.files.absolute(f"quarantine/{job.id}").exists()


def test_scratch_of_jobs_that_were_killed_goes_and_that_of_running_ones_stays(house: House) -> None:
    job = house.settled_job()
    stray = [house.files.job_dir(name, 1) for name in ("gone", "gone-notice", "young", job.id)]
    for folder in stray:
        (folder / "x").write_bytes(b"x")
        if folder.parent.name != "young":
            for each in (folder / "x", folder, folder.parent):
                os.utime(each, (0, 0))

    def run(given: JobInput) -> JobOutput:
        for each in (given.out_dir, given.out_dir.parent):
            os.utime(each, (0, 0))
        house.prune(Keep()).prune()
        assert given.out_dir.is_dir()
        return refuses(given)

    os.utime(stray[2] / "x", (house.clock.now().timestamp(),) * 2)
    house.worker(run).work()
    assert [p.name for p in sorted(house.files.absolute("work").iterdir())] == ["young"]


def test_rows_of_what_is_over_go_and_the_series_of_results_stay_known(house: House) -> None:
    done(house)
    house.clock.tick(31 * DAY)
    keep = replace(KEEP, history=timedelta(days=365))
    house.prune(keep).prune()
    house.clock.tick(366 * DAY)
    due = house.prune(keep).due().amounts[Kind.HISTORY].number
    prune = house.prune(keep)
    prune.prune()
    with house.database.read() as tx:
        assert (tx.journal.of_study("1.2"), tx.deliveries.of_study("1.2"), tx.jobs.of_study("1.2")) == ([], [], [])
        assert tx.journal.decisions(study_uid="1.2") == []
        assert tx.instances.is_result_series("2.25.9")
        assert len(tx.instances.known(["2.25.1", "2.25.2", "2.25.3"])) == 1
        assert tx.retention.totals()[Kind.HISTORY].number >= due > 10
    assert study(house).state is StudyState.EXPIRED
    job = house.settled_job()
    assert (job.revision, job.state) == (2, JobState.QUEUED), "it has another id than the job that was forgotten"


def test_rows_of_a_study_that_is_kept_stay(house: House) -> None:
    done(house)
    with house.database.read() as tx:
        before = len(tx.journal.of_study("1.2"))
    house.clock.tick(1000 * DAY)
    house.prune(Keep(history=timedelta(days=30))).prune()
    with house.database.read() as tx:
        assert (len(tx.journal.of_study("1.2")), len(tx.deliveries.of_study("1.2"))) == (before, 3)
