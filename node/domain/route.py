"""Which studies go to which pipeline, and its results to which peers. A decision keeps its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from node.domain.priority import Priority

# The attributes of one series, by keyword; every value as the list of its (string) components.
SeriesAttributes = Mapping[str, Sequence[str]]


class Operator(StrEnum):
    """How a condition compares."""

    EQUALS = "equals"
    IN = "in"
    NOT_IN = "not_in"
    MATCHES = "matches"
    EXISTS = "exists"
    MIN = "min"
    MAX = "max"


@dataclass(frozen=True)
class Condition:
    """One line of a route's ``when``: an attribute, an operator, and what it is compared with.

    An attribute with several components holds when any one of them does; ``not_in`` holds when none of them is listed.
    Text is compared without regard to case and padding. ``matches`` is a regular expression, searched for.
    """

    keyword: str
    operator: Operator
    operands: tuple[str, ...]

    def holds(self, attributes: SeriesAttributes) -> bool:
        """Whether a series with these attributes meets the condition."""
        values = [v.strip().casefold() for v in attributes.get(self.keyword, ()) if v.strip()]
        operands = [o.strip().casefold() for o in self.operands]
        match self.operator:
            case Operator.EXISTS:
                return bool(values) == (operands == ["true"])
            case Operator.EQUALS | Operator.IN:
                return any(v in operands for v in values)
            case Operator.NOT_IN:
                return not any(v in operands for v in values)
            case Operator.MATCHES:
                return any(re.search(self.operands[0], v, re.IGNORECASE) for v in values)
            case Operator.MIN:
                return any(n >= float(operands[0]) for n in _numbers(values))
            case Operator.MAX:
                return any(n <= float(operands[0]) for n in _numbers(values))

    def wanted(self) -> str:
        """The condition in words."""
        operands = ", ".join(self.operands)
        words = {
            Operator.EQUALS: operands,
            Operator.IN: f"one of {operands}",
            Operator.NOT_IN: f"none of {operands}",
            Operator.MATCHES: f"/{operands}/",
            Operator.EXISTS: "present" if operands == "true" else "absent",
            Operator.MIN: f"at least {operands}",
            Operator.MAX: f"at most {operands}",
        }
        return f"{self.keyword} {words[self.operator]}"


def _numbers(values: Sequence[str]) -> list[float]:
    numbers = []
    for value in values:
        try:
            numbers.append(float(value))
        except ValueError:
            continue  # text where a number is wanted: the condition does not hold for it
    return numbers


@dataclass(frozen=True)
class Route:
    """As configured. A study takes a route when at least one of its series meets every condition."""

    name: str
    when: tuple[Condition, ...]
    pipeline: str
    send_to: tuple[str, ...]
    priority: Priority = Priority.ROUTINE


@dataclass(frozen=True)
class SeriesVerdict:
    """Whether one series meets a route's conditions, and why not."""

    series_uid: str
    matched: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """What one route says of one study revision."""

    study_uid: str
    revision: int
    route: str
    matched: bool
    reason: str
    at: datetime
    job_id: str | None = None


NO_ROUTE = "-"  # the route name of the decision that no route took the study


def judge(route: Route, attributes: SeriesAttributes, series_uid: str) -> SeriesVerdict:
    """Hold one series against one route; the reason names each condition that fails, with the value found."""
    failed = [c for c in route.when if not c.holds(attributes)]
    if not failed:
        return SeriesVerdict(series_uid, True, "meets " + (", ".join(c.wanted() for c in route.when) or "every study"))
    said = [f"{c.keyword} is {_shown(attributes, c.keyword)}, wanted {c.wanted()}" for c in failed]
    return SeriesVerdict(series_uid, False, "; ".join(said))


def _shown(attributes: SeriesAttributes, keyword: str) -> str:
    return "\\".join(attributes.get(keyword, ())) or "absent"


def decide(route: Route, series: Mapping[str, SeriesAttributes]) -> tuple[bool, str]:
    """Hold every series of a study against one route.

    Args:
        series: SeriesInstanceUID to attributes.

    Returns:
        Whether the study takes the route, and the reason in words.
    """
    verdicts = [judge(route, attributes, uid) for uid, attributes in series.items()]
    matched = [v for v in verdicts if v.matched]
    if matched:
        return True, f"series {matched[0].series_uid} {matched[0].reason}"
    if not verdicts:
        return False, "the study has no series"
    return False, " | ".join(f"series {v.series_uid}: {v.reason}" for v in verdicts)
