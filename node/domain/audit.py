"""Who changed what about the models, when and why: written in the transaction of the change, never altered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from node.domain.model import ModelVersion

NODE = "node"  # who, where the node acted by itself


class Change(StrEnum):
    """What was done."""

    ADDED = "added"
    SIGNED = "signed"
    VERIFIED = "verified"
    FAILED = "failed"
    ACTIVATED = "activated"
    CANARY = "canary"
    SHADOW = "shadow"
    ROLLED_BACK = "rolled back"
    FELL_BACK = "fell back"
    STOPPED = "stopped"  # a canary, by its stop rule
    RETIRED = "retired"
    REPLACED = "replaced"  # an installed version, by an upgrade of the node
    REPLAYED = "replayed"


@dataclass(frozen=True)
class AuditEntry:
    """``who``: a person or program, or ``NODE``. ``detail`` has JSON types: figures, what stands after it."""

    at: datetime
    who: str
    change: Change
    model: ModelVersion
    why: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None
