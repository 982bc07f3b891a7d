"""The outbox: claimed by lease and by peer, moved by compare-and-set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, func, select, update

from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import LostLease
from node.domain.priority import Priority
from node.store.rows import build, run, values
from node.store.tables import DeliveryRow


def _delivery(row: DeliveryRow) -> Delivery:
    return build(Delivery, row, state=DeliveryState(row.state), priority=Priority(row.priority))


class DeliveryRepository:
    """Implements ``node.ports.Deliveries``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Insert; the store gives the id."""
        self._session.add_all(DeliveryRow(**values(delivery, without=("id",))) for delivery in deliveries)
        self._session.flush()

    def get(self, delivery_id: int) -> Delivery | None:
        """One row of the outbox."""
        row = self._session.get(DeliveryRow, delivery_id, populate_existing=True)
        return None if row is None else _delivery(row)

    def claim(self, *, peer: str, owner: str, now: datetime, lease: timedelta, limit: int) -> list[Delivery]:
        """Take what is due for one peer, the oldest job first and within a job in sending order."""
        chosen = (
            select(DeliveryRow.id)
            .where(
                DeliveryRow.peer == peer,
                DeliveryRow.state == DeliveryState.PENDING.value,
                col(DeliveryRow.not_before) <= now,
            )
            .order_by(col(DeliveryRow.created_at), col(DeliveryRow.job_id), col(DeliveryRow.position))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(DeliveryRow)
            .where(col(DeliveryRow.id).in_(chosen))
            .values(
                state=DeliveryState.SENDING.value,
                attempt=col(DeliveryRow.attempt) + 1,
                owner=owner,
                lease_until=now + lease,
            )
            .returning(DeliveryRow)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        claimed = [_delivery(row) for row in self._session.execute(statement).scalars()]
        return sorted(claimed, key=lambda d: (d.created_at, d.job_id, d.position))

    def update(self, before: Delivery, after: Delivery) -> None:
        """Compare and set on state, attempt and owner.

        Raises:
            LostLease: somebody else moved the delivery meanwhile.
        """
        if run(self._session, self._same(before).values(**values(after, without=("id",)))) != 1:
            raise LostLease(f"delivery {before.id} is no longer {before.state.value} in attempt {before.attempt}")

    def heartbeat(self, deliveries: Sequence[Delivery], *, now: datetime, lease: timedelta) -> None:
        """Prolong the leases.

        Raises:
            LostLease: one of them is not ours any more.
        """
        for delivery in deliveries:
            if run(self._session, self._same(delivery).values(lease_until=now + lease)) != 1:
                raise LostLease(f"delivery {delivery.id} is no longer held by {delivery.owner}")

    def _same(self, delivery: Delivery) -> Any:
        return update(DeliveryRow).where(
            col(DeliveryRow.id) == delivery.id,
            col(DeliveryRow.state) == delivery.state.value,
            col(DeliveryRow.attempt) == delivery.attempt,
            col(DeliveryRow.owner).is_not_distinct_from(delivery.owner),
        )

    def unbegun(self, study_uid: str) -> list[Delivery]:
        """Every pending delivery of sets that are pending as a whole; nobody takes them in this transaction."""
        chosen = select(DeliveryRow).where(DeliveryRow.study_uid == study_uid).order_by(col(DeliveryRow.id))
        found = [_delivery(row) for row in self._session.exec(chosen.with_for_update())]
        begun = {(d.job_id, d.peer) for d in found if d.state is not DeliveryState.PENDING}
        return [d for d in found if (d.job_id, d.peer) not in begun]

    def owned(self) -> list[Delivery]:
        """Deliveries in sending, whoever sends them."""
        return self._where(col(DeliveryRow.state) == DeliveryState.SENDING.value)

    def of_study(self, study_uid: str) -> list[Delivery]:
        """All deliveries of a study, in sending order."""
        return self._where(col(DeliveryRow.study_uid) == study_uid)

    def _where(self, *conditions: Any) -> list[Delivery]:
        chosen = select(DeliveryRow).where(*conditions).order_by(col(DeliveryRow.id))
        return [_delivery(row) for row in self._session.exec(chosen)]

    def latest(self, *, limit: int = 100, state: DeliveryState | None = None) -> list[Delivery]:
        """The latest deliveries."""
        chosen = select(DeliveryRow).order_by(col(DeliveryRow.id).desc()).limit(limit)
        if state is not None:
            chosen = chosen.where(DeliveryRow.state == state.value)
        return [_delivery(row) for row in self._session.exec(chosen)]

    def counts(self) -> dict[tuple[str, DeliveryState], int]:
        """Number of deliveries by peer and state."""
        chosen = select(DeliveryRow.peer, DeliveryRow.state, func.count()).group_by(DeliveryRow.peer, DeliveryRow.state)
        return {(peer, DeliveryState(state)): number for peer, state, number in self._session.exec(chosen)}

    def oldest_pending(self) -> dict[str, datetime]:
        """By peer, when the delivery that waits longest was created."""
        chosen = (
            select(DeliveryRow.peer, func.min(DeliveryRow.created_at))
            .where(col(DeliveryRow.state).in_([DeliveryState.PENDING.value, DeliveryState.SENDING.value]))
            .group_by(DeliveryRow.peer)
        )
        return dict(self._session.exec(chosen).all())
