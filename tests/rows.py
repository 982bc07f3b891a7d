"""Rows as the store has them, for the suites over several databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from node.domain.commitment import Commitment, CommitmentState, Reference
from node.domain.delivery import Delivery, DeliveryState
from node.domain.instance import Instance, Origin
from node.domain.job import Job, JobState
from node.domain.manifest import Manifest, ManifestKind
from node.domain.model import ModelVersion
from node.domain.study import Study, StudyState

NOW = datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=60)


def study(uid: str = "1.2.3", **changes: object) -> Study:
    return replace(Study(uid, StudyState.RECEIVING, 1, NOW, NOW, NOW + LEASE, "CT1", 1), **changes)  # type: ignore[arg-type]


def instance(uid: str, **changes: object) -> Instance:
    made = Instance(uid, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.3.4", "1.2.840.10008.1.2.1", "d" * 64, 3 << 31,
                    f"instances/1.2.3/1.2.3.4/{uid}.dcm", Origin.RECEIVED, NOW, "CT1", None, 1)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def job(uid: str = "j1", **changes: object) -> Job:
    made = Job(uid, "1.2.3", 1, "chest", ModelVersion("p", "1", "f" * 64, "P"), ("PACS",), JobState.QUEUED, 0, NOW, NOW)
    return replace(made, **changes)  # type: ignore[arg-type]


def delivery(uid: str, **changes: object) -> Delivery:
    made = Delivery(0, "j1", "1.2.3", uid, "1.2", "1.2.840.10008.1.2.1", "results/x", "PACS", DeliveryState.PENDING,
                    0, 0, NOW, NOW)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def commitment(uid: str = "2.25.1", **changes: object) -> Commitment:
    named = (Reference("1.2.840.10008.5.1.4.1.1.2", "1.1"), Reference("1.2.840.10008.5.1.4.1.1.4", "1.2"))
    made = Commitment(0, uid, "CT1", named, CommitmentState.OWED, NOW, NOW, {"1.2": 0x0112})
    return replace(made, **changes)  # type: ignore[arg-type]


def manifest(uid: str = "2.25.1", **changes: object) -> Manifest:
    made = Manifest(ManifestKind.COMMITMENT, uid, None, "CT1", NOW, frozenset(("1.1", "1.2")))
    return replace(made, **changes)  # type: ignore[arg-type]
