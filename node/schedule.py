"""The ticker: APScheduler calls one service a tick, and holds no state that a restart would miss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger(__name__)


class Ticker:
    """Calls services at intervals, each on a thread of its own, never twice at once."""

    def __init__(self, *, threads: int) -> None:
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(threads)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )

    def every(self, interval: timedelta, name: str, call: Callable[[], object]) -> None:
        """Call a service at an interval."""

        def tick() -> None:
            try:
                call()
            except Exception:
                log.exception("%s failed; it is called again in %.1f s", name, interval.total_seconds())

        self._scheduler.add_job(tick, "interval", seconds=interval.total_seconds(), id=name)

    def start(self) -> None:
        """Start ticking."""
        self._scheduler.start()

    def stop(self) -> None:
        """Start no further tick and wait for those that run."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
