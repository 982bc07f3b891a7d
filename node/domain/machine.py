"""State tables: a literal mapping ``state -> step -> state``, moved by one function."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from node.domain.errors import IllegalStep

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)


def advance(table: Mapping[S, Mapping[T, S]], state: S, step: T) -> S:
    """Return the state that ``step`` leads to.

    Raises:
        IllegalStep: the table has no such step from ``state``.
    """
    try:
        return table[state][step]
    except KeyError:
        raise IllegalStep(f"{type(state).__name__} {state.value} cannot take the step {step.value!r}") from None


def sources(table: Mapping[S, Mapping[T, S]], step: T) -> tuple[S, ...]:
    """The states from which ``step`` is legal, in the order of the table."""
    return tuple(state for state, steps in table.items() if step in steps)
