"""Whether a peer answers: a circuit breaker, so that one that is down costs a probe now and then and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from node.domain.machine import advance


class CircuitState(StrEnum):
    """``CLOSED``: it is sent to. ``OPEN``: it is only probed. ``HALF_OPEN``: it answered; one delivery is tried."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitStep(StrEnum):
    """What can happen to it."""

    FAIL = "fail"
    PROBE = "probe"
    ANSWER = "answer"


CIRCUIT: Mapping[CircuitState, Mapping[CircuitStep, CircuitState]] = {
    CircuitState.CLOSED: {CircuitStep.FAIL: CircuitState.OPEN, CircuitStep.ANSWER: CircuitState.CLOSED},
    CircuitState.OPEN: {
        CircuitStep.FAIL: CircuitState.OPEN,
        CircuitStep.PROBE: CircuitState.HALF_OPEN,
        CircuitStep.ANSWER: CircuitState.CLOSED,  # to a delivery that was under way
    },
    CircuitState.HALF_OPEN: {CircuitStep.FAIL: CircuitState.OPEN, CircuitStep.ANSWER: CircuitState.CLOSED},
}


@dataclass(frozen=True)
class Circuit:
    """How a peer stands. ``since`` is when it came into this state; ``failures`` counts them in a row, failed probes
    too; ``probe_at`` is when it is probed next, ``reason`` what the last failure was."""

    peer: str
    state: CircuitState
    since: datetime
    failures: int = 0
    probe_at: datetime | None = None
    reason: str | None = None

    @property
    def is_up(self) -> bool:
        """Whether it is sent to."""
        return self.state is CircuitState.CLOSED

    def failed(self, now: datetime, reason: str, wait: timedelta) -> Circuit:
        """It could not be reached, by a delivery or a probe; it is left alone for ``wait``."""
        after = self._moved(CircuitStep.FAIL, now)
        return replace(after, failures=self.failures + 1, probe_at=now + wait, reason=reason)

    def probed(self, now: datetime) -> Circuit:
        """It answered a probe. What failed before still counts: a delivery may fail again."""
        return replace(self._moved(CircuitStep.PROBE, now), probe_at=None)

    def answered(self, now: datetime) -> Circuit:
        """It answered a delivery."""
        return replace(self._moved(CircuitStep.ANSWER, now), failures=0, probe_at=None, reason=None)

    def _moved(self, step: CircuitStep, now: datetime) -> Circuit:
        state = advance(CIRCUIT, self.state, step)
        return self if state is self.state else replace(self, state=state, since=now)
