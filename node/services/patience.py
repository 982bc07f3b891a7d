"""How long a peer is tried, waited for and left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from node.domain.delivery import backoff, jittered
from node.domain.errors import AinodeError, PeerDeclines


@dataclass(frozen=True)
class Patience:
    """``retry`` and ``retry_max`` are the first and the longest pause after a failure, ``give_up`` is after which time
    a delivery goes dead. ``draw`` gives a random number of at least 0 and less than 1.
    """

    retry: timedelta
    retry_max: timedelta
    give_up: timedelta
    draw: Callable[[], float]

    def pause(self, failures: int, error: AinodeError | None = None) -> timedelta:
        """How long to wait after so many failures in a row, of which ``error`` is the last.

        A peer that asks to be left alone for longer gets that, up to ``retry_max``.
        """
        wait = jittered(backoff(failures, base=self.retry, cap=self.retry_max), self.draw())
        asked = error.retry_after if isinstance(error, PeerDeclines) else None
        return wait if asked is None else max(wait, min(asked, self.retry_max))
