"""Jobs of one version of images run together, and each keeps its own lease, attempt, results and end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from node.domain.errors import ChildLost, Interrupted, TimedOut
from node.domain.job import Job, JobInput, JobOutput, JobState, Outcome, Role
from node.domain.priority import Priority
from node.services.batches import Batches
from node.services.work import Work
from tests.fakes import FakeEngine
from tests.house import LEASE, MODEL, RETRY, House, provenance, succeed

WAIT = timedelta(seconds=2)


class Engine(FakeEngine):
    """An engine whose batches may fail as a whole, or leave jobs to run by themselves."""

    def __init__(
        self,
        run: Callable[[JobInput], JobOutput],
        together: Callable[[Sequence[JobInput]], list[JobOutput | None]] | None = None,
    ) -> None:
        super().__init__(run)
        self.together = together

    def run_batch(
        self, jobs: Sequence[JobInput], *, timeout: timedelta, beat: Callable[[], None]
    ) -> list[JobOutput | None]:
        if self.together is None:
            return super().run_batch(jobs, timeout=timeout, beat=beat)
        self.batches.append([job.study.study_uid for job in jobs])
        beat()
        return self.together(jobs)


def image(job: JobInput) -> JobOutput:
    """Runs as a version of images does: it says that it takes several at once."""
    return replace(succeed(job, results=1, prefix=job.study.study_uid.replace(".", "")), batches=True)


class Ward:
    """A house with a worker that knows its version to be one of images."""

    def __init__(self, house: House, engine: Engine, *, most: int = 3, stopping: Callable[[], bool] = lambda: False):
        self.house, self.engine = house, engine
        self.batches = Batches(most, WAIT)
        self.work = Work(
            house.database.write, house.database.read, house.clock, house.files, engine, provenance, house.locate,
            house.oversight, house.beside, owner="here/1/1", device="cpu", attempts=3, lease=LEASE,
            timeout=timedelta(seconds=900), retry=RETRY, batches=self.batches, stopping=stopping,
        )  # fmt: skip
        self.add("1.0")
        assert self.work.work()
        self.engine.jobs.clear()

    def add(self, *studies: str, priority: Priority = Priority.ROUTINE, role: Role = Role.CHAMPION) -> None:
        """Queue a job for each study."""
        for study in studies:
            self.house.assemble.index([self.house.receive(f"{study}.1", study=study)])
            now = self.house.clock.tick(0.001)
            send_to = ("PACS",) if role is Role.CHAMPION else ()
            job = Job(
                f"job-{study}",
                study,
                1,
                "r",
                MODEL,
                send_to,
                JobState.QUEUED,
                0,
                now,
                now,
                priority=priority,
                role=role,
            )
            with self.house.database.write() as tx:
                tx.jobs.add(job)

    def jobs(self) -> dict[str, Job]:
        with self.house.database.read() as tx:
            return {job.study_uid: job for job in tx.jobs.latest()}


def test_due_jobs_of_a_version_run_together_each_with_its_own_results(house: House) -> None:
    ward = Ward(house, Engine(image))
    ward.add("1.1", "1.2", "1.3", "1.4")
    assert ward.work.work()
    assert ward.engine.batches == [["1.1", "1.2", "1.3"]]
    ended = ward.jobs()
    for study in ("1.1", "1.2", "1.3"):
        assert (ended[study].state, ended[study].attempt) == (JobState.SUCCEEDED, 1)
        with house.database.read() as tx:
            assert [i.study_uid for i in tx.instances.of_job(ended[study].id)] == [study]
            assert len(tx.deliveries.of_study(study)) == 1
    assert ended["1.4"].state is JobState.QUEUED


def test_a_version_that_does_not_say_so_runs_its_jobs_one_by_one(house: House) -> None:
    ward = Ward(house, Engine(lambda job: replace(image(job), batches=False)))
    ward.add("1.1", "1.2")
    assert ward.work.work()
    assert ward.work.work()
    assert ward.engine.batches == []


def test_a_job_waits_for_others_no_longer_than_it_may(house: House) -> None:
    ward = Ward(house, Engine(image))
    ward.add("1.1")
    assert not ward.work.work()
    house.clock.tick(1)
    ward.add("1.2")
    assert not ward.work.work()
    house.clock.tick(1.1)
    assert ward.work.work()
    assert ward.engine.batches == [["1.1", "1.2"]]


def test_as_many_as_run_together_wait_for_no_more(house: House) -> None:
    ward = Ward(house, Engine(image))
    ward.add("1.1", "1.2", "1.3")
    assert ward.work.work()
    assert ward.engine.batches == [["1.1", "1.2", "1.3"]]


def test_what_waits_holds_up_no_other_version(house: House) -> None:
    ward = Ward(house, Engine(image))
    ward.add("1.1")
    with house.database.write() as tx:
        job = tx.jobs.latest(limit=1)[0]
        tx.jobs.add(replace(job, id="other", model=replace(MODEL, name="other", digest="b" * 64)))
    assert ward.work.work()
    assert [job.provenance.model.name for job in ward.engine.jobs] == ["other"]


def test_a_stat_study_waits_for_nobody_and_runs_alone(house: House) -> None:
    ward = Ward(house, Engine(image))
    ward.add("1.1", "1.2")
    ward.add("1.9", priority=Priority.STAT)
    assert ward.work.work()
    assert [job.study.study_uid for job in ward.engine.jobs] == ["1.9"]
    assert ward.engine.batches == []


def test_results_that_are_sent_do_not_wait_for_those_that_are_not(house: House) -> None:
    ward = Ward(house, Engine(image))
    ward.add("1.1", role=Role.SHADOW)
    ward.add("1.2", "1.3")
    house.clock.tick(3)
    assert ward.work.work()
    assert ward.engine.batches == [["1.2", "1.3"]]


@pytest.mark.parametrize("error", [ChildLost("signal 9"), TimedOut("too long")])
def test_a_batch_that_fails_is_run_again_one_by_one(house: House, error: Exception) -> None:
    def run(job: JobInput) -> JobOutput:
        if job.study.study_uid == "1.2":
            raise error
        return image(job)

    def together(jobs: Sequence[JobInput]) -> list[JobOutput | None]:
        raise error

    ward = Ward(house, Engine(run))
    ward.engine.together = together
    ward.add("1.1", "1.2", "1.3")
    assert ward.work.work()
    assert [job.study.study_uid for job in ward.engine.jobs] == ["1.1", "1.2", "1.3"]
    ended = ward.jobs()
    assert [ended[s].state for s in ("1.1", "1.2", "1.3")] == [JobState.SUCCEEDED, JobState.QUEUED, JobState.SUCCEEDED]
    assert {ended[s].attempt for s in ("1.1", "1.2", "1.3")} == {1}
    # Tried before, it runs by itself from now on.
    ward.add("1.4", "1.5")
    house.clock.tick(11)
    ward.engine.jobs.clear()
    assert ward.work.work()
    assert [job.study.study_uid for job in ward.engine.jobs] == ["1.2"]


def test_one_bad_image_fails_only_its_own_job(house: House) -> None:
    def together(jobs: Sequence[JobInput]) -> list[JobOutput | None]:
        refused = JobOutput(Outcome.REFUSED, reason="not-monochrome: it is in colour")
        return [refused if job.study.study_uid == "1.2" else image(job) for job in jobs]

    ward = Ward(house, Engine(image, together))
    ward.add("1.1", "1.2", "1.3")
    ward.work.work()
    ended = ward.jobs()
    assert [ended[s].state for s in ("1.1", "1.2", "1.3")] == [JobState.SUCCEEDED, JobState.REFUSED, JobState.SUCCEEDED]


def test_a_job_that_the_batch_leaves_over_runs_by_itself(house: House) -> None:
    ward = Ward(house, Engine(image, lambda jobs: [None, *map(image, jobs[1:])]))
    ward.add("1.1", "1.2", "1.3")
    ward.work.work()
    assert [job.study.study_uid for job in ward.engine.jobs] == ["1.1"]
    assert {ward.jobs()[s].state for s in ("1.1", "1.2", "1.3")} == {JobState.SUCCEEDED}


def test_every_lease_is_kept_and_a_lost_one_drops_one_result(house: House) -> None:
    ward = Ward(house, Engine(image))

    def together(jobs: Sequence[JobInput]) -> list[JobOutput | None]:
        with house.database.write() as tx:
            taken = tx.jobs.get("job-1.2")
            assert taken is not None
            tx.jobs.update(taken, replace(taken, owner="there/2/2"))
        return [image(job) for job in jobs]

    ward.engine.together = together
    ward.add("1.1", "1.2", "1.3")
    ward.work.work()
    ended = ward.jobs()
    assert [ended[s].state for s in ("1.1", "1.2", "1.3")] == [JobState.SUCCEEDED, JobState.RUNNING, JobState.SUCCEEDED]
    assert ended["1.2"].owner == "there/2/2"


def test_leases_of_those_that_wait_for_their_turn_are_prolonged(house: House) -> None:
    class Slow(Engine):
        def run(self, job: JobInput, *, timeout: timedelta, beat: Callable[[], None]) -> JobOutput:
            for _ in range(4):
                house.clock.tick(20)
                beat()
            return super().run(job, timeout=timeout, beat=beat)

    ward = Ward(house, Slow(image, lambda jobs: [None] * len(jobs)))
    ward.add("1.1", "1.2", "1.3")
    leases: list[float] = []

    def run(job: JobInput) -> JobOutput:
        with house.database.read() as tx:
            leases.append(
                min(((j.lease_until or j.created_at) - house.clock.now()).total_seconds() for j in tx.jobs.owned())
            )
        return image(job)

    ward.engine._run = run
    ward.work.work()
    assert len(leases) == 3
    assert min(leases) > 0
    assert {ward.jobs()[s].state for s in ("1.1", "1.2", "1.3")} == {JobState.SUCCEEDED}


def test_a_stop_gives_all_of_them_back_and_counts_none(house: House) -> None:
    def together(jobs: Sequence[JobInput]) -> list[JobOutput | None]:
        raise Interrupted("the node was stopped")

    ward = Ward(house, Engine(image))
    ward.engine.together = together
    ward.add("1.1", "1.2", "1.3")
    ward.work.work()
    assert {(ward.jobs()[s].state, ward.jobs()[s].attempt) for s in ("1.1", "1.2", "1.3")} == {(JobState.QUEUED, 0)}


def test_a_version_whose_model_failed_in_a_batch_takes_the_others_along(house: House) -> None:
    broken = JobOutput(Outcome.FAILED, reason="its files changed", model_failed=True)
    ward = Ward(
        house, Engine(lambda job: broken if job.study.study_uid != "1.0" else image(job), lambda jobs: [None] * 3)
    )
    ward.add("1.1", "1.2", "1.3")
    ward.work.work()
    assert {ward.jobs()[s].state for s in ("1.1", "1.2", "1.3")} == {JobState.DEAD}
