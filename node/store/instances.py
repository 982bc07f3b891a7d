"""The index of kept instances, and of what lies aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Select, Table, bindparam, insert, inspect, or_
from sqlalchemy import select as sql_select
from sqlmodel import Session, col, func, select

from node.domain.delivery import DeliveryState
from node.domain.instance import Aside, AsideReason, Instance, Origin
from node.domain.job import Job, ResultReference
from node.domain.study import StudyState
from node.store.rows import build, values
from node.store.tables import AsideRow, DeliveryRow, InstanceRow, JobRow, StudyRow

_CHUNK = 500  # bound variables in one IN (…)

# Past the mapper of the session, which costs several times as much time and memory: they are read by the thousand.
_TABLE = cast(Table, inspect(InstanceRow).local_table)
_ROWS = sql_select(_TABLE)
_BY_UID = _ROWS.where(col(InstanceRow.sop_instance_uid) == bindparam("uid"))


class InstanceRepository:
    """Implements ``node.repositories.Instances``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, instances: Iterable[Instance]) -> None:
        """Insert; a SOPInstanceUID that is there already raises."""
        rows = [values(instance) for instance in instances]
        if rows:
            self._session.connection().execute(insert(_TABLE), rows)

    def get(self, sop_instance_uid: str) -> Instance | None:
        """The row of one SOPInstanceUID."""
        return next(self._read(_BY_UID.params(uid=sop_instance_uid)), None)

    def known(self, sop_instance_uids: Iterable[str]) -> dict[str, Instance]:
        """Those of the given UIDs that have a row."""
        uids = list(sop_instance_uids)
        found: dict[str, Instance] = {}
        for start in range(0, len(uids), _CHUNK):
            chosen = _ROWS.where(col(InstanceRow.sop_instance_uid).in_(uids[start : start + _CHUNK]))
            found.update({instance.sop_instance_uid: instance for instance in self._read(chosen)})
        return found

    def of_study(self, study_uid: str, *, up_to_revision: int | None = None) -> list[Instance]:
        """Received instances of a study, those of later revisions left out."""
        chosen = _ROWS.where(col(InstanceRow.study_uid) == study_uid, col(InstanceRow.origin) == Origin.RECEIVED.value)
        if up_to_revision is not None:
            chosen = chosen.where(col(InstanceRow.revision) <= up_to_revision)
        return list(self._read(chosen.order_by(col(InstanceRow.at))))

    def of_job(self, job_id: str) -> list[Instance]:
        """Result instances of a job."""
        return list(self._read(_ROWS.where(col(InstanceRow.job_id) == job_id)))

    def results_before(self, job: Job) -> dict[str, tuple[ResultReference, ...]]:
        """By peer, what it has, or will have, from the latest job of the same study, route and model before this one.

        A notice of this job itself counts, from before it was queued again.
        """
        chosen = (
            select(DeliveryRow.peer, DeliveryRow.job_id, InstanceRow)
            .join(InstanceRow, col(InstanceRow.sop_instance_uid) == col(DeliveryRow.sop_instance_uid))
            .join(JobRow, col(JobRow.id) == col(DeliveryRow.job_id))
            .where(
                JobRow.study_uid == job.study_uid,
                JobRow.route == job.route,
                JobRow.pipeline == job.model.name,
                or_(col(JobRow.created_at) < job.created_at, col(JobRow.id) == job.id),
                col(DeliveryRow.state).not_in([DeliveryState.DEAD.value, DeliveryState.WITHDRAWN.value]),
            )
            .order_by(col(JobRow.created_at).desc(), col(JobRow.id), col(DeliveryRow.position))
        )
        latest: dict[str, str] = {}
        found: dict[str, list[ResultReference]] = {}
        for peer, job_id, row in self._session.exec(chosen):
            if latest.setdefault(peer, job_id) == job_id:
                uids = (row.study_uid, row.series_uid, row.sop_class_uid, row.sop_instance_uid)
                reference = ResultReference(*uids, Path(row.path))
                found.setdefault(peer, []).append(reference)
        return {peer: tuple(references) for peer, references in found.items()}

    def _read(self, chosen: Select[Any]) -> Iterator[Instance]:
        for row in self._session.connection().execute(chosen):
            yield build(Instance, row, origin=Origin(row.origin))

    def indexed(self, paths: Iterable[str]) -> set[str]:
        """Those of the given paths that a row points to, an instance's or an aside's."""
        wanted = list(paths)
        found: set[str] = set()
        for chunk in (wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)):
            for column in (InstanceRow.path, AsideRow.path):
                found.update(self._session.exec(select(column).where(col(column).in_(chunk))))
        return found

    def is_result_series(self, series_uid: str) -> bool:
        """Whether a series is one that this node made."""
        chosen = select(InstanceRow.sop_instance_uid).where(
            InstanceRow.series_uid == series_uid, InstanceRow.origin == Origin.RESULT.value
        )
        return self._session.exec(chosen.limit(1)).first() is not None

    def count(self) -> int:
        """How many instances are kept: of results of a study that was removed only the rows are."""
        removed = select(StudyRow.study_uid).where(StudyRow.state == StudyState.EXPIRED.value)
        chosen = select(func.count()).select_from(InstanceRow).where(col(InstanceRow.study_uid).not_in(removed))
        return self._session.exec(chosen).one()

    def add_aside(self, aside: Aside) -> bool:
        """Note what lies aside; False when that object is noted already."""
        if self._session.exec(select(AsideRow.id).where(AsideRow.path == aside.path)).first() is not None:
            return False
        self._session.add(AsideRow(**values(aside, without=("id",))))
        self._session.flush()
        return True

    def correction_of(self, sop_instance_uid: str) -> Aside | None:
        """The latest correction of an instance."""
        found = self._corrections(AsideRow.sop_instance_uid == sop_instance_uid)
        return found[-1] if found else None

    def corrections(self, study_uid: str, *, since_revision: int = 0, up_to_revision: int | None = None) -> list[Aside]:
        """Corrections of a study, of all its revisions or of some, the oldest first."""
        wanted = [AsideRow.study_uid == study_uid, col(AsideRow.revision) >= since_revision]
        if up_to_revision is not None:
            wanted.append(col(AsideRow.revision) <= up_to_revision)
        return self._corrections(*wanted)

    def _corrections(self, *conditions: Any) -> list[Aside]:
        chosen = select(AsideRow).where(AsideRow.reason == AsideReason.CORRECTION.value, *conditions)
        ordered = chosen.order_by(col(AsideRow.at), col(AsideRow.id))
        return [build(Aside, row, reason=AsideReason(row.reason)) for row in self._session.exec(ordered)]

    def asides(self, *, limit: int = 100, study_uid: str | None = None, after: int = 0) -> list[Aside]:
        """What lies aside, the latest first; of those that came after the one with the id ``after``."""
        chosen = select(AsideRow).where(col(AsideRow.id) > after).order_by(col(AsideRow.id).desc()).limit(limit)
        if study_uid is not None:
            chosen = chosen.where(AsideRow.study_uid == study_uid)
        return [build(Aside, row, reason=AsideReason(row.reason)) for row in self._session.exec(chosen)]

    def count_asides(self) -> int:
        """How many objects lie aside."""
        return self._session.exec(select(func.count()).select_from(AsideRow)).one()
