"""What is old enough to be removed, and what was removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, and_, delete, exists, insert
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, func, select, update

from node.domain.commitment import CommitmentState
from node.domain.delivery import DeliveryState
from node.domain.instance import Aside, AsideReason, Origin
from node.domain.manifest import ManifestKind
from node.domain.retention import Amount, Contents, Kind, Removal
from node.domain.study import Study, StudyState
from node.store.rows import build, values
from node.store.tables import (
    AsideRow,
    AskedCommitmentRow,
    CommitmentRow,
    ComparisonRow,
    DecisionRow,
    DeliveryRow,
    EventRow,
    InstanceRow,
    JobRow,
    ManifestInstanceRow,
    ManifestRow,
    PrunedRow,
    RemovalRow,
    StudyRow,
)

_ENDED = [CommitmentState.REPORTED.value, CommitmentState.DEAD.value]
_CORRECTION = col(AsideRow.reason) == AsideReason.CORRECTION.value


def _is_expired(study_uid: Any) -> ColumnElement[bool]:
    return exists().where(col(StudyRow.study_uid) == study_uid, col(StudyRow.state) == StudyState.EXPIRED.value)


def _is_gone(study_uid: Any) -> ColumnElement[bool]:
    """The study is not kept any more, or never was one."""
    return ~exists().where(col(StudyRow.study_uid) == study_uid, col(StudyRow.state) != StudyState.EXPIRED.value)


def _old_commitment(before: datetime) -> ColumnElement[bool]:
    return and_(col(CommitmentRow.asked_at) < before, col(CommitmentRow.state).in_(_ENDED))


def _old_asked(before: datetime) -> ColumnElement[bool]:
    """Nothing waits for its report."""
    waits = exists().where(
        col(DeliveryRow.transaction_uid) == col(AskedCommitmentRow.transaction_uid),
        col(DeliveryRow.state) == DeliveryState.DELIVERED.value,
    )
    return and_(col(AskedCommitmentRow.asked_at) < before, ~waits)


def _old_manifest(before: datetime) -> ColumnElement[bool]:
    """No commitment that it was made of is open."""
    open_ = exists().where(
        col(CommitmentRow.transaction_uid) == col(ManifestRow.uid), col(CommitmentRow.state).not_in(_ENDED)
    )
    return and_(col(ManifestRow.at) < before, ~open_)


def _old_result(before: datetime) -> ColumnElement[bool]:
    """One of each series stays, by which it is known as ours when it comes back."""
    other = aliased(InstanceRow)
    first = select(func.min(other.sop_instance_uid)).where(col(other.series_uid) == col(InstanceRow.series_uid))
    return and_(
        col(InstanceRow.origin) == Origin.RESULT.value,
        col(InstanceRow.at) < before,
        _is_expired(InstanceRow.study_uid),
        col(InstanceRow.sop_instance_uid) != first.correlate(InstanceRow).scalar_subquery(),
    )


def _old_delivery(before: datetime) -> ColumnElement[bool]:
    done = func.coalesce(DeliveryRow.delivered_at, DeliveryRow.created_at)
    return and_(done < before, _is_expired(DeliveryRow.study_uid))


def _old_job(before: datetime) -> ColumnElement[bool]:
    owed = exists().where(col(DeliveryRow.job_id) == col(JobRow.id))
    return and_(col(JobRow.finished_at) < before, _is_expired(JobRow.study_uid), ~owed)


# The key of each table, and which of its rows are old: what they tell of is over, and of a study that is removed.
_STALE: Mapping[str, tuple[Any, Callable[[datetime], ColumnElement[bool]]]] = {
    "asked_commitment": (col(AskedCommitmentRow.transaction_uid), _old_asked),
    "manifest": (col(ManifestRow.id), _old_manifest),
    "commitment": (col(CommitmentRow.id), _old_commitment),
    "event": (col(EventRow.id), lambda before: and_(col(EventRow.at) < before, _is_gone(EventRow.study_uid))),
    "decision": (
        col(DecisionRow.id),
        lambda before: and_(col(DecisionRow.at) < before, _is_gone(DecisionRow.study_uid)),
    ),
    "comparison": (
        col(ComparisonRow.job),
        lambda before: and_(col(ComparisonRow.at) < before, _is_expired(ComparisonRow.study_uid)),
    ),
    "delivery": (col(DeliveryRow.id), _old_delivery),
    "instance": (col(InstanceRow.sop_instance_uid), _old_result),
    "job": (col(JobRow.id), _old_job),
}


class RetentionRepository:
    """Implements ``node.retention.Retention``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def routed_before(self, at: datetime, *, after: str, limit: int = 100) -> list[Study]:
        """Routed studies whose last instance came before a time, by StudyInstanceUID, from behind ``after`` on."""
        chosen = (
            select(StudyRow)
            .where(
                StudyRow.state == StudyState.ROUTED.value,
                col(StudyRow.last_at) < at,
                col(StudyRow.study_uid) > after,
            )
            .order_by(col(StudyRow.study_uid))
            .limit(limit)
        )
        return [build(Study, row, state=StudyState(row.state)) for row in self._session.exec(chosen)]

    def is_named_by_open_commitment(self, study_uid: str) -> bool:
        """Whether a peer has asked about an instance of the study, and has not heard of it yet."""
        of_it = select(InstanceRow.sop_instance_uid).where(InstanceRow.study_uid == study_uid)
        open_ = (
            select(CommitmentRow.id)
            .join(ManifestRow, col(ManifestRow.uid) == col(CommitmentRow.transaction_uid))
            .join(ManifestInstanceRow, col(ManifestInstanceRow.manifest_id) == col(ManifestRow.id))
            .where(
                ManifestRow.kind == ManifestKind.COMMITMENT.value,
                col(CommitmentRow.state).not_in(_ENDED),
                col(ManifestInstanceRow.sop_instance_uid).in_(of_it),
            )
        )
        return self._session.exec(open_.limit(1)).first() is not None

    def contents(self, study_uid: str) -> Contents:
        """The files of a study."""
        rows = self._session.exec(
            select(InstanceRow.path, InstanceRow.size, InstanceRow.origin).where(InstanceRow.study_uid == study_uid)
        ).all()
        asides = select(AsideRow.path).where(AsideRow.study_uid == study_uid, _CORRECTION)
        jobs = select(JobRow.id).where(JobRow.study_uid == study_uid)
        return Contents(
            instances=frozenset(path for path, _, origin in rows if origin == Origin.RECEIVED.value),
            asides=tuple(self._session.exec(asides)),
            jobs=tuple(self._session.exec(jobs)),
            size=sum(size for _, size, _ in rows),
        )

    def drop(self, study_uid: str) -> None:
        """Delete the rows of the received instances and the corrections of a study.

        What was made of it stays known: what a peer has is still replaced, and recognised when it comes back.
        """
        received = col(InstanceRow.origin) == Origin.RECEIVED.value
        self._run(delete(InstanceRow).where(col(InstanceRow.study_uid) == study_uid, received))
        self._run(delete(AsideRow).where(col(AsideRow.study_uid) == study_uid, _CORRECTION))

    def add_removal(self, removal: Removal) -> None:
        """Note that files are on their way out."""
        self._run(insert(RemovalRow).values(**values(removal)))

    def removals(self) -> list[Removal]:
        """What is on its way out."""
        return [build(Removal, row) for row in self._session.exec(select(RemovalRow))]

    def removed(self, name: str) -> None:
        """It is gone."""
        self._run(delete(RemovalRow).where(col(RemovalRow.name) == name))

    def asides_before(self, at: datetime, *, limit: int = 500) -> list[Aside]:
        """Objects that lie aside since before a time, the oldest first; corrections belong to their studies."""
        chosen = select(AsideRow).where(col(AsideRow.at) < at, ~_CORRECTION).order_by(col(AsideRow.at)).limit(limit)
        return [build(Aside, row, reason=AsideReason(row.reason)) for row in self._session.exec(chosen)]

    def drop_aside(self, path: str) -> None:
        """Delete the row of an object aside."""
        self._run(delete(AsideRow).where(col(AsideRow.path) == path))

    def stale(self, before: datetime, *, limit: int = 1000) -> dict[str, list[Any]]:
        """By table, keys of rows that tell of what ended before a time; an empty one is left out."""
        found = {
            name: list(self._session.exec(select(column).where(old(before)).limit(limit)))
            for name, (column, old) in _STALE.items()
        }
        return {name: keys for name, keys in found.items() if keys}

    def drop_stale(self, stale: Mapping[str, Sequence[Any]]) -> int:
        """Delete such rows; returns how many there were."""
        if manifests := stale.get("manifest"):
            self._run(delete(ManifestInstanceRow).where(col(ManifestInstanceRow.manifest_id).in_(manifests)))
        return sum(self._run(delete(_STALE[name][0].class_).where(_STALE[name][0].in_(stale[name]))) for name in stale)

    def count(self, kind: Kind, amount: Amount, at: datetime) -> None:
        """Add to the totals."""
        known = col(PrunedRow.kind) == kind.value
        more = {"number": PrunedRow.number + amount.number, "size": PrunedRow.size + amount.size, "at": at}
        if not self._run(update(PrunedRow).where(known).values(**more)):
            self._run(insert(PrunedRow).values(kind=kind.value, number=amount.number, size=amount.size, at=at))

    def totals(self) -> dict[Kind, Amount]:
        """What was removed so far."""
        rows = self._session.exec(select(PrunedRow)).all()
        return dict.fromkeys(Kind, Amount()) | {Kind(row.kind): Amount(row.number, row.size) for row in rows}

    def oldest_study(self) -> datetime | None:
        """When the last instance came of the study that is kept the longest."""
        kept = select(func.min(StudyRow.last_at)).where(StudyRow.state != StudyState.EXPIRED.value)
        return self._session.exec(kept).one()

    def _run(self, statement: Any) -> int:
        result = self._session.execute(statement.execution_options(synchronize_session=False))
        assert isinstance(result, CursorResult)
        return result.rowcount
