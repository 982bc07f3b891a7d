"""Between the disk and the rows: what was kept waits here, in memory, for the next batch.

Losing it loses nothing: everything in it is durable on disk, and rows are rebuilt from there at start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from node.domain.instance import Aside, Instance
from node.domain.study import Released

log = logging.getLogger(__name__)

_BATCH = 500
# Each batch costs some 2 ms of processor time and one sync of the database, however many rows it has.
_GATHER_SECONDS = 0.2
_RETRY_SECONDS = 1.0


class Inbox:
    """Hands what was kept to ``index`` in batches, on a thread of its own."""

    def __init__(self, index: Callable[[Sequence[Instance | Aside | Released]], None]) -> None:
        self._index = index
        self._queue: SimpleQueue[Instance | Aside | Released] = SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)

    def put(self, kept: Instance | Aside | Released) -> None:
        """Take what is durable on disk, or the end of its association, in that order; never blocks."""
        self._queue.put(kept)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Write what is left, then end."""
        self._stop.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not (self._stop.is_set() and self._queue.empty()):
            batch = self._gather()
            while batch and not self._write(batch):
                if self._stop.wait(_RETRY_SECONDS):
                    return  # the rows are rebuilt from disk at the next start

    def _gather(self) -> list[Instance | Aside | Released]:
        try:
            batch = [self._queue.get(timeout=0.2)]
        except Empty:
            return []
        time.sleep(_GATHER_SECONDS)
        while len(batch) < _BATCH:
            try:
                batch.append(self._queue.get_nowait())
            except Empty:
                break
        return batch

    def _write(self, batch: list[Instance | Aside | Released]) -> bool:
        try:
            self._index(batch)
        except Exception:
            log.exception("cannot write the rows of %d kept objects; they are on disk, trying again", len(batch))
            return False
        return True
