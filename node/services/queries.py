"""What people and programs may read of the node: for the API, the status page and the CLI.

Domain objects are returned as they are where they say enough. The database knows no patient, so nothing here does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from node.domain.circuit import Circuit
from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import required
from node.domain.events import Event
from node.domain.instance import Aside, Instance
from node.domain.job import Job, JobState
from node.domain.peer import Peer, Verify
from node.domain.route import Decision
from node.domain.study import Study, StudyState
from node.observe.metrics import Snapshot
from node.ports import Clock
from node.repositories import Transaction


@dataclass(frozen=True)
class NodeFacts:
    """What the store does not know. ``problems`` gives the reasons why the node is not ready, none when it is."""

    version: str
    ae_title: str
    started_at: datetime
    peers: Sequence[Peer]
    free_bytes: Callable[[], int]
    problems: Callable[[], Sequence[str]]


@dataclass(frozen=True)
class PeerStatus:
    """A peer and its part of the outbox. ``host`` and ``port`` are None for a peer that is no longer configured.

    ``unverified`` is how many instances were delivered and are to be verified; 0 where ``verify`` is none.
    ``circuit`` is whether it answers, None where it never failed to.
    """

    name: str
    ae_title: str | None
    host: str | None
    port: int | None
    receive: bool
    send: bool
    deliveries: Mapping[DeliveryState, int]
    oldest_pending_seconds: float | None
    verify: Verify
    unverified: int
    oldest_unverified_seconds: float | None
    circuit: Circuit | None


@dataclass(frozen=True)
class NodeStatus:
    """The node at one moment, ``at``."""

    at: datetime
    version: str
    ae_title: str
    started_at: datetime
    uptime_seconds: float
    ready: bool
    problems: tuple[str, ...]
    studies: Mapping[StudyState, int]
    jobs: Mapping[JobState, int]
    deliveries: Mapping[DeliveryState, int]
    peers: tuple[PeerStatus, ...]
    instances: int
    asides: int
    free_bytes: int


@dataclass(frozen=True)
class SeriesSummary:
    """The received instances of one series; ``size`` in bytes of their files."""

    series_uid: str
    instances: int
    size: int


@dataclass(frozen=True)
class StudyDetail:
    """All that is known of one study; ``timeline`` is in the order in which it happened."""

    study: Study
    series: tuple[SeriesSummary, ...]
    decisions: tuple[Decision, ...]
    jobs: tuple[Job, ...]
    deliveries: tuple[Delivery, ...]
    asides: tuple[Aside, ...]
    timeline: tuple[Event, ...]


class Queries:
    """The read side. Every method is one read transaction; lists give the latest first."""

    def __init__(self, read: Transaction, clock: Clock, facts: NodeFacts) -> None:
        self._read = read
        self._clock = clock
        self._facts = facts

    def status(self) -> NodeStatus:
        """The node, its counts and its peers. Every state has a count, zero too."""
        facts = self._facts
        now = self._clock.now()
        with self._read() as tx:
            circuits = tx.circuits.all()
        held = self._snapshot(now)
        problems = tuple(facts.problems())
        by_state: Counter[DeliveryState] = Counter()
        for (_, state), count in held.deliveries.items():
            by_state[state] += count
        return NodeStatus(
            at=now,
            version=facts.version,
            ae_title=facts.ae_title,
            started_at=facts.started_at,
            uptime_seconds=(now - facts.started_at).total_seconds(),
            ready=not problems,
            problems=problems,
            studies={state: held.studies.get(state, 0) for state in StudyState},
            jobs={state: held.jobs.get(state, 0) for state in JobState},
            deliveries={state: by_state[state] for state in DeliveryState},
            peers=tuple(_peers(facts.peers, held, circuits)),
            instances=held.instances,
            asides=held.asides,
            free_bytes=held.free_bytes,
        )

    def snapshot(self) -> Snapshot:
        """The counts behind the metrics."""
        return self._snapshot(self._clock.now())

    def _snapshot(self, now: datetime) -> Snapshot:
        with self._read() as tx:
            return Snapshot(
                studies=tx.studies.counts(),
                jobs=tx.jobs.counts(),
                deliveries=tx.deliveries.counts(),
                oldest_pending={p: (now - at).total_seconds() for p, at in tx.deliveries.oldest_pending().items()},
                unverified={p: (n, (now - at).total_seconds()) for p, (n, at) in tx.deliveries.unverified().items()},
                circuits={peer: circuit.state for peer, circuit in tx.circuits.all().items()},
                commitments=tx.commitments.counts(),
                instances=tx.instances.count(),
                asides=tx.instances.count_asides(),
                free_bytes=self._facts.free_bytes(),
                removed=tx.retention.totals(),
                oldest_study_seconds=(now - (tx.retention.oldest_study() or now)).total_seconds(),
            )

    def studies(self, *, limit: int, before: datetime | None = None) -> list[Study]:
        """The studies with the latest instances, those from ``before`` on left out."""
        with self._read() as tx:
            return tx.studies.latest(limit=limit, before=before)

    def study(self, study_uid: str) -> StudyDetail:
        """One study and everything that happened to it.

        Raises:
            NotFound: no instance of such a study was ever kept.
        """
        with self._read() as tx:
            study = required(tx.studies.get(study_uid), f"study {study_uid}")
            return StudyDetail(
                study=study,
                series=tuple(_series(tx.instances.of_study(study_uid))),
                decisions=tuple(tx.journal.decisions(study_uid=study_uid)),
                jobs=tuple(tx.jobs.of_study(study_uid)),
                deliveries=tuple(tx.deliveries.of_study(study_uid)),
                asides=tuple(tx.instances.asides(study_uid=study_uid)),
                timeline=tuple(tx.journal.of_study(study_uid)),
            )

    def jobs(self, *, limit: int, state: JobState | None = None) -> list[Job]:
        """The latest jobs, of one state or of all."""
        with self._read() as tx:
            return tx.jobs.latest(limit=limit, state=state)

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFound: there is none with this id.
        """
        with self._read() as tx:
            return required(tx.jobs.get(job_id), f"job {job_id}")

    def deliveries(self, *, limit: int, state: DeliveryState | None = None) -> list[Delivery]:
        """The latest deliveries, of one state or of all."""
        with self._read() as tx:
            return tx.deliveries.latest(limit=limit, state=state)

    def decisions(self, *, limit: int) -> list[Decision]:
        """What the routes said last."""
        with self._read() as tx:
            return tx.journal.decisions(limit=limit)

    def asides(self, *, limit: int) -> list[Aside]:
        """What lies aside."""
        with self._read() as tx:
            return tx.instances.asides(limit=limit)

    def events(self, *, limit: int) -> list[Event]:
        """What happened last, to anything."""
        with self._read() as tx:
            return tx.journal.latest(limit=limit)


def _peers(configured: Sequence[Peer], held: Snapshot, circuits: Mapping[str, Circuit]) -> Iterable[PeerStatus]:
    """The configured peers, then those that have left the configuration but still have rows in the outbox."""
    known = {peer.name: peer for peer in configured}
    owed = {name for name, _ in held.deliveries}
    for name in [*known, *sorted(owed - known.keys())]:
        peer = known.get(name)
        verify = peer.verify if peer else Verify.NONE
        unverified, since = held.unverified.get(name, (0, None)) if verify is not Verify.NONE else (0, None)
        yield PeerStatus(
            name=name,
            ae_title=peer.ae_title if peer else None,
            host=peer.host if peer else None,
            port=peer.port if peer else None,
            receive=peer.receive if peer else False,
            send=peer.send if peer else False,
            deliveries={state: held.deliveries.get((name, state), 0) for state in DeliveryState},
            oldest_pending_seconds=held.oldest_pending.get(name),
            verify=verify,
            unverified=unverified,
            oldest_unverified_seconds=since,
            circuit=circuits.get(name),
        )


def _series(instances: Iterable[Instance]) -> Iterable[SeriesSummary]:
    by_series: dict[str, list[int]] = {}
    for instance in instances:
        by_series.setdefault(instance.series_uid, []).append(instance.size)
    return (SeriesSummary(uid, len(sizes), sum(sizes)) for uid, sizes in sorted(by_series.items()))


def as_json(value: Any) -> Any:
    """A read model in JSON types: dataclasses as objects, enums by value, times in ISO 8601 with ``Z``.

    Raises:
        TypeError: something in it has no JSON form.
    """
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if is_dataclass(value):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(as_json(key)): as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    raise TypeError(f"a {type(value).__name__} has no JSON form")
