"""The circuit breaker of one peer: shared by its couriers, kept as a row for whoever shows it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock

from node.domain.circuit import Circuit, CircuitState
from node.domain.errors import PeerUnreachable, Rejected
from node.domain.events import Event, Subject
from node.domain.peer import Peer
from node.ports import Clock, Sender
from node.repositories import Transaction
from node.services.patience import Patience

log = logging.getLogger(__name__)


class Breaker:
    """Says how much may be sent to a peer, and probes one that is down until it answers."""

    def __init__(self, write: Transaction, clock: Clock, sender: Sender, peer: Peer, patience: Patience) -> None:
        self._write = write
        self._clock = clock
        self._sender = sender
        self._peer = peer
        self._patience = patience
        self._lock = Lock()
        self._probing = Lock()
        self._under_way = 0
        self._circuit: Circuit | None = None

    @contextmanager
    def entered(self, limit: int) -> Iterator[int]:
        """How many may be sent now: up to ``limit``, one where the peer has to prove itself, none while it is down."""
        if self._is_to_be_probed():
            self._probe()
        with self._lock:
            state = self._known().state
            if state is CircuitState.HALF_OPEN:
                limit = 0 if self._under_way else 1
            self._under_way += 1
        try:
            yield 0 if state is CircuitState.OPEN else limit
        finally:
            with self._lock:
                self._under_way -= 1

    def answered(self) -> None:
        """The peer answered a delivery, whatever it said."""
        with self._lock:
            circuit = self._known()
            if circuit.state is not CircuitState.CLOSED or circuit.failures:
                self._move(circuit.answered(self._clock.now()))

    def failed(self, error: PeerUnreachable) -> bool:
        """The peer could not be reached; says whether it counts as down. While others send to it, it does not: many
        allow only so many associations."""
        with self._lock:
            if self._under_way > 1:
                return False
            self._fail(error)
            return True

    def _is_to_be_probed(self) -> bool:
        with self._lock:
            circuit = self._known()
            return circuit.probe_at is not None and circuit.probe_at <= self._clock.now()

    def _probe(self) -> None:
        """Without the other lock: the peer may take its time, and others only ask how it stands."""
        if not self._probing.acquire(blocking=False):
            return
        try:
            problem = self._problem()
            with self._lock:
                circuit = self._known()
                if circuit.state is not CircuitState.OPEN:
                    return  # a delivery was answered meanwhile
                if problem is None:
                    self._move(circuit.probed(self._clock.now()))
                else:
                    self._fail(problem)
        finally:
            self._probing.release()

    def _problem(self) -> PeerUnreachable | None:
        try:
            self._sender.echo(self._peer)
        except PeerUnreachable as error:
            return error
        except Rejected as error:
            log.info("peer %s is there: %s", self._peer.name, error)
        return None

    def _fail(self, error: PeerUnreachable) -> None:
        circuit = self._known()
        wait = self._patience.pause(circuit.failures + 1, error)
        log.warning("peer %s: %s; next try in %.0f s", self._peer.name, error, wait.total_seconds())
        self._move(circuit.failed(self._clock.now(), str(error), wait))

    def _known(self) -> Circuit:
        """As it was left; a start of the node looks again at once."""
        if self._circuit is None:
            now = self._clock.now()
            with self._write() as tx:
                left = tx.circuits.all().get(self._peer.name)
            if left is None or left.state is not CircuitState.OPEN:
                self._circuit = Circuit(self._peer.name, CircuitState.CLOSED, now)
            else:
                self._circuit = left.failed(now, left.reason or "", timedelta(0))
        return self._circuit

    def _move(self, after: Circuit) -> None:
        before = self._known()
        now = self._clock.now()
        with self._write() as tx:
            tx.circuits.put(after)
            if after.state is not before.state:
                log.info("peer %s: %s", self._peer.name, after.state.value)
                tx.journal.add(
                    Event(
                        Subject.PEER,
                        self._peer.name,
                        step="answers" if after.state is CircuitState.CLOSED else "is down",
                        from_state=before.state.value,
                        to_state=after.state.value,
                        at=now,
                        detail={"peer": self._peer.name} | ({"reason": after.reason} if after.reason else {}),
                    )
                )
        self._circuit = after
