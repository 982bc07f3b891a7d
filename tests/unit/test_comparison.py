"""How findings differ, and whether they are those that a golden case expects. Pure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from node.domain.comparison import differences, relative, unexpected
from node.domain.errors import InvalidModel
from node.domain.job import Outcome


def summary(volume: float = 100.0, **more: Any) -> dict[str, Any]:
    measured = {"volume_ml": {"name": "Volume", "value": volume, "unit": "ml"}}
    region = {"label": "Lung", "measurements": measured, "evaluations": {"Side": "Left"}}
    return {"regions": {"lung": region}, "evaluations": {"Round": "Yes"}, **more}


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [(1.0, 1.0, 0), (0.0, 0.0, 0), (100.0, 90.0, 0.1), (90.0, 100.0, 0.1), (1.0, -1.0, 1), (0.0, 0.001, 1),
     (None, 1.0, 1), ("Yes", "Yes", 0), ("Yes", "No", 1), (1.0, "1.0", 1)],
)  # fmt: skip
def test_relative_differences(a: Any, b: Any, difference: float) -> None:
    assert relative(a, b) == pytest.approx(difference)


def test_differences_name_what_differs_the_largest_first() -> None:
    assert differences(summary(), summary()) == ()
    found = differences(summary(), summary(90.0, evaluations={"Round": "No"}))
    assert [(d.region, d.key, d.champion, d.other, d.relative) for d in found] == [
        ("", "Round", "Yes", "No", 1.0),
        ("lung", "volume_ml", 100.0, 90.0, 0.1),
    ]
    assert {(d.region, d.key) for d in differences(summary(), {})} == {
        ("", "Round"), ("lung", "volume_ml"), ("lung", "Side")
    }  # fmt: skip


def expected(volume: float = 100.0, top: dict[str, Any] | None = None, **tolerance: float) -> dict[str, Any]:
    findings = summary(volume)
    findings["regions"]["lung"]["measurements"]["volume_ml"].update(tolerance)
    return {"outcome": "succeeded", "findings": findings, **(top or {})}


@pytest.mark.parametrize(
    ("wanted", "volume", "problem"),
    [
        (expected(), 101.0, None),
        (expected(), 101.1, "lung.volume_ml is 101.1, expected 100.0 ± 1"),
        (expected(tolerance=0.1), 110.0, None),
        (expected(tolerance=0.1), 110.1, "± 10"),
        (expected(top={"tolerance": 0.1}), 110.0, None),
        (expected(0.0), 0.001, "lung.volume_ml is 0.001, expected 0.0 ± 0"),
        (expected(0.0, absolute=0.01), 0.001, None),
    ],
)
def test_a_golden_case_has_tolerances(wanted: dict[str, Any], volume: float, problem: str | None) -> None:
    found = unexpected(wanted, Outcome.SUCCEEDED, summary(volume))
    assert found == [] if problem is None else problem in found[0]


def test_a_golden_case_sees_what_is_missing_and_what_is_too_much() -> None:
    wanted = expected()
    assert unexpected(wanted, Outcome.REFUSED, {}) == ["the outcome is refused, expected succeeded"]
    assert unexpected({"outcome": "refused"}, Outcome.REFUSED, {}) == []
    missing = summary()
    del missing["regions"]["lung"]
    assert "lung.volume_ml is missing, expected 100.0 ± 1" in unexpected(wanted, Outcome.SUCCEEDED, missing)
    surplus = summary()
    surplus["regions"]["tumour"] = {}
    assert unexpected(wanted, Outcome.SUCCEEDED, surplus) == ["tumour was found and is not expected"]
    other = summary(evaluations={"Round": "No"})
    assert unexpected(wanted, Outcome.SUCCEEDED, other) == ["Round is No, expected Yes"]


MEASURED = '{"findings": {"regions": {"a": {"measurements": {"b": %s}}}}}'


@pytest.mark.parametrize(
    "text",
    [
        '{"findings": []}',
        '{"findings": {"regions": []}}',
        '{"tolerance": "wide"}',
        MEASURED % "1",
        MEASURED % '{"value": "x"}',
    ],
)
def test_what_is_no_expectation_is_named(text: str) -> None:
    with pytest.raises(InvalidModel, match=r"golden/expected\.json: is no expectation"):
        unexpected(json.loads(text), Outcome.SUCCEEDED, {})
