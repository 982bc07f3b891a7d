"""A small storage SCP that plays the PACS: for the demo and for tests."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from node.dicom.scp import StorageSCP
from node.domain.ids import checked_uid
from node.domain.instance import Answer, Incoming
from node.domain.part10 import head


class Sink:
    """Writes every object to ``out_dir/<SOPInstanceUID>.dcm``, accepts every caller, and counts.

    ``stored`` counts the accepted C-STOREs by SOPInstanceUID, so that "exactly once" can be proved; ``order`` lists
    them as they came. ``seconds`` is how long it takes for each.
    """

    def __init__(
        self, ae_title: str, port: int, out_dir: Path, *, host: str = "127.0.0.1", seconds: float = 0.0
    ) -> None:
        self.stored: Counter[str] = Counter()
        self.order: list[str] = []
        self._answers: deque[Answer] = deque()
        self._lock = Lock()
        self._seconds = seconds
        self._out_dir = out_dir
        self._scp = StorageSCP(ae_title, host, port, self._store, lambda calling: True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._scp.port

    def start(self) -> None:
        """Listen."""
        self._out_dir.mkdir(parents=True, exist_ok=True)
        self._scp.start()

    def stop(self) -> None:
        """Stop listening and abort what runs."""
        self._scp.stop(grace=1.0)

    def answer_next(self, answers: Iterable[Answer]) -> None:
        """Answer the next objects so, in this order, without storing those that are answered with a failure."""
        with self._lock:
            self._answers.extend(answers)

    def _store(self, incoming: Incoming) -> Answer:
        uid = checked_uid(incoming.sop_instance_uid, "SOPInstanceUID")
        time.sleep(self._seconds)
        with self._lock:
            answer = self._answers.popleft() if self._answers else Answer(0x0000)
            if answer.status == 0x0000 or answer.status >> 12 == 0xB:
                (self._out_dir / f"{uid}.dcm").write_bytes(head(incoming) + incoming.dataset)
                self.stored[uid] += 1
                self.order.append(uid)
        return answer
