"""What happened, in order: one row a step, written in the transaction of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Subject(StrEnum):
    """What an event is about."""

    STUDY = "study"
    JOB = "job"
    DELIVERY = "delivery"
    INSTANCE = "instance"
    COMMITMENT = "commitment"
    PEER = "peer"
    NODE = "node"


@dataclass(frozen=True)
class Event:
    """``detail`` holds identifiers, counts and reasons; never a patient's name or number."""

    subject: Subject
    subject_id: str
    step: str
    at: datetime
    study_uid: str | None = None
    from_state: str | None = None
    to_state: str | None = None
    actor: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None
