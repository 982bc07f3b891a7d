"""Jobs beside each other: what was tried before runs alone, a spare lane helps only, memory decides."""

from __future__ import annotations

from dataclasses import replace

from node.domain.job import Job
from node.services.beside import Beside
from tests.house import House


def yes() -> bool:
    return True


def claimed(house: House, attempt: int = 1) -> Job:
    return replace(house.settled_job(), attempt=attempt)


def test_a_second_job_begins_where_there_is_room(house: House) -> None:
    job, beside = claimed(house), Beside()
    asked: list[bool] = []

    def claim(untried: bool) -> Job:
        asked.append(untried)
        return job

    assert beside.begin(claim, lambda: False) is job, "the first needs no room beside others"
    assert beside.begin(claim, lambda: False) is None
    assert beside.begin(claim, yes) is job
    assert asked == [False, True], "beside others only what was never tried"


def test_a_job_that_was_tried_runs_alone(house: House) -> None:
    tried, beside = claimed(house, attempt=2), Beside()
    assert beside.begin(lambda untried: tried, yes) is tried
    assert beside.begin(lambda untried: claimed(house), yes) is None
    beside.end(tried)
    assert beside.begin(lambda untried: tried, yes) is tried


def test_a_spare_lane_begins_only_beside_another(house: House) -> None:
    job, beside = claimed(house), Beside()
    assert beside.begin(lambda untried: job, yes, spare=True) is None
    assert beside.begin(lambda untried: job, yes) is job
    assert beside.begin(lambda untried: job, yes, spare=True) is job


def test_nothing_to_do_holds_nobody_up(house: House) -> None:
    beside = Beside()
    assert beside.begin(lambda untried: None, yes) is None
    assert beside.begin(lambda untried: claimed(house), lambda: False) is not None
