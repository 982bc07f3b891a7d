"""The assemblies."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, func, select, update

from node.domain.errors import IllegalStep
from node.domain.study import Study, StudyState
from node.store.rows import build, run, values
from node.store.tables import StudyRow


def _study(row: StudyRow) -> Study:
    return build(Study, row, state=StudyState(row.state))


class StudyRepository:
    """Implements ``node.repositories.Studies``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, study_uid: str) -> Study | None:
        """The row of one StudyInstanceUID."""
        row = self._session.get(StudyRow, study_uid, populate_existing=True)
        return None if row is None else _study(row)

    def add(self, study: Study) -> None:
        """Insert."""
        self._session.add(StudyRow(**values(study)))
        self._session.flush()

    def update(self, before: Study, after: Study) -> None:
        """Compare and set on state, revision and last instance time.

        Raises:
            IllegalStep: somebody else moved the study meanwhile.
        """
        statement = (
            update(StudyRow)
            .where(
                col(StudyRow.study_uid) == before.study_uid,
                col(StudyRow.state) == before.state.value,
                col(StudyRow.revision) == before.revision,
                col(StudyRow.last_at) == before.last_at,
            )
            .values(**values(after, without=("study_uid",)))
        )
        if run(self._session, statement) != 1:
            raise IllegalStep(f"study {before.study_uid} is no longer {before.state.value} at {before.revision}")

    def due(self, now: datetime, *, limit: int = 100) -> list[Study]:
        """Receiving studies whose quiet time is over, the longest waiting first."""
        chosen = (
            select(StudyRow)
            .where(StudyRow.state == StudyState.RECEIVING.value, col(StudyRow.settle_at) <= now)
            .order_by(col(StudyRow.settle_at))
            .limit(limit)
        )
        return [_study(row) for row in self._session.exec(chosen)]

    def in_state(self, state: StudyState, *, limit: int = 100) -> list[Study]:
        """Studies in one state, the oldest first."""
        chosen = select(StudyRow).where(StudyRow.state == state.value).order_by(col(StudyRow.last_at)).limit(limit)
        return [_study(row) for row in self._session.exec(chosen)]

    def latest(self, *, limit: int = 100, before: datetime | None = None) -> list[Study]:
        """The latest studies, by their last instance."""
        chosen = select(StudyRow).order_by(col(StudyRow.last_at).desc()).limit(limit)
        if before is not None:
            chosen = chosen.where(StudyRow.last_at < before)
        return [_study(row) for row in self._session.exec(chosen)]

    def counts(self) -> dict[StudyState, int]:
        """Number of studies by state."""
        chosen = select(StudyRow.state, func.count()).group_by(StudyRow.state)
        return {StudyState(state): number for state, number in self._session.exec(chosen)}
