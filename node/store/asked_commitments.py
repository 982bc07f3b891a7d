"""Storage commitments that we ask peers for."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, update

from node.domain.verification import AskedCommitment
from node.store.rows import build, run, values
from node.store.tables import AskedCommitmentRow


class AskedCommitmentRepository:
    """Implements ``node.repositories.AskedCommitments``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, asked: AskedCommitment) -> None:
        """Insert."""
        instances = {str(delivery): attempt for delivery, attempt in asked.instances.items()}
        self._session.add(AskedCommitmentRow(**values(asked, without=("instances",)), instances=instances))
        self._session.flush()

    def get(self, transaction_uid: str) -> AskedCommitment | None:
        """The one of a TransactionUID."""
        row = self._session.get(AskedCommitmentRow, transaction_uid, populate_existing=True)
        if row is None:
            return None
        return build(AskedCommitment, row, instances={int(key): attempt for key, attempt in row.instances.items()})

    def accepted(self, transaction_uid: str, at: datetime) -> None:
        """The peer has answered the request with success."""
        self._set(transaction_uid, accepted_at=at)

    def reported(self, transaction_uid: str, at: datetime) -> None:
        """The peer's report has come."""
        self._set(transaction_uid, reported_at=at)

    def _set(self, transaction_uid: str, **changes: datetime) -> None:
        row = update(AskedCommitmentRow).where(col(AskedCommitmentRow.transaction_uid) == transaction_uid)
        run(self._session, row.values(**changes))
