"""What peers say that studies consist of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import exists, insert, or_
from sqlmodel import Session, col, delete, select

from node.domain.manifest import Manifest, ManifestKind, ManifestState
from node.store.rows import build, values
from node.store.tables import InstanceRow, ManifestInstanceRow, ManifestRow, StudyRow


class ManifestRepository:
    """Implements ``node.repositories.Manifests``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, manifests: Iterable[Manifest]) -> None:
        """Insert."""
        for manifest in manifests:
            row = ManifestRow(**values(manifest, without=("instances",)))
            self._session.add(row)
            self._session.flush()
            names = [{"manifest_id": row.id, "sop_instance_uid": uid} for uid in sorted(manifest.instances)]
            if names:
                self._session.execute(insert(ManifestInstanceRow), names)

    def replace(self, manifests: Sequence[Manifest]) -> None:
        """Put these, all of one kind and UID, in the place of what is there of it."""
        first = manifests[0]
        stale = select(ManifestRow.id).where(ManifestRow.kind == first.kind.value, ManifestRow.uid == first.uid)
        self._delete(self._session.exec(stale).all())
        self.add(manifests)

    def forget(self, before: datetime, *, limit: int = 1000) -> int:
        """Delete those of before a time that name a study of which nothing ever came; returns how many."""
        never_came = (
            select(ManifestRow.id)
            .where(
                col(ManifestRow.at) < before,
                col(ManifestRow.study_uid).is_not(None),
                ~exists().where(col(StudyRow.study_uid) == col(ManifestRow.study_uid)),
            )
            .limit(limit)
        )
        numbers = self._session.exec(never_came).all()
        self._delete(numbers)
        return len(numbers)

    def _delete(self, numbers: Sequence[int | None]) -> None:
        for number in numbers:
            self._session.execute(delete(ManifestInstanceRow).where(col(ManifestInstanceRow.manifest_id) == number))
            self._session.execute(delete(ManifestRow).where(col(ManifestRow.id) == number))

    def get(self, kind: ManifestKind, uid: str) -> list[Manifest]:
        """What one message says, one manifest for each study."""
        return self._where(ManifestRow.kind == kind.value, ManifestRow.uid == uid)

    def of_study(self, study_uid: str) -> list[Manifest]:
        """Those that name the study, or one of its received instances, in the order in which they came."""
        of_it = select(InstanceRow.sop_instance_uid).where(InstanceRow.study_uid == study_uid)
        by_instance = select(ManifestInstanceRow.manifest_id).where(
            col(ManifestInstanceRow.sop_instance_uid).in_(of_it)
        )
        return self._where(or_(col(ManifestRow.study_uid) == study_uid, col(ManifestRow.id).in_(by_instance)))

    def changed_since(self, at: datetime) -> list[tuple[int, datetime]]:
        """Number and time of the manifests that came or changed from a time on."""
        chosen = select(ManifestRow.id, ManifestRow.at).where(col(ManifestRow.at) >= at).order_by(col(ManifestRow.id))
        return [(number or 0, when) for number, when in self._session.exec(chosen)]

    def studies_of(self, number: int) -> set[str]:
        """StudyInstanceUIDs that a manifest is about: a commitment is about those of its instances that have a row."""
        told = select(ManifestRow.study_uid).where(ManifestRow.id == number, col(ManifestRow.study_uid).is_not(None))
        found = (
            select(InstanceRow.study_uid)
            .join(ManifestInstanceRow, col(ManifestInstanceRow.sop_instance_uid) == col(InstanceRow.sop_instance_uid))
            .where(ManifestInstanceRow.manifest_id == number)
            .distinct()
        )
        return {uid for uid in self._session.exec(told) if uid} or set(self._session.exec(found))

    def _where(self, *conditions: Any) -> list[Manifest]:
        rows = self._session.exec(select(ManifestRow).where(*conditions).order_by(col(ManifestRow.id))).all()
        instances: dict[int | None, set[str]] = {row.id: set() for row in rows}
        named = (
            select(ManifestInstanceRow)
            .join(ManifestRow, col(ManifestRow.id) == col(ManifestInstanceRow.manifest_id))
            .where(*conditions)
        )
        for name in self._session.exec(named):
            instances[name.manifest_id].add(name.sop_instance_uid)
        return [
            build(
                Manifest,
                row,
                kind=ManifestKind(row.kind),
                state=ManifestState(row.state),
                instances=frozenset(instances[row.id]),
            )
            for row in rows
        ]
