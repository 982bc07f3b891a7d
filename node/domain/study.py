"""The assembly of a study: what has arrived, when last, which revision, which state.

A study never closes, it settles: an instance that comes later opens the next revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path


class StudyState(StrEnum):
    """Where a study revision stands."""

    RECEIVING = "receiving"
    SETTLED = "settled"
    ROUTED = "routed"
    EXPIRED = "expired"


class StudyStep(StrEnum):
    """What can happen to a study."""

    INSTANCE = "instance"  # a late instance: the next revision
    CORRECTION = "correction"  # instances came again, of another patient or order: the next revision too
    EVIDENCE = "evidence"  # something proved that it is complete
    QUIET = "quiet"  # nothing came for the quiet time
    ROUTE = "route"
    EXPIRE = "expire"


_REOPENED = {StudyStep.INSTANCE: StudyState.RECEIVING, StudyStep.CORRECTION: StudyState.RECEIVING}
STUDY: Mapping[StudyState, Mapping[StudyStep, StudyState]] = {
    StudyState.RECEIVING: {StudyStep.EVIDENCE: StudyState.SETTLED, StudyStep.QUIET: StudyState.SETTLED},
    StudyState.SETTLED: {StudyStep.ROUTE: StudyState.ROUTED, **_REOPENED},
    StudyState.ROUTED: {StudyStep.EXPIRE: StudyState.EXPIRED, **_REOPENED},
    StudyState.EXPIRED: _REOPENED,
}


@dataclass(frozen=True)
class Study:
    """One study as the node knows it. Times are aware, in UTC. ``settle_at`` is the timer of the quiet time."""

    study_uid: str
    state: StudyState
    revision: int
    first_at: datetime
    last_at: datetime
    settle_at: datetime | None
    peer: str | None
    instances: int = 0


@dataclass(frozen=True)
class Released:
    """An association that its peer released (PS3.8 7.3), and the studies whose instances were acknowledged in it.

    ``peer`` is the calling AE title. It follows those instances on their way to the rows.
    """

    peer: str
    study_uids: frozenset[str]
    at: datetime


@dataclass(frozen=True)
class InstanceFile:
    """An instance as a job reads it: absolute path, and the digest that its bytes must have."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: str
    path: Path


@dataclass(frozen=True)
class SeriesContent:
    """The instances of one series, as one study revision saw them, in no particular order."""

    series_uid: str
    instances: tuple[InstanceFile, ...]


@dataclass(frozen=True)
class StudyContent:
    """Everything that a pipeline may select from."""

    study_uid: str
    revision: int
    series: tuple[SeriesContent, ...]
