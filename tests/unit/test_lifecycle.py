"""A version that is tried and taken back: canary, shadow, stop rules, rollback under load, a champion that breaks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.domain.errors import IllegalStep, InvalidInput, LostLease
from node.domain.instance import Origin
from node.domain.job import JobInput, JobOutput, JobState, Outcome, Role
from node.domain.model import ModelVersion, VersionState
from node.domain.priority import Priority
from node.domain.rollout import PLACES, Bounds, place
from tests.house import MODEL, everything
from tests.versions import WHY, ModelHouse, each_named

pytestmark = pytest.mark.usefixtures("threshold_kind")

STUDIES = [f"1.2.{n}" for n in range(10, 50)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ModelHouse]:
    house = ModelHouse(tmp_path)
    house.rollouts.refresh()
    yield house
    house.close()


def finds(volume: Callable[[ModelVersion], float]) -> Callable[[JobInput], JobOutput]:
    """A run whose one finding depends on the version."""

    def run(job: JobInput) -> JobOutput:
        measured = {"volume_ml": {"name": "Volume", "value": volume(job.provenance.model), "unit": "ml"}}
        return replace(each_named(job), findings={"regions": {"lung": {"label": "Lung", "measurements": measured}}})

    return run


def fails_for(model: ModelVersion, *, model_failed: bool = False) -> Callable[[JobInput], JobOutput]:
    def run(job: JobInput) -> JobOutput:
        if job.provenance.model == model:
            return JobOutput(Outcome.FAILED, reason="it broke", model_failed=model_failed)
        return each_named(job)

    return run


def test_a_canary_gets_its_studies_and_is_sent(house: ModelHouse) -> None:
    new = house.add("2").model
    house.give(house.models.find("lung@2"), Role.CANARY, share=5000)
    jobs = house.route(*STUDIES)
    sent = {j.study_uid: j for j in jobs if j.send_to}
    assert set(sent) == set(STUDIES)
    for study, job in sent.items():
        assert job.model == (new if place("lung", study) < 5000 else MODEL)
    assert {j.study_uid for j in jobs if j.role is Role.CONTROL} == {s for s, j in sent.items() if j.model == new}
    house.work_off(each_named)
    everything(house.outbox())
    with house.database.read() as tx:
        assert {d.job_id for study in STUDIES for d in tx.deliveries.of_study(study)} == {j.id for j in sent.values()}


def test_widening_takes_no_study_away_and_keeps_what_was_counted(house: ModelHouse) -> None:
    known = house.add("2")
    house.give(known, Role.CANARY, share=100)
    since = house.rollout().canary.since  # type: ignore[union-attr]
    house.clock.tick(60)
    house.give(house.models.find("lung@2"), Role.CANARY, share=PLACES)
    canary = house.rollout().canary
    assert canary is not None
    assert (canary.share, canary.since) == (PLACES, since)
    assert house.audited()[-2:] == [("ann", "canary", "2"), ("ann", "canary", "2")]


def test_a_shadow_runs_is_stored_and_compared_and_never_sent(house: ModelHouse) -> None:
    new = house.add("2").model
    house.give(house.models.find("lung@2"), Role.SHADOW)
    house.route("1.2.10", "1.2.11")
    house.work_off(finds(lambda model: 90.0 if model == new else 100.0))
    everything(house.outbox())
    with house.database.read() as tx:
        for study in ("1.2.10", "1.2.11"):
            shadow, champion = house.job_in(Role.SHADOW, study), house.job_in(Role.CHAMPION, study)
            assert (shadow.state, shadow.model, shadow.send_to) == (JobState.SUCCEEDED, new, ())
            assert [i.origin for i in tx.instances.of_job(shadow.id)] == [Origin.RESULT] * 3
            assert {d.job_id for d in tx.deliveries.of_study(study)} == {champion.id}
            compared = tx.comparisons.of_job(shadow.id)
            assert compared is not None
            (difference,) = compared.differences
            assert (compared.champion_job, compared.champion, compared.disagreement) == (champion.id, MODEL, 0.1)
            assert (difference.region, difference.key, difference.champion, difference.other) == (
                "lung", "volume_ml", 100.0, 90.0
            )  # fmt: skip
    sent = {int(name.removesuffix(".dcm").removeprefix("2.25.")[:-1]) for name in house.sender.stored}
    assert sent == {int(j.id.replace("-", ""), 16) for j in house.jobs("1.2.10", "1.2.11") if j.role is Role.CHAMPION}


def test_a_refusal_beside_a_finding_is_full_disagreement(house: ModelHouse) -> None:
    new = house.add("2").model
    house.give(house.models.find("lung@2"), Role.SHADOW)
    house.route("1.2.10")
    house.work_off(
        lambda job: JobOutput(Outcome.REFUSED, reason="no") if job.provenance.model == new else each_named(job)
    )
    with house.database.read() as tx:
        (compared,) = tx.comparisons.of_model(new)
    assert (compared.state, compared.champion_state, compared.disagreement) == (
        JobState.REFUSED, JobState.SUCCEEDED, 1.0
    )  # fmt: skip


BOUNDS = Bounds(after=4)


def stopped(house: ModelHouse) -> dict[str, object]:
    """The audit of the stop, which the node did itself; and no job of the canary is left."""
    canary = house.models.find("lung@2").model
    assert house.rollout().canary is None
    entry = house.models.audit(limit=1)[0]
    assert (entry.who, entry.change.value, entry.model) == ("node", "stopped", canary)
    with house.database.read() as tx:
        assert tx.jobs.of_model(canary, unfinished=True) == []
    assert house.state(canary) is VersionState.READY
    return dict(entry.detail["figures"])


def begun(house: ModelHouse, bounds: Bounds = BOUNDS) -> ModelVersion:
    known = house.add("2")
    house.give(known, Role.CANARY, share=PLACES, bounds=bounds)
    house.route(*STUDIES[:10])
    return known.model


def test_errors_stop_a_canary_and_every_study_still_gets_its_result(house: ModelHouse) -> None:
    canary = begun(house)
    house.work_off(fails_for(canary))
    figures = stopped(house)
    assert (figures["jobs"], figures["failed"]) == (4, 4)
    for study in STUDIES[:10]:
        (sent,) = [j for j in house.jobs(study) if j.send_to and j.state is JobState.SUCCEEDED]
        assert (sent.model, sent.role) == (MODEL, Role.CHAMPION)


def test_disagreement_stops_a_canary(house: ModelHouse) -> None:
    canary = begun(house)
    house.work_off(finds(lambda model: 50.0 if model == canary else 100.0))
    figures = stopped(house)
    assert (figures["compared"], figures["disagreement"]) == (4, 0.5)
    assert "disagreement 0.500 with the champion over 4 studies" in house.models.audit(limit=1)[0].why


def test_latency_stops_a_canary(house: ModelHouse) -> None:
    canary = begun(house)

    def run(job: JobInput) -> JobOutput:
        house.clock.tick(31 if job.provenance.model == canary else 10)
        return each_named(job)

    house.work_off(run)
    figures = stopped(house)
    assert (figures["seconds"], figures["champion_seconds"]) == (31.0, 10.0)


def test_a_canary_within_its_bounds_goes_on(house: ModelHouse) -> None:
    canary = begun(house)
    house.work_off(finds(lambda model: 99.0 if model == canary else 100.0))
    status = house.models.show("lung")
    assert status.figures is not None
    assert (status.figures.jobs, status.figures.failed, status.figures.compared) == (10, 0, 10)
    assert house.rollout().canary is not None


def test_a_rollback_under_load_loses_no_study(house: ModelHouse) -> None:
    """Workers run and studies arrive while the champion is taken back: each study gets exactly one sent result."""
    new = house.add("2").model
    house.give(house.models.find("lung@2"), Role.CHAMPION)
    house.route(*STUDIES[:20])
    running, taken_back = threading.Barrier(3), threading.Event()

    def run(job: JobInput) -> JobOutput:
        if job.provenance.model == new and not taken_back.is_set():
            running.wait(30)
            assert taken_back.wait(30)
        return each_named(job)

    def work() -> None:
        worker = house.worker(run)
        while worker.work():
            pass

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    running.wait(30)  # both workers are in the middle of a job of the version that is taken back
    house.rollouts.rollback("lung", who="ann", why=WHY)
    taken_back.set()
    for worker in workers:
        worker.join(60)
    house.route(*STUDIES[20:])
    house.work_off(each_named)
    everything(house.outbox())
    assert house.rollout().champion == MODEL
    with house.database.read() as tx:
        assert tx.jobs.of_model(new, unfinished=True) == []
        for study in STUDIES:
            (sent,) = [j for j in tx.jobs.of_study(study) if j.state is JobState.SUCCEEDED]
            assert sent.model == MODEL
            assert {d.job_id for d in tx.deliveries.of_study(study)} == {sent.id}
    entry = house.models.audit(limit=1)[0]
    assert (entry.change.value, entry.model, entry.detail["jobs handed over"]) == ("rolled back", new, 20)


def test_versions_go_back_in_the_order_in_which_they_came(house: ModelHouse) -> None:
    for version in ("2", "3"):
        house.give(house.add(version), Role.CHAMPION)
    assert house.rollouts.rollback("lung", who="ann", why=WHY).champion.version == "2"
    assert house.rollouts.rollback("lung", who="ann", why=WHY).champion == MODEL
    with pytest.raises(InvalidInput, match="has no former champion"):
        house.rollouts.rollback("lung", who="ann", why=WHY)


def test_a_study_that_goes_back_and_forth_gets_a_new_job_each_time(house: ModelHouse) -> None:
    known = house.add("2")
    house.give(known, Role.CHAMPION)
    house.route("1.2.10")
    for _ in range(2):
        house.rollouts.rollback("lung", who="ann", why=WHY)
        house.give(house.models.find("lung@2"), Role.CHAMPION)
    waiting = [j for j in house.jobs("1.2.10") if j.state is JobState.QUEUED]
    assert [(j.model, j.send_to) for j in waiting] == [(MODEL, ("PACS",))]


def test_a_canary_and_a_shadow_are_taken_back_by_their_name(house: ModelHouse) -> None:
    canary, shadow = house.add("2"), house.add("3")
    house.give(canary, Role.CANARY, share=PLACES)
    house.give(shadow, Role.SHADOW)
    house.route("1.2.10")
    after = house.rollouts.rollback("lung", model=canary.model, who="ann", why=WHY)
    assert (after.canary, after.champion, after.shadows) == (None, MODEL, (shadow.model,))
    assert house.job_in(Role.CHAMPION, "1.2.10").send_to == ("PACS",)
    house.rollouts.rollback("lung", model=shadow.model, who="ann", why=WHY)
    assert {j.state for j in house.jobs("1.2.10") if j.role is Role.SHADOW} == {JobState.CANCELLED}
    with pytest.raises(InvalidInput, match="has no role"):
        house.rollouts.rollback("lung", model=shadow.model, who="ann", why=WHY)


def test_a_corrupt_champion_falls_back_and_says_so(house: ModelHouse, caplog: pytest.LogCaptureFixture) -> None:
    known = house.add("2")
    house.give(known, Role.CHAMPION)
    house.route("1.2.10", "1.2.11")
    assert known.path is not None
    file = house.files.absolute(known.path) / "bundle" / "threshold.json"
    file.write_bytes(file.read_bytes()[:-1])
    assert house.real_worker().work()
    assert house.rollout().champion == MODEL
    assert house.state(known.model) is VersionState.FAILED
    (problem,) = house.models.problems()
    assert "lung@2" in problem
    assert "bundle/threshold.json: has changed since registration" in problem
    assert "is out of use, lung@1.0" in caplog.text
    entry = house.models.audit(limit=1)[0]
    assert (entry.who, entry.change.value, entry.detail["jobs handed over"]) == ("node", "fell back", 2)
    house.work_off(each_named)
    for study in ("1.2.10", "1.2.11"):
        (sent,) = [j for j in house.jobs(study) if j.state is JobState.SUCCEEDED]
        assert (sent.model, sent.send_to) == (MODEL, ("PACS",))
    house.give(house.add("3"), Role.CHAMPION)
    assert house.models.problems() == []


def test_falling_back_skips_what_has_failed_too(house: ModelHouse) -> None:
    second, third = house.add("2"), house.add("3")
    house.give(second, Role.CHAMPION)
    house.give(third, Role.CHAMPION)
    house.route("1.2.10")
    with house.database.write() as tx:
        failed = tx.versions.get(second.model)
        assert failed is not None
        tx.versions.update(failed, replace(failed, state=VersionState.FAILED))
    house.work_off(fails_for(third.model, model_failed=True))
    assert house.rollout().champion == MODEL
    assert house.job_in(Role.CHAMPION, "1.2.10").model == MODEL


def test_a_champion_with_nothing_behind_it_fails_its_jobs_and_says_so(house: ModelHouse) -> None:
    known = house.add("1", name="lung")
    with house.database.write() as tx:
        from node.domain.rollout import Rollout

        tx.rollouts.put(Rollout("lung", known.model))
    house.route("1.2.10")
    house.work_off(fails_for(known.model, model_failed=True))
    assert [(j.state, j.reason) for j in house.jobs("1.2.10")] == [(JobState.DEAD, "it broke")]
    assert "there is no former champion to fall back to" in house.models.problems()[0]


def test_a_canary_that_does_not_load_is_out_at_once(house: ModelHouse) -> None:
    known = house.add("2")
    house.give(known, Role.CANARY, share=PLACES)
    house.route("1.2.10")
    house.work_off(fails_for(known.model, model_failed=True))
    assert house.rollout().canary is None
    assert house.state(known.model) is VersionState.FAILED
    assert house.job_in(Role.CHAMPION, "1.2.10").state is JobState.SUCCEEDED


def test_an_upgrade_of_the_node_puts_the_new_version_where_the_old_one_stood(house: ModelHouse) -> None:
    house.give(house.add("2"), Role.CANARY, share=PLACES)
    house.route("1.2.10")
    house.installed = replace(MODEL, version="1.1", digest="b" * 64)
    house.rollouts.refresh()
    assert house.dispatch.renew() == 1
    assert house.rollout().champion == house.installed
    assert house.state(MODEL) is VersionState.RETIRED
    assert house.audited()[-1] == ("node", "replaced", "1.1")
    control = [j for j in house.jobs("1.2.10") if j.role is Role.CONTROL]
    assert [j.state for j in control] == [JobState.CANCELLED]
    assert house.job_in(Role.CANARY, "1.2.10").state is JobState.QUEUED


def test_two_changes_at_once_do_not_both_happen(house: ModelHouse) -> None:
    house.give(house.add("2"), Role.CHAMPION)
    stale = house.rollout()
    house.give(house.add("3"), Role.CHAMPION)
    with pytest.raises(IllegalStep, match="was changed meanwhile"), house.database.write() as tx:
        tx.rollouts.put(stale)


def test_a_replay_is_kept_and_not_sent_unless_asked(house: ModelHouse) -> None:
    house.route("1.2.10")
    house.work_off(each_named)
    known = house.add("2")
    quiet = house.replay.replay("1.2.10", known, send=False, who="ann", why=WHY)
    assert (quiet.role, quiet.send_to, quiet.route, quiet.revision) == (Role.REPLAY, (), "chest-ct", 1)
    with pytest.raises(IllegalStep, match="only a ready version is sent from"):
        house.replay.replay("1.2.10", known, send=True, who="ann", why=WHY)
    house.give(known, Role.SHADOW)
    loud = house.replay.replay("1.2.10", house.models.find("lung@2"), send=True, who="ann", why=WHY)
    assert loud.id != quiet.id
    house.work_off(each_named)
    with house.database.read() as tx:
        owed = {d.job_id for d in tx.deliveries.of_study("1.2.10")}
        assert len(tx.instances.of_job(quiet.id)) == 3
    assert loud.id in owed
    assert quiet.id not in owed
    replays = [(e.who, e.detail["send_to"]) for e in house.models.audit(limit=9) if e.change.value == "replayed"]
    assert replays == [("ann", ["PACS"]), ("ann", [])]


def test_a_study_stays_as_urgent_as_it_was(house: ModelHouse) -> None:
    """When its canary is stopped, and when it is replayed."""
    canary = begun(house)
    with house.database.write() as tx:
        for job in tx.jobs.of_model(canary, unfinished=True):
            tx.jobs.update(job, replace(job, priority=Priority.STAT))
    house.work_off(fails_for(canary))
    stopped(house)
    again = [j for study in STUDIES[:10] for j in house.jobs(study) if j.role is Role.CHAMPION and j.send_to]
    assert {job.priority for job in again} == {Priority.STAT}
    replay = house.replay.replay(STUDIES[0], house.models.find("lung@2"), send=False, who="ann", why=WHY)
    assert replay.priority is Priority.STAT


def test_a_replay_of_a_broken_version_ends_and_says_why(house: ModelHouse) -> None:
    house.route("1.2.10")
    house.work_off(each_named)
    known = house.add("2")
    house.give(known, Role.SHADOW)
    job = house.replay.replay("1.2.10", house.models.find("lung@2"), send=False, who="ann", why=WHY)
    house.work_off(fails_for(known.model, model_failed=True))
    (ended,) = [j for j in house.jobs("1.2.10") if j.id == job.id]
    assert (ended.state, ended.reason) == (JobState.DEAD, "it broke")
    assert house.rollout().shadows == ()


def test_a_replay_needs_a_study_that_has_settled(house: ModelHouse) -> None:
    known = house.add("2")
    house.assemble.index([house.receive("1.2.10.1", study="1.2.10")])
    with pytest.raises(IllegalStep, match="still arriving"):
        house.replay.replay("1.2.10", known, send=False, who="ann", why=WHY)
    house.clock.tick(11)
    house.assemble.settle()
    assert house.replay.replay("1.2.10", known, send=False, who="ann", why=WHY).route == "replay"
    with pytest.raises(InvalidInput, match="sent anywhere"):
        ready = replace(known, state=VersionState.READY)
        house.replay.replay("1.2.10", ready, send=True, who="ann", why=WHY)


def test_a_worker_that_finishes_late_drops_its_result(house: ModelHouse) -> None:
    house.give(house.add("2"), Role.CHAMPION)
    house.route("1.2.10")
    with house.database.write() as tx:
        claimed = tx.jobs.claim(owner="here", now=house.clock.now(), lease=house.clock.tick(9) - house.clock.now())
    assert claimed is not None
    house.rollouts.rollback("lung", who="ann", why=WHY)
    with pytest.raises(LostLease), house.database.write() as tx:
        tx.jobs.update(claimed, replace(claimed, state=JobState.SUCCEEDED))
