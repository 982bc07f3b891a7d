"""Storage commitments: claimed by lease, moved by compare-and-set."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, func, select, update

from node.domain.commitment import Commitment, CommitmentState, Reference
from node.domain.errors import LostLease
from node.store.rows import build, claim, run, values
from node.store.tables import CommitmentRow


def _commitment(row: CommitmentRow) -> Commitment:
    references = tuple(Reference(*pair) for pair in row.references)
    return build(Commitment, row, state=CommitmentState(row.state), references=references)


def _values(commitment: Commitment) -> dict[str, Any]:
    pairs = [[r.sop_class_uid, r.sop_instance_uid] for r in commitment.references]
    return values(commitment, without=("id", "references")) | {"references": pairs}


class CommitmentRepository:
    """Implements ``node.repositories.Commitments``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, commitment: Commitment) -> None:
        """Insert; the store gives the id."""
        self._session.add(CommitmentRow(**_values(commitment)))
        self._session.flush()

    def of_transaction(self, transaction_uid: str) -> list[Commitment]:
        """Those of one TransactionUID, the oldest first."""
        return self._where(col(CommitmentRow.transaction_uid) == transaction_uid)

    def in_state(self, state: CommitmentState, *, limit: int = 100) -> list[Commitment]:
        """Those in one state, the oldest first."""
        return self._where(col(CommitmentRow.state) == state.value, limit=limit)

    def claim(self, *, peer: str, owner: str, now: datetime, lease: timedelta) -> Commitment | None:
        """Take the oldest report that is due for a calling AE title; the attempt is counted here."""
        chosen = (
            select(CommitmentRow.id)
            .where(
                CommitmentRow.peer == peer,
                CommitmentRow.state == CommitmentState.OWED.value,
                col(CommitmentRow.due_at) <= now,
            )
            .order_by(col(CommitmentRow.id))
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        which = col(CommitmentRow.id).in_(chosen.scalar_subquery())
        state = CommitmentState.REPORTING.value
        rows = claim(self._session, CommitmentRow, which, state=state, owner=owner, until=now + lease)
        return _commitment(rows[0]) if rows else None

    def is_due(self, peer: str, now: datetime) -> bool:
        """Whether there is something to claim; only reads."""
        chosen = select(CommitmentRow.id).where(
            CommitmentRow.peer == peer,
            CommitmentRow.state == CommitmentState.OWED.value,
            col(CommitmentRow.due_at) <= now,
        )
        return self._session.exec(chosen.limit(1)).first() is not None

    def update(self, before: Commitment, after: Commitment) -> None:
        """Compare and set on state, attempt and owner.

        Raises:
            LostLease: somebody else moved it meanwhile.
        """
        changed = values(after, without=("id", "references"))
        statement = (
            update(CommitmentRow)
            .where(
                col(CommitmentRow.id) == before.id,
                col(CommitmentRow.state) == before.state.value,
                col(CommitmentRow.attempt) == before.attempt,
                col(CommitmentRow.owner).is_not_distinct_from(before.owner),
            )
            .values(**changed)
        )
        if run(self._session, statement) != 1:
            raise LostLease(f"commitment {before.id} is no longer {before.state.value} in attempt {before.attempt}")

    def _where(self, *conditions: Any, limit: int | None = None) -> list[Commitment]:
        chosen = select(CommitmentRow).where(*conditions).order_by(col(CommitmentRow.id)).limit(limit)
        return [_commitment(row) for row in self._session.exec(chosen)]

    def counts(self) -> dict[CommitmentState, int]:
        """Number of commitments by state."""
        chosen = select(CommitmentRow.state, func.count()).group_by(CommitmentRow.state)
        return {CommitmentState(state): number for state, number in self._session.exec(chosen)}
