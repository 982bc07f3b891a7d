"""Routing: every decision is stored with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from node.domain.errors import NotFound
from node.domain.job import JobState
from node.domain.route import NO_ROUTE, Condition, Operator, Route, decide
from node.domain.study import StudyState
from node.services.dispatch import Dispatch
from tests.house import CHEST, MODEL, House

MR = Route("brain-mr", (Condition("Modality", Operator.EQUALS, ("MR",)),), "brain", ())


def routed(house: House) -> list[tuple[str, bool, str]]:
    house.assemble.index([house.receive("1.2.3.1")])
    house.clock.tick(11)
    house.assemble.settle()
    house.dispatch.route()
    with house.database.read() as tx:
        return [(d.route, d.matched, d.reason) for d in reversed(tx.journal.decisions())]


def test_a_matching_route_makes_a_job_pinned_to_a_version(house: House) -> None:
    assert routed(house) == [("chest-ct", True, "series 1.2.3 meets Modality CT")]
    with house.database.read() as tx:
        study = tx.studies.get("1.2")
        (job,) = tx.jobs.of_study("1.2")
        (decision,) = tx.journal.decisions()
    assert study is not None
    assert study.state is StudyState.ROUTED
    assert (job.state, job.model, job.revision, job.send_to) == (JobState.QUEUED, MODEL, 1, ("PACS",))
    assert decision.job_id == job.id


def test_no_route_is_a_decision_too(tmp_path: Path) -> None:
    house = House(tmp_path, routes=[MR])
    assert routed(house) == [
        ("brain-mr", False, "series 1.2.3: Modality is CT, wanted Modality MR"),
        (NO_ROUTE, False, "no route took the study"),
    ]
    with house.database.read() as tx:
        study = tx.studies.get("1.2")
    assert study is not None
    assert study.state is StudyState.ROUTED
    house.close()


def test_a_pipeline_that_is_unavailable_is_said_and_stops_nothing_else(tmp_path: Path) -> None:
    house = House(tmp_path, routes=[])

    def models(name: str) -> object:
        if name == "lung":
            return MODEL
        raise NotFound(f"no pipeline is named {name}")

    broken = Route("broken", CHEST.when, "gone", ())
    house.dispatch = Dispatch(
        house.database.write, house.database.read, house.clock, house.files, [broken, CHEST], models, node="2.25.1"  # type: ignore[arg-type]
    )  # fmt: skip
    decisions = routed(house)
    assert decisions[0] == ("broken", False, "series 1.2.3 meets Modality CT; but no pipeline is named gone")
    assert decisions[1][:2] == ("chest-ct", True)
    house.close()


def test_dispatching_the_same_revision_twice_gives_one_job(house: House) -> None:
    job = house.settled_job()
    with house.database.write() as tx:
        study = tx.studies.get("1.2")
        assert study is not None
        tx.studies.update(study, type(study)(**{**vars(study), "state": StudyState.SETTLED}))
    house.dispatch.route()
    with house.database.read() as tx:
        assert [j.id for j in tx.jobs.of_study("1.2")] == [job.id]


def test_after_an_upgrade_queued_jobs_get_the_installed_version(house: House) -> None:
    old = house.settled_job()
    assert house.dispatch.renew() == 0
    newer = replace(MODEL, version="2.0", digest="b" * 64)
    dispatch = Dispatch(
        house.database.write, house.database.read, house.clock, house.files, [CHEST], lambda name: newer, node="2.25.1"
    )
    assert dispatch.renew() == 1
    with house.database.read() as tx:
        jobs = {j.model: j for j in tx.jobs.of_study("1.2")}
    assert jobs[MODEL].state is JobState.CANCELLED
    assert (jobs[newer].state, jobs[newer].route, jobs[newer].send_to) == (JobState.QUEUED, old.route, old.send_to)
    assert dispatch.renew() == 0


@pytest.mark.parametrize(
    ("operator", "operands", "values", "holds"),
    [
        (Operator.EQUALS, ("chest",), ["CHEST "], True),
        (Operator.EQUALS, ("CHEST",), [], False),
        (Operator.IN, ("CHEST", "LUNG"), ["LUNG"], True),
        (Operator.IN, ("AXIAL",), ["ORIGINAL", "PRIMARY", "AXIAL"], True),
        (Operator.NOT_IN, ("LOCALIZER",), ["ORIGINAL", "LOCALIZER"], False),
        (Operator.NOT_IN, ("LOCALIZER",), [], True),
        (Operator.MATCHES, ("^thorax|chest",), ["CT Chest"], True),
        (Operator.EXISTS, ("true",), [" "], False),
        (Operator.EXISTS, ("false",), [], True),
        (Operator.MIN, ("1.5",), ["2.0"], True),
        (Operator.MIN, ("1.5",), ["thin"], False),
        (Operator.MAX, ("1.5",), ["2.0"], False),
    ],
)
def test_conditions(operator: Operator, operands: tuple[str, ...], values: list[str], holds: bool) -> None:
    assert Condition("X", operator, operands).holds({"X": values}) is holds


def test_one_series_has_to_meet_every_condition() -> None:
    route = Route("r", (Condition("A", Operator.EQUALS, ("1",)), Condition("B", Operator.EQUALS, ("1",))), "p", ())
    split = {"s1": {"A": ["1"], "B": ["2"]}, "s2": {"A": ["2"], "B": ["1"]}}
    matched, reason = decide(route, split)
    assert not matched
    assert reason == "series s1: B is 2, wanted B 1 | series s2: A is 2, wanted A 1"
