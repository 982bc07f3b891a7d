"""Which peers answer, as the couriers last saw it: one row a peer, for whoever shows it."""

from __future__ import annotations

from sqlmodel import Session, select

from node.domain.circuit import Circuit, CircuitState
from node.store.rows import build, values
from node.store.tables import CircuitRow


class CircuitRepository:
    """Implements ``node.repositories.Circuits``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, circuit: Circuit) -> None:
        """Write it in the place of what is there of that peer."""
        self._session.merge(CircuitRow(**values(circuit)))
        self._session.flush()

    def all(self) -> dict[str, Circuit]:
        """By peer; one that never failed has none."""
        rows = self._session.exec(select(CircuitRow))
        return {row.peer: build(Circuit, row, state=CircuitState(row.state)) for row in rows}
