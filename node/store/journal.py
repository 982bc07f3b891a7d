"""Events and decisions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import insert
from sqlmodel import Session, col, select

from node.domain.events import Event, Subject
from node.domain.route import Decision
from node.store.rows import build, values
from node.store.tables import DecisionRow, EventRow


def _event(row: EventRow) -> Event:
    return build(Event, row, subject=Subject(row.subject), detail=row.detail or {})


_INSERT: Any = insert(EventRow)


class JournalRepository:
    """Implements ``node.repositories.Journal``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, event: Event) -> None:
        """Write an event in the transaction of its step."""
        self._session.add(EventRow(**values(event, without=("id",))))

    def add_all(self, events: Iterable[Event]) -> None:
        """As ``add``, for many at once."""
        rows = [values(event, without=("id",)) for event in events]
        if rows:
            self._session.connection().execute(_INSERT, rows)

    def of_study(self, study_uid: str) -> list[Event]:
        """All events of a study, in order."""
        chosen = select(EventRow).where(EventRow.study_uid == study_uid).order_by(col(EventRow.id))
        return [_event(row) for row in self._session.exec(chosen)]

    def latest(self, *, limit: int = 100) -> list[Event]:
        """The latest events, newest first."""
        return [_event(r) for r in self._session.exec(select(EventRow).order_by(col(EventRow.id).desc()).limit(limit))]

    def add_decision(self, decision: Decision) -> None:
        """Write what a route said."""
        self._session.add(DecisionRow(**values(decision)))

    def decisions(self, *, study_uid: str | None = None, limit: int = 100) -> list[Decision]:
        """The latest decisions, newest first."""
        chosen = select(DecisionRow).order_by(col(DecisionRow.id).desc()).limit(limit)
        if study_uid is not None:
            chosen = chosen.where(DecisionRow.study_uid == study_uid)
        return [build(Decision, row) for row in self._session.exec(chosen)]
