"""Prometheus metrics: counters of what this process received, gauges of what the store and the disk hold now.

Names and units follow https://prometheus.io/docs/practices/naming/. A label never holds what a stranger chose: a
calling AE title that is no configured peer counts as ``other``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from node.domain.circuit import CircuitState
from node.domain.commitment import CommitmentState
from node.domain.delivery import DeliveryState
from node.domain.instance import Answer
from node.domain.job import JobState
from node.domain.peer import Peer, Verify
from node.domain.retention import Amount, Kind
from node.domain.study import StudyState

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"


@dataclass(frozen=True)
class Snapshot:
    """What the gauges show.

    ``oldest_pending``: by peer, the age in seconds of the delivery that waits longest. ``unverified``: by peer, how
    many were delivered and are to be verified, and for how many seconds the first of them has waited.
    """

    studies: Mapping[StudyState, int]
    jobs: Mapping[JobState, int]
    deliveries: Mapping[tuple[str, DeliveryState], int]
    oldest_pending: Mapping[str, float]
    unverified: Mapping[str, tuple[int, float]]
    circuits: Mapping[str, CircuitState]
    commitments: Mapping[CommitmentState, int]
    instances: int
    asides: int
    free_bytes: int
    removed: Mapping[Kind, Amount]
    oldest_study_seconds: float


class Metrics:
    """The metrics of one process, in a registry of their own.

    Args:
        peers: the configured peers; their names are the values of the label ``peer``.
        snapshot: taken anew at every scrape; what it raises fails the scrape, which Prometheus shows as ``up == 0``.
    """

    def __init__(self, version: str, peers: Iterable[Peer], snapshot: Callable[[], Snapshot]) -> None:
        configured = list(peers)
        self._names = {peer.ae_title: peer.name for peer in configured}
        self._registry = CollectorRegistry()
        self._received = Counter(
            "ainode_instances_received_total",
            "Instances that came by C-STORE or STOW-RS, by calling peer and by the status that was answered (hex).",
            ["peer", "status"],
            registry=self._registry,
        )
        self._bytes = Counter(
            "ainode_received_bytes_total",
            "Bytes of encoded data sets that came by C-STORE or STOW-RS, by calling peer.",
            ["peer"],
            registry=self._registry,
        )
        self._rejected = Counter(
            "ainode_associations_rejected_total",
            "Associations that were rejected, by reason.",
            ["reason"],
            registry=self._registry,
        )
        ProcessCollector(registry=self._registry)
        self._registry.register(_Gauges(version, [p for p in configured if p.send], snapshot))

    def answered(self, calling: str, answer: Answer, size: int) -> None:
        """Count an object and its answer; ``size`` of its data set, in bytes."""
        peer = self._names.get(calling, OTHER)
        self._received.labels(peer, f"{answer.status:04X}").inc()
        self._bytes.labels(peer).inc(size)

    def rejected(self, calling: str, called: str, reason: str) -> None:
        """Count a rejected association. Only ``reason``, one of a few constants, becomes a label."""
        self._rejected.labels(reason).inc()

    def render(self) -> bytes:
        """Everything, in the text format of ``CONTENT_TYPE``."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    """Every state and every peer that we send to has a sample, zero too, so that an alert never meets an absent one."""

    def __init__(self, version: str, peers: list[Peer], snapshot: Callable[[], Snapshot]) -> None:
        self._version = version
        self._peers = [peer.name for peer in peers]
        self._verified = [peer.name for peer in peers if peer.verify is not Verify.NONE]
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        now = self._snapshot()
        yield InfoMetricFamily("ainode_build", "The version that runs.", {"version": self._version})
        yield _by_state("ainode_studies", "Studies, by state.", {s.value: now.studies.get(s, 0) for s in StudyState})
        yield _by_state("ainode_jobs", "Jobs, by state.", {s.value: now.jobs.get(s, 0) for s in JobState})
        commitments = {s.value: now.commitments.get(s, 0) for s in CommitmentState}
        yield _by_state("ainode_commitments", "Storage commitments that peers asked for, by state.", commitments)
        yield self._deliveries(now)
        yield self._oldest(now)
        yield from self._unverified(now)
        yield self._up(now)
        yield GaugeMetricFamily("ainode_instances", "Instances that are kept, results too.", now.instances)
        yield GaugeMetricFamily("ainode_aside_objects", "Objects that lie aside for a person to look at.", now.asides)
        yield GaugeMetricFamily("ainode_free_bytes", "Free bytes where the data directory lies.", now.free_bytes)
        help_ = "Time since the last instance came of the study that is kept the longest; 0 where none is kept."
        yield GaugeMetricFamily("ainode_oldest_study_seconds", help_, now.oldest_study_seconds)
        yield from _removed(now.removed)

    def _deliveries(self, now: Snapshot) -> GaugeMetricFamily:
        family = GaugeMetricFamily("ainode_deliveries", "Deliveries, by peer and state.", labels=["peer", "state"])
        for peer in sorted({*self._peers, *(name for name, _ in now.deliveries)}):
            for state in DeliveryState:
                family.add_metric([peer, state.value], now.deliveries.get((peer, state), 0))
        return family

    def _oldest(self, now: Snapshot) -> GaugeMetricFamily:
        help_ = "Age of the delivery that waits longest, by peer; 0 where none waits."
        family = GaugeMetricFamily("ainode_delivery_oldest_pending_seconds", help_, labels=["peer"])
        for peer in sorted({*self._peers, *now.oldest_pending}):
            family.add_metric([peer], now.oldest_pending.get(peer, 0.0))
        return family

    def _unverified(self, now: Snapshot) -> Iterator[GaugeMetricFamily]:
        help_ = "Instances that were delivered and are to be verified, by peer that verifies."
        number = GaugeMetricFamily("ainode_deliveries_unverified", help_, labels=["peer"])
        help_ = "Time since the first of them was delivered, by peer; 0 where there is none."
        oldest = GaugeMetricFamily("ainode_delivery_oldest_unverified_seconds", help_, labels=["peer"])
        for peer in sorted(self._verified):
            count, seconds = now.unverified.get(peer, (0, 0.0))
            number.add_metric([peer], count)
            oldest.add_metric([peer], seconds)
        yield number
        yield oldest

    def _up(self, now: Snapshot) -> GaugeMetricFamily:
        help_ = "Whether a peer that is sent to answers: 0 while it is only probed."
        family = GaugeMetricFamily("ainode_peer_up", help_, labels=["peer"])
        for peer in sorted(self._peers):
            family.add_metric([peer], float(now.circuits.get(peer, CircuitState.CLOSED) is not CircuitState.OPEN))
        return family


def _removed(removed: Mapping[Kind, Amount]) -> Iterator[CounterMetricFamily]:
    help_ = "Removed because it was old enough: studies, objects aside, runs in quarantine, rows of history."
    number = CounterMetricFamily("ainode_removed", help_, labels=["kind"])
    size = CounterMetricFamily("ainode_removed_bytes", "Bytes of the files of what was removed.", labels=["kind"])
    for kind, amount in removed.items():
        number.add_metric([kind.value], amount.number)
        size.add_metric([kind.value], amount.size)
    yield number
    yield size


def _by_state(name: str, help_: str, counts: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_, labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return family
