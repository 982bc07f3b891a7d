"""The life of a job: leases, attempts, dead letters, results and deliveries in one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node.domain.delivery import DeliveryState
from node.domain.errors import AinodeError, ChildLost, Refused, TimedOut
from node.domain.job import Job, JobInput, JobOutput, JobState, Outcome
from node.domain.priority import Priority
from node.domain.profile import FULL, Profile
from node.services.recover import Recover
from node.services.requeue import Requeue
from tests.house import CHEST, LEASE, House, succeed


def job_of(house: House, job: Job) -> Job:
    with house.database.read() as tx:
        found = tx.jobs.get(job.id)
    assert found is not None
    return found


def recover(house: House, alive: Callable[[str], bool]) -> Recover:
    def cannot(path: str) -> object:
        raise AssertionError(path)

    return Recover(
        house.database.write, house.database.read, house.clock, house.files,
        read_kept=cannot, read_aside=cannot, alive=alive, attempts=3,  # type: ignore[arg-type]
    )  # fmt: skip


def raises(error: Exception) -> Callable[[JobInput], JobOutput]:
    def run(job: JobInput) -> JobOutput:
        raise error

    return run


def test_a_job_that_succeeds_leaves_results_and_deliveries(house: House) -> None:
    job = house.settled_job()
    assert house.worker(succeed).work()
    done = job_of(house, job)
    assert (done.state, done.attempt, done.owner) == (JobState.SUCCEEDED, 1, None)
    assert done.timings == {"read": 0.1}
    with house.database.read() as tx:
        results = tx.instances.of_job(job.id)
        deliveries = tx.deliveries.of_study("1.2")
        assert tx.instances.is_result_series("2.25.9")
        assert [i.sop_instance_uid for i in tx.instances.of_study("1.2")] == ["1.2.3.1"]
    assert len(results) == 3
    assert all(house.files.absolute(r.path).is_file() for r in results)
    assert [(d.peer, d.state, d.position) for d in deliveries] == [("PACS", DeliveryState.PENDING, n) for n in range(3)]
    assert not house.worker(succeed).work()


def test_each_peer_is_owed_the_set_of_its_profile(tmp_path: Path) -> None:
    house = House(tmp_path, routes=[replace(CHEST, send_to=("PACS", "VIEWER", "ARCHIVE"))])
    job = house.settled_job()
    profiles = {"PACS": FULL, "VIEWER": Profile("small"), "ARCHIVE": FULL}
    seen: list[JobInput] = []

    def run(given: JobInput) -> JobOutput:
        seen.append(given)
        return succeed(given)

    house.worker(run, profiles=profiles).work()
    assert [p.name for p in seen[0].profiles] == ["full", "small"]
    with house.database.read() as tx:
        assert len(tx.instances.of_job(job.id)) == 6
        owed = {
            peer: [(d.sop_instance_uid, d.position, d.closes) for d in tx.deliveries.latest()[::-1] if d.peer == peer]
            for peer in profiles
        }
    full = [("2.25.1", 0, False), ("2.25.2", 1, False), ("2.25.3", 2, True)]
    small = [("2.25.4", 0, False), ("2.25.5", 1, False), ("2.25.6", 2, True)]
    assert owed == {"PACS": full, "VIEWER": small, "ARCHIVE": full}
    house.close()


def test_a_result_is_as_urgent_as_its_job(tmp_path: Path) -> None:
    house = House(tmp_path, routes=[replace(CHEST, priority=Priority.STAT)])
    house.settled_job()
    house.worker(succeed).work()
    with house.database.read() as tx:
        assert {d.priority for d in tx.deliveries.latest()} == {Priority.STAT}
    house.close()


def test_what_goes_nowhere_is_written_in_full(tmp_path: Path) -> None:
    house = House(tmp_path, routes=[replace(CHEST, send_to=())])
    house.settled_job()
    seen: list[JobInput] = []

    def run(given: JobInput) -> JobOutput:
        seen.append(given)
        return succeed(given)

    house.worker(run, profiles={"PACS": Profile("small")}).work()
    assert seen[0].profiles == (FULL,)
    house.close()


def test_a_job_gets_exactly_the_instances_of_its_revision(house: House) -> None:
    house.settled_job()
    seen: list[JobInput] = []

    def run(job: JobInput) -> JobOutput:
        seen.append(job)
        house.assemble.index([house.receive("1.2.3.2")])
        return succeed(job)

    house.worker(run).work()
    (series,) = seen[0].study.series
    assert [i.sop_instance_uid for i in series.instances] == ["1.2.3.1"]
    assert series.instances[0].path.is_file()


def test_a_refusal_is_an_answer(house: House) -> None:
    job = house.settled_job()
    house.worker(lambda _: JobOutput(Outcome.REFUSED, reason="no-lungs: there are none")).work()
    done = job_of(house, job)
    assert (done.state, done.reason) == (JobState.REFUSED, "no-lungs: there are none")
    assert not house.worker(succeed).work()


@pytest.mark.parametrize("error", [ChildLost("signal 9"), TimedOut("ran longer than 900 s")])
def test_a_crash_is_tried_again_three_times_then_dead(house: House, error: AinodeError) -> None:
    job = house.settled_job()
    worker = house.worker(raises(error))
    for attempt, pause in ((1, 10), (2, 20)):
        assert worker.work()
        assert (job_of(house, job).state, job_of(house, job).attempt) == (JobState.QUEUED, attempt)
        assert not worker.work()
        house.clock.tick(pause)
    assert worker.work()
    dead = job_of(house, job)
    assert (dead.state, dead.attempt) == (JobState.DEAD, 3)
    assert str(error) in (dead.reason or "")
    house.clock.tick(3600)
    assert not worker.work()


def test_an_error_that_a_retry_cannot_mend_is_dead_at_once(house: House) -> None:
    job = house.settled_job()
    house.worker(lambda _: JobOutput(Outcome.FAILED, reason="CheckFailed: no banner")).work()
    assert job_of(house, job).state is JobState.DEAD


def fails_the_check(job: JobInput) -> JobOutput:
    return replace(
        succeed(job), outcome=Outcome.FAILED, reason="CheckFailed: SR root: no title", problems=("SR root: no title",),
        results=(),
    )  # fmt: skip


def test_what_fails_the_check_is_kept_apart_and_nothing_of_it_is_sent(house: House) -> None:
    job = house.settled_job()
    house.worker(fails_the_check).work()
    dead = job_of(house, job)
    place = f"quarantine/{job.id}/1"
    assert dead.state is JobState.DEAD
    assert dead.reason == f"CheckFailed: SR root: no title; nothing was sent, the objects lie in {place}"
    kept = house.files.absolute(place)
    assert sorted(p.name for p in kept.iterdir()) == ["2.25.1.dcm", "2.25.2.dcm", "2.25.3.dcm", "reason.json"]
    note = json.loads((kept / "reason.json").read_text())
    assert (note["job"], note["attempt"], note["problems"]) == (job.id, 1, ["SR root: no title"])
    with house.database.read() as tx:
        assert tx.instances.of_job(job.id) == []
        assert tx.deliveries.latest() == []
    assert not house.worker(succeed).work()


def test_a_requeued_job_leaves_what_lies_in_quarantine(house: House) -> None:
    job = house.settled_job()
    for _ in range(2):
        house.worker(fails_the_check).work()
        Requeue(house.database.write, house.clock).requeue_job(job.id, "ann")
    house.worker(succeed).work()
    assert job_of(house, job).state is JobState.SUCCEEDED
    kept = house.files.absolute(f"quarantine/{job.id}")
    assert sorted(p.name for p in kept.iterdir()) == ["1", "1-2"]
    assert all((attempt / "reason.json").is_file() for attempt in kept.iterdir())


def test_a_stop_gives_the_job_back_and_does_not_count(house: House) -> None:
    job = house.settled_job()
    house.worker(succeed, stopping=True).work()
    back = job_of(house, job)
    assert (back.state, back.attempt, back.reason) == (JobState.QUEUED, 0, "the node was stopped")
    house.worker(succeed).work()
    assert job_of(house, job).state is JobState.SUCCEEDED


def test_a_worker_that_lost_its_lease_commits_nothing(house: House) -> None:
    job = house.settled_job()

    def slow(task: JobInput) -> JobOutput:
        house.clock.tick(61)
        assert recover(house, lambda owner: True).leases() == 1
        return succeed(task)

    house.worker(slow).work()
    with house.database.read() as tx:
        assert tx.instances.of_job(job.id) == []
        assert tx.deliveries.latest() == []
    assert job_of(house, job).state is JobState.QUEUED
    house.worker(succeed).work()
    with house.database.read() as tx:
        assert len(tx.deliveries.latest()) == 3


def test_a_job_of_a_dead_worker_is_taken_back_at_once_and_ends_after_three(house: House) -> None:
    job = house.settled_job()
    for attempt in (1, 2, 3):
        with house.database.write() as tx:
            assert tx.jobs.claim(owner="here/9/9", now=house.clock.now(), lease=LEASE) is not None
        assert recover(house, lambda owner: True).leases() == 0
        assert recover(house, lambda owner: owner != "here/9/9").leases() == 1
        assert job_of(house, job).state is (JobState.DEAD if attempt == 3 else JobState.QUEUED)


def test_rows_are_rebuilt_from_disk(house: House, tmp_path: Path) -> None:
    kept = [house.receive("1.1"), house.receive("1.2"), house.receive("1.3")]
    house.assemble.index(kept[:1])
    by_path = {i.path: i for i in kept}
    service = Recover(
        house.database.write, house.database.read, house.clock, house.files,
        read_kept=lambda path: by_path[path], read_aside=pytest.fail,
        alive=lambda owner: True, attempts=3,
    )  # fmt: skip
    assert service.index(house.assemble) == 2
    assert service.index(house.assemble) == 0
    with house.database.read() as tx:
        study = tx.studies.get("1.2")
    assert study is not None
    assert study.instances == 3


def test_a_file_that_cannot_be_read_stops_no_recovery(house: House) -> None:
    kept = [house.receive("1.1"), house.receive("1.2")]

    def read(path: str) -> object:
        if path == kept[0].path:
            raise Refused("damaged", "the file is damaged")
        return kept[1]

    service = Recover(
        house.database.write, house.database.read, house.clock, house.files,
        read_kept=read, read_aside=read, alive=lambda owner: True, attempts=3,  # type: ignore[arg-type]
    )  # fmt: skip
    assert service.index(house.assemble) == 1
