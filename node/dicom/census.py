"""Who is connected: what a receiver has to know of the associations of all receivers of the node."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import Protocol


class Census(Protocol):
    """Takes note of associations. Called from their threads."""

    def enter(self, calling: str) -> tuple[int, int]:
        """One is about to be admitted: how many others there are, of this calling AE title and of all."""
        ...

    def sends(self, study_uid: str) -> None:
        """The first instance of a study was acknowledged in one, or is about to be."""
        ...

    def leave(self, calling: str, study_uids: frozenset[str]) -> None:
        """One that entered has ended, or was not admitted; with what it said to ``sends``."""
        ...


class LocalCensus:
    """Counts, for several receivers at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._callers: Counter[str] = Counter()
        self._studies: Counter[str] = Counter()

    def enter(self, calling: str) -> tuple[int, int]:
        """As ``Census``."""
        with self._lock:
            others = self._callers[calling], self._callers.total()
            # Counted before the decision, so that of two that come at once the second one knows of the first.
            self._callers[calling] += 1
        return others

    def count(self, calling: str) -> tuple[int, int]:
        """As ``enter``, of nobody."""
        with self._lock:
            return self._callers[calling], self._callers.total()

    def sends(self, study_uid: str) -> None:
        """As ``Census``."""
        with self._lock:
            self._studies[study_uid] += 1

    def leave(self, calling: str, study_uids: frozenset[str]) -> None:
        """As ``Census``."""
        with self._lock:
            # Counter subtraction drops what comes to nothing: no title and no study is remembered for ever.
            self._callers -= Counter([calling])
            self._studies -= Counter(study_uids)

    def being_sent(self, study_uid: str) -> bool:
        """Whether an association is open in which instances of a study were acknowledged: more of it may follow."""
        return study_uid in self._studies
