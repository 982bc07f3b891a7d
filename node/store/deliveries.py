"""The outbox: claimed by lease and by peer, moved by compare-and-set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import String, bindparam
from sqlalchemy.orm import aliased
from sqlmodel import Session, and_, col, exists, func, or_, select, update

from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import LostLease
from node.domain.priority import Priority
from node.store.rows import build, changes, claim, run, values
from node.store.tables import DeliveryRow


def _delivery(row: DeliveryRow) -> Delivery:
    return build(Delivery, row, state=DeliveryState(row.state), priority=Priority(row.priority))


# Built once: a job has hundreds of deliveries, and to build the statement takes longer than to execute it.
_TABLE: Any = getattr(DeliveryRow, "__table__")  # noqa: B009 - it is not typed
_UPDATE = _TABLE.update().where(
    _TABLE.c.id == bindparam("of_id"),
    _TABLE.c.state == bindparam("of_state"),
    _TABLE.c.attempt == bindparam("of_attempt"),
    _TABLE.c.owner.is_not_distinct_from(bindparam("of_owner", type_=String)),
)


class DeliveryRepository:
    """Implements ``node.repositories.Deliveries``."""

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

    def claim(
        self, *, peer: str, owner: str, now: datetime, lease: timedelta, limit: int, trial: bool = False
    ) -> list[Delivery]:
        """Take what is due for one peer, the most urgent job first, then the oldest; of a job what closes it last.

        Nothing is taken of a job of which somebody is sending, so that its order holds over several couriers; and what
        closes it only with or after all others, never ahead of one that waits; what rejects earlier results never while
        another of its job lacks. A ``trial`` takes what was tried least.
        """
        if self._session.get_bind().dialect.name == "postgresql":
            # Two claims at once would each miss that the other takes of the same job. SQLite has one writer anyhow.
            self._session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"deliveries of {peer}"))))
        other = aliased(DeliveryRow)
        of_its_job = exists().where(col(other.job_id) == col(DeliveryRow.job_id), col(other.peer) == peer)
        lacking = of_its_job.where(col(other.state).in_([DeliveryState.DEAD.value, DeliveryState.WITHDRAWN.value]))
        goes_before = or_(~col(other.closes), col(other.position) < col(DeliveryRow.position))
        waiting = of_its_job.where(goes_before, col(other.state) == DeliveryState.PENDING.value)
        if not trial:
            waiting = waiting.where(col(other.not_before) > now)  # those that are due are taken with it, ahead of it
        chosen = (
            select(DeliveryRow.id)
            .where(
                DeliveryRow.peer == peer,
                DeliveryRow.state == DeliveryState.PENDING.value,
                col(DeliveryRow.not_before) <= now,
                ~of_its_job.where(col(other.state) == DeliveryState.SENDING.value),
                ~and_(col(DeliveryRow.closes), waiting),
                ~and_(col(DeliveryRow.rejects), lacking),
            )
            .order_by(
                *([col(DeliveryRow.attempt)] if trial else []),
                col(DeliveryRow.priority).desc(),
                col(DeliveryRow.created_at),
                col(DeliveryRow.job_id),
                col(DeliveryRow.closes),
                col(DeliveryRow.position),
            )
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        which, state = col(DeliveryRow.id).in_(chosen), DeliveryState.SENDING.value
        rows = claim(self._session, DeliveryRow, which, state=state, owner=owner, until=now + lease)
        claimed = [_delivery(row) for row in rows]
        return sorted(claimed, key=lambda d: (-d.priority, d.created_at, d.job_id, d.closes, d.position))

    def is_due_above(self, peer: str, priority: Priority, now: datetime) -> bool:
        """Whether something more urgent than this is due for a peer."""
        chosen = select(DeliveryRow.id).where(
            DeliveryRow.peer == peer,
            DeliveryRow.state == DeliveryState.PENDING.value,
            col(DeliveryRow.not_before) <= now,
            col(DeliveryRow.priority) > priority,
        )
        return self._session.exec(chosen.limit(1)).first() is not None

    def overdue(self, peer: str, before: datetime, *, limit: int = 1000) -> list[Delivery]:
        """Pending ones for a peer that were created before a time."""
        chosen = select(DeliveryRow).where(
            DeliveryRow.peer == peer,
            DeliveryRow.state == DeliveryState.PENDING.value,
            col(DeliveryRow.created_at) < before,
        )
        return [_delivery(row) for row in self._session.exec(chosen.order_by(col(DeliveryRow.id)).limit(limit))]

    def update(self, before: Delivery, after: Delivery) -> None:
        """Compare and set on state, attempt and owner.

        Raises:
            LostLease: somebody else moved the delivery meanwhile.
        """
        self.update_all([(before, after)])

    def update_all(self, moved: Sequence[tuple[Delivery, Delivery]]) -> None:
        """As ``update``, for many at once.

        Raises:
            LostLease: somebody else moved one of them meanwhile.
        """
        if not moved:
            return
        alike: defaultdict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
        for before, after in moved:
            # What did not change is left out: each column costs, and an indexed one is taken out and put in again.
            changed = {"state": after.state.value, **changes(before, after)}
            of = {"of_id": before.id, "of_state": before.state.value, "of_attempt": before.attempt}
            alike[frozenset(changed)].append({**changed, **of, "of_owner": before.owner})
        connection = self._session.connection()
        if sum(connection.execute(_UPDATE, rows).rowcount for rows in alike.values()) != len(moved):
            first, others = moved[0][0], len(moved) - 1
            which = f"delivery {first.id}" + (f", or one of {others} others," if others else "")
            raise LostLease(f"{which} is no longer {first.state.value} in attempt {first.attempt}")

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

    def to_verify(self, peer: str, now: datetime, *, limit: int, lock: bool = False) -> list[Delivery]:
        """What was delivered and is due to be looked for, the oldest job first; locked, what others have is left."""
        chosen = (
            select(DeliveryRow)
            .where(
                DeliveryRow.peer == peer,
                DeliveryRow.state == DeliveryState.DELIVERED.value,
                col(DeliveryRow.verify_at) <= now,
            )
            .order_by(col(DeliveryRow.created_at), col(DeliveryRow.job_id), col(DeliveryRow.position))
            .limit(limit)
        )
        if lock:
            chosen = chosen.with_for_update(skip_locked=True)
        return [_delivery(row) for row in self._session.exec(chosen)]

    def unsent_jobs(self, peer: str, job_ids: Collection[str]) -> set[str]:
        """Those of some jobs that still owe the peer an instance."""
        chosen = select(DeliveryRow.job_id).where(
            DeliveryRow.peer == peer,
            col(DeliveryRow.job_id).in_(job_ids),
            col(DeliveryRow.state).in_([DeliveryState.PENDING.value, DeliveryState.SENDING.value]),
        )
        return set(self._session.exec(chosen.distinct()))

    def held(self, delivery_ids: Iterable[int]) -> list[Delivery]:
        """Some rows, which nobody else changes before this transaction ends."""
        chosen = select(DeliveryRow).where(col(DeliveryRow.id).in_(list(delivery_ids))).order_by(col(DeliveryRow.id))
        return [_delivery(row) for row in self._session.exec(chosen.with_for_update())]

    def look_again(self, deliveries: Iterable[Delivery], **changes: Any) -> None:
        """Write ``verify_at``, ``transaction_uid`` or ``reason`` of rows that are held, where they are delivered."""
        ids = [delivery.id for delivery in deliveries]
        still = update(DeliveryRow).where(
            col(DeliveryRow.id).in_(ids), col(DeliveryRow.state) == DeliveryState.DELIVERED.value
        )
        run(self._session, still.values(**changes))

    def unverified(self) -> dict[str, tuple[int, datetime]]:
        """By peer, how many delivered instances are to be verified, and when the one that waits longest was."""
        chosen = (
            select(DeliveryRow.peer, func.count(), func.min(DeliveryRow.delivered_at))
            .where(DeliveryRow.state == DeliveryState.DELIVERED.value, col(DeliveryRow.verify_at).is_not(None))
            .group_by(DeliveryRow.peer)
        )
        return {peer: (number, since) for peer, number, since in self._session.exec(chosen).all() if since}

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
