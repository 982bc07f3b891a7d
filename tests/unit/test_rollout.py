"""Which version runs on which study: shares, widening, pointers, bounds. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from math import sqrt

import pytest

from node.domain.errors import InvalidInput
from node.domain.job import Job, JobState, Role
from node.domain.model import ModelVersion
from node.domain.rollout import PLACES, Bounds, Canary, Figures, Rollout, beyond, choose, place, share_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
A, B, C, D = (ModelVersion("lung", v, v * 64) for v in "abcd")
STUDIES = [f"1.2.826.0.1.3680043.10.1443.{n}" for n in range(10_000)]


def canary(share: int) -> Rollout:
    return Rollout("lung", A, canary=Canary(B, share, NOW))


@pytest.mark.parametrize("percent", ["0.01", "1", "5", "12.5", "50", "99.99", "100"])
def test_the_canary_gets_its_share_of_10000_studies(percent: str) -> None:
    """Exactly those whose place is below the share; as many as a uniform hash gives, within four standard errors."""
    share = share_of(percent)
    taken = [s for s in STUDIES if choose(canary(share), s).model == B]
    assert taken == [s for s in STUDIES if place("lung", s) < share]
    p = share / PLACES
    assert abs(len(taken) - p * len(STUDIES)) <= 4 * sqrt(len(STUDIES) * p * (1 - p))


def test_places_are_uniform() -> None:
    """Chi-squared over 100 bins: 99 degrees of freedom, 161 is passed by chance once in 10,000."""
    counts = [0] * 100
    for study in STUDIES:
        counts[place("lung", study) // 100] += 1
    assert sum((n - 100) ** 2 / 100 for n in counts) < 161
    assert {place("lung", s) for s in STUDIES} <= set(range(PLACES))


def test_widening_never_takes_a_study_away() -> None:
    before: set[str] = set()
    for share in (1, 10, 500, 501, 5000, 9999, 10_000):
        taken = {s for s in STUDIES if choose(canary(share), s).role is Role.CANARY}
        assert before <= taken
        before = taken
    assert before == set(STUDIES)


def test_a_choice_is_the_same_for_ever() -> None:
    """These values are on jobs of the past: another hash would give studies to another version."""
    assert [place("lung", s) for s in ("1.2.3", "1.2.4")] == [3086, 949]
    assert place("lung", "1.2.3") != place("brain", "1.2.3")


def test_a_canary_has_the_champion_beside_it_and_shadows_run_on_every_study() -> None:
    rollout = replace(canary(PLACES), shadows=(C,))
    chosen = choose(rollout, "1.2.3")
    assert (chosen.model, chosen.role) == (B, Role.CANARY)
    assert chosen.unsent == ((A, Role.CONTROL), (C, Role.SHADOW))
    alone = choose(replace(rollout, canary=None), "1.2.3")
    assert (alone.model, alone.role, alone.unsent) == (A, Role.CHAMPION, ((C, Role.SHADOW),))


def test_pointers_move_and_remember_where_to_go_back() -> None:
    rollout = Rollout("lung", A, shadows=(C,)).with_canary(Canary(B, 100, NOW))
    promoted = rollout.led_by(B)
    assert (promoted.champion, promoted.canary, promoted.previous, promoted.shadows) == (B, None, (A,), (C,))
    again = promoted.led_by(C).led_by(A)
    assert (again.champion, again.previous, again.shadows) == (A, (C, B), ())
    assert again.back_to(C).previous == (B,)
    assert again.led_by(A) == again
    assert rollout.with_shadow(B).canary is None
    assert rollout.replacing(A, D).champion == D
    assert [rollout.role_of(m) for m in (A, B, C, D)] == [Role.CHAMPION, Role.CANARY, Role.SHADOW, None]
    with pytest.raises(ValueError, match="two roles"):
        Rollout("lung", A, shadows=(A,))


@pytest.mark.parametrize(
    ("percent", "share"), [("5", 500), ("0.01", 1), ("12.34 %", 1234), ("100%", 10_000), ("1e1", 1000)]
)
def test_a_percentage_has_two_digits(percent: str, share: int) -> None:
    assert share_of(percent) == share


@pytest.mark.parametrize("percent", ["0", "0.001", "12.345", "101", "-1", "half", "", "nan", "inf"])
def test_what_is_no_share_is_refused(percent: str) -> None:
    with pytest.raises(InvalidInput, match="percent"):
        share_of(percent)


GOOD = Figures(10, 0, 10, 10.0, 10.0, 10, 0.05)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"failed": 1}, "1 of 10 jobs failed, allowed is a share of 0.05"),
        ({"failed": 3, "jobs": 9}, None),
        ({"seconds": 20.0}, None),
        ({"seconds": 20.1}, "it takes 2.01 times as long as the champion, allowed is 2"),
        ({"seconds": 90.0, "timed": 9}, None),
        ({"seconds": None}, None),
        ({"disagreement": 0.2}, None),
        ({"disagreement": 0.21}, "disagreement 0.210 with the champion over 10 studies, allowed is 0.2"),
        ({"disagreement": 0.9, "compared": 9}, None),
        ({"disagreement": None}, None),
    ],
)
def test_bounds(changes: dict[str, object], reason: str | None) -> None:
    assert beyond(Bounds(), replace(GOOD, **changes)) == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"after": 0}, {"errors": 1.5}, {"slowdown": 0.5}, {"disagreement": -0.1}, {"errors": float("nan")}]
)
def test_bounds_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Bounds(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("role", [Role.SHADOW, Role.CONTROL])
def test_an_unsent_job_with_a_destination_cannot_exist(role: Role) -> None:
    with pytest.raises(ValueError, match="never sent"):
        Job("j", "1.2", 1, "r", A, ("PACS",), JobState.QUEUED, 0, NOW, NOW, role=role)
