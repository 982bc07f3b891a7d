"""What the services need of the store to remove what is old enough, as a Protocol beside ``node.repositories``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from node.domain.instance import Aside
from node.domain.retention import Amount, Contents, Kind, Removal
from node.domain.study import Study


class Retention(Protocol):
    """The rows behind what is removed: what is old enough, and how much there was."""

    def routed_before(self, at: datetime, *, after: str, limit: int = 100) -> list[Study]:
        """Routed studies whose last instance came before a time, by StudyInstanceUID, from behind ``after`` on."""
        ...

    def is_named_by_open_commitment(self, study_uid: str) -> bool:
        """Whether a peer has asked about an instance of the study, and has not heard of it yet."""
        ...

    def contents(self, study_uid: str) -> Contents: ...
    def drop(self, study_uid: str) -> None:
        """Delete the rows of the received instances and the corrections of a study."""
        ...

    def add_removal(self, removal: Removal) -> None: ...
    def removals(self) -> list[Removal]: ...
    def removed(self, name: str) -> None: ...
    def asides_before(self, at: datetime, *, limit: int = 500) -> list[Aside]:
        """Objects that lie aside since before a time, the oldest first; corrections belong to their studies."""
        ...

    def drop_aside(self, path: str) -> None: ...
    def stale(self, before: datetime, *, limit: int = 1000) -> Mapping[str, Sequence[Any]]:
        """By table, keys of rows that tell of what ended before a time; an empty one is left out."""
        ...

    def drop_stale(self, stale: Mapping[str, Sequence[Any]]) -> int: ...
    def count(self, kind: Kind, amount: Amount, at: datetime) -> None:
        """Add to the totals."""
        ...

    def totals(self) -> Mapping[Kind, Amount]:
        """What was removed so far, every kind."""
        ...

    def oldest_study(self) -> datetime | None:
        """When the last instance came of the study that is kept the longest."""
        ...
