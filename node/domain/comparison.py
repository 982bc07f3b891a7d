"""How the findings of two versions on one study differ, and whether findings are those that were expected. Pure.

Findings are their summaries (``Findings.summary``): regions with measurements and evaluations, and evaluations of the
study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from node.domain.errors import InvalidModel
from node.domain.job import JobState, Outcome, Role
from node.domain.model import ModelVersion

Value = float | str
Statements = Mapping[tuple[str, str], Value]  # (region, or "" for the study; what is said of it) to what is said

_EXPECTED = "golden/expected.json"
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Difference:
    """One statement of which two versions make different things; ``relative`` is 0 to 1, and 1 where one is silent."""

    region: str
    key: str
    champion: Value | None
    other: Value | None
    relative: float


@dataclass(frozen=True)
class Comparison:
    """One study under the champion and under another version. ``disagreement`` is the largest relative difference.

    It is 1 where the two ended differently (one found something, the other refused).
    """

    name: str
    study_uid: str
    revision: int
    champion: ModelVersion
    champion_job: str
    champion_state: JobState
    model: ModelVersion
    job: str
    state: JobState
    role: Role
    differences: tuple[Difference, ...]
    disagreement: float
    at: datetime


def statements(summary: Mapping[str, Any]) -> Statements:
    """Every measurement and evaluation of a summary."""
    said: dict[tuple[str, str], Value] = {("", key): value for key, value in summary.get("evaluations", {}).items()}
    for name, region in summary.get("regions", {}).items():
        said.update({(name, key): float(m["value"]) for key, m in region.get("measurements", {}).items()})
        said.update({(name, key): value for key, value in region.get("evaluations", {}).items()})
    return said


def relative(a: Value | None, b: Value | None) -> float:
    """|a - b| over the larger of |a| and |b|, at most 1; for text and for what is missing, 0 if equal, else 1."""
    if a == b:
        return 0.0
    if not isinstance(a, float) or not isinstance(b, float):
        return 1.0
    return min(1.0, abs(a - b) / max(abs(a), abs(b)))


def differences(champion: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[Difference, ...]:
    """What two summaries state differently, the largest difference first."""
    ours, theirs = statements(champion), statements(other)
    found = [
        Difference(*key, ours.get(key), theirs.get(key), round(relative(ours.get(key), theirs.get(key)), 6))
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
    return tuple(sorted(found, key=lambda d: -d.relative))


def unexpected(expected: Mapping[str, Any], outcome: Outcome, summary: Mapping[str, Any]) -> list[str]:
    """How a golden case was missed; empty when all is as expected.

    Args:
        expected: what ``ainode run --json`` prints, with a ``tolerance`` where 1 % will not do: on a measurement, or at
            the top for all. It is relative to the expected value; ``absolute`` in its place is in its unit.

    Raises:
        InvalidModel: it does not have that form.
    """
    wanted = Outcome.SUCCEEDED.value
    try:
        wanted = expected.get("outcome", wanted)
        findings: Mapping[str, Any] = expected.get("findings", {})
        said = statements(findings)
        bounds = dict(_tolerances(findings, said, float(expected.get("tolerance", _TOLERANCE))))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        fix = "Write what `ainode run --json` prints"
        raise InvalidModel(_EXPECTED, f"is no expectation: {type(error).__name__}: {error}", fix) from None
    if outcome.value != wanted:
        return [f"the outcome is {outcome.value}, expected {wanted}"]
    found = statements(summary)
    problems = [
        f"{_named(key)} is {found.get(key, 'missing')}, expected {value}"
        + (f" ± {bounds[key]:g}" if key in bounds else "")
        for key, value in said.items()
        if not _agrees(value, found.get(key), bounds.get(key, 0.0))
    ]
    surplus = sorted(set(summary.get("regions", {})) - set(findings.get("regions", {})))
    return problems + [f"{region} was found and is not expected" for region in surplus]


def _tolerances(findings: Mapping[str, Any], said: Statements, usual: float) -> Iterator[tuple[tuple[str, str], float]]:
    """For every measurement, by how much it may differ, in its unit."""
    for name, region in findings.get("regions", {}).items():
        for key, m in region.get("measurements", {}).items():
            value = said[(name, key)]
            assert isinstance(value, float)
            yield (name, key), float(m.get("absolute", abs(value) * float(m.get("tolerance", usual))))


def _agrees(expected: Value, found: Value | None, bound: float) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return abs(expected - found) <= bound
    return expected == found


def _named(key: tuple[str, str]) -> str:
    return ".".join(part for part in key if part)
