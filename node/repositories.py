"""What the services need of the store, as Protocols: a repository for each table, and the unit of work of them all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol

from node.domain.audit import AuditEntry
from node.domain.circuit import Circuit
from node.domain.commitment import Commitment, CommitmentState
from node.domain.comparison import Comparison
from node.domain.delivery import Delivery, DeliveryState
from node.domain.events import Event
from node.domain.instance import Aside, Instance
from node.domain.job import Hold, Job, JobState, ResultReference
from node.domain.manifest import Manifest, ManifestKind
from node.domain.model import KnownVersion, ModelVersion
from node.domain.priority import Priority
from node.domain.rollout import Rollout
from node.domain.route import Decision
from node.domain.study import Study, StudyState
from node.domain.trial import Trial
from node.domain.verification import AskedCommitment
from node.retention import Retention


class Instances(Protocol):
    """The index of kept instances."""

    def add(self, instances: Iterable[Instance]) -> None: ...
    def get(self, sop_instance_uid: str) -> Instance | None: ...
    def known(self, sop_instance_uids: Iterable[str]) -> dict[str, Instance]: ...
    def of_study(self, study_uid: str, *, up_to_revision: int | None = None) -> list[Instance]:
        """Received instances of a study, those of later revisions left out."""
        ...

    def of_job(self, job_id: str) -> list[Instance]: ...
    def results_before(self, job: Job) -> dict[str, tuple[ResultReference, ...]]:
        """By peer, what it has of the same study, route and model from before this job: the results, or the notice, of
        the latest job that it was sent any of. What is still on its way to the peer counts, what never got there does
        not. In sending order; paths are relative to the data directory.
        """
        ...

    def indexed(self, paths: Iterable[str]) -> set[str]:
        """Those of the given paths that a row points to, an instance's or an aside's."""
        ...

    def is_result_series(self, series_uid: str) -> bool: ...
    def count(self) -> int: ...
    def add_aside(self, aside: Aside) -> bool:
        """Note what lies aside; False when that object is noted already."""
        ...

    def correction_of(self, sop_instance_uid: str) -> Aside | None:
        """The latest correction of an instance."""
        ...

    def corrections(self, study_uid: str, *, since_revision: int = 0, up_to_revision: int | None = None) -> list[Aside]:
        """Corrections of a study, of all its revisions or of some, the oldest first."""
        ...

    def asides(self, *, limit: int = 100, study_uid: str | None = None, after: int = 0) -> list[Aside]: ...
    def count_asides(self) -> int: ...


class Studies(Protocol):
    """The assemblies. Every method that moves a state is a compare-and-set and raises ``IllegalStep`` if it lost."""

    def get(self, study_uid: str) -> Study | None: ...
    def add(self, study: Study) -> None: ...
    def update(self, before: Study, after: Study) -> None:
        """Write ``after`` where the row still has the state, the revision and the last instance time of ``before``."""
        ...

    def due(self, now: datetime, *, limit: int = 100) -> list[Study]:
        """Receiving studies whose quiet time is over."""
        ...

    def in_state(self, state: StudyState, *, limit: int = 100) -> list[Study]: ...
    def latest(self, *, limit: int = 100, before: datetime | None = None) -> list[Study]: ...
    def counts(self) -> dict[StudyState, int]: ...


class Jobs(Protocol):
    """The job table."""

    def add(self, job: Job) -> None: ...
    def get(self, job_id: str) -> Job | None: ...
    def claim(
        self,
        *,
        owner: str,
        now: datetime,
        lease: timedelta,
        untried: bool = False,
        hold: Hold | None = None,
    ) -> Job | None:
        """Take the queued job that is due and comes first: unsent ones last, then the most urgent, then the oldest; the
        attempt is counted here.

        With ``untried``, none is taken where that job was tried before: no other overtakes it. Those of ``hold``
        are passed over, unless STAT or tried before.
        """
        ...

    def claim_like(self, first: Job, *, owner: str, now: datetime, lease: timedelta, limit: int) -> list[Job]:
        """Take queued jobs that are due and like ``first``: of its version, sent or unsent as it is, none that is STAT
        or was tried before.
        """
        ...

    def untried(self, model: ModelVersion) -> int:
        """How many queued jobs of a version were never tried."""
        ...

    def update(self, before: Job, after: Job) -> None:
        """Write ``after`` where the row still has the state and the attempt of ``before``; else ``LostLease``."""
        ...

    def heartbeat(self, job: Job, *, now: datetime, lease: timedelta) -> None:
        """Prolong the lease; ``LostLease`` when it is gone."""
        ...

    def unnoticed(self, *, limit: int = 100) -> list[Job]:
        """Refused and dead jobs of which nobody has looked yet whether somebody is owed a notice, the oldest first."""
        ...

    def mark_noticed(self, job: Job) -> bool:
        """Mark a job as looked at; False where it was before, or has moved on."""
        ...

    def owned(self) -> list[Job]:
        """Running jobs, whoever runs them."""
        ...

    def of_study(self, study_uid: str) -> list[Job]: ...
    def of_model(self, model: ModelVersion, *, since: datetime | None = None, unfinished: bool = False) -> list[Job]:
        """Jobs of one version: those created since then, those that are queued or running, or all."""
        ...

    def latest(self, *, limit: int = 100, state: JobState | None = None) -> list[Job]: ...
    def counts(self) -> dict[JobState, int]: ...


class Deliveries(Protocol):
    """The outbox."""

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """``id`` of the argument is ignored; the store gives one."""
        ...

    def get(self, delivery_id: int) -> Delivery | None: ...
    def claim(
        self, *, peer: str, owner: str, now: datetime, lease: timedelta, limit: int, trial: bool = False
    ) -> list[Delivery]:
        """Take what is due, in sending order: the most urgent job first, then the oldest; of a job what closes it last.

        Nothing of a job of which somebody is sending; and what closes it not before all others of it are due or done.
        With ``trial`` what was tried least comes first: one that the peer chokes on must not be the only one tried.
        """
        ...

    def is_due_above(self, peer: str, priority: Priority, now: datetime) -> bool:
        """Whether something more urgent than this is due."""
        ...

    def overdue(self, peer: str, before: datetime, *, limit: int = 1000) -> list[Delivery]:
        """Pending ones that were created before a time."""
        ...

    def update(self, before: Delivery, after: Delivery) -> None:
        """Write ``after`` where the row still has state, attempt and owner of ``before``; else ``LostLease``."""
        ...

    def update_all(self, moved: Sequence[tuple[Delivery, Delivery]]) -> None:
        """As ``update``, for many at once."""
        ...

    def heartbeat(self, deliveries: Sequence[Delivery], *, now: datetime, lease: timedelta) -> None: ...
    def owned(self) -> list[Delivery]: ...
    def of_study(self, study_uid: str) -> list[Delivery]: ...
    def unbegun(self, study_uid: str) -> list[Delivery]:
        """The sets of a study, each of a job for a peer, of which nothing has been sent or is being sent."""
        ...

    def latest(self, *, limit: int = 100, state: DeliveryState | None = None) -> list[Delivery]: ...
    def counts(self) -> dict[tuple[str, DeliveryState], int]:
        """By peer and state."""
        ...

    def oldest_pending(self) -> dict[str, datetime]:
        """By peer."""
        ...

    def to_verify(self, peer: str, now: datetime, *, limit: int, lock: bool = False) -> list[Delivery]:
        """What was delivered and is due to be looked for, the oldest job first; locked, what others have is left."""
        ...

    def unsent_jobs(self, peer: str, job_ids: Collection[str]) -> set[str]:
        """Those of some jobs that still owe the peer an instance."""
        ...

    def held(self, delivery_ids: Iterable[int]) -> list[Delivery]:
        """Some rows, which nobody else changes before this transaction ends."""
        ...

    def look_again(self, deliveries: Iterable[Delivery], **changes: Any) -> None:
        """Write ``verify_at``, ``transaction_uid`` or ``reason`` of rows that are held, where they are delivered."""
        ...

    def unverified(self) -> dict[str, tuple[int, datetime]]:
        """By peer, how many delivered instances are to be verified, and when the one that waits longest was sent."""
        ...


class Circuits(Protocol):
    """Which peers answer."""

    def put(self, circuit: Circuit) -> None: ...
    def all(self) -> dict[str, Circuit]:
        """By peer; one that never failed has none."""
        ...


class Commitments(Protocol):
    """Storage commitments that peers asked for, and the reports that they are owed."""

    def add(self, commitment: Commitment) -> None:
        """``id`` of the argument is ignored; the store gives one."""
        ...

    def of_transaction(self, transaction_uid: str) -> list[Commitment]:
        """The oldest first."""
        ...

    def in_state(self, state: CommitmentState, *, limit: int = 100) -> list[Commitment]:
        """The oldest first."""
        ...

    def claim(self, *, peer: str, owner: str, now: datetime, lease: timedelta) -> Commitment | None:
        """Take the oldest report that is due for a calling AE title; the attempt is counted here."""
        ...

    def is_due(self, peer: str, now: datetime) -> bool:
        """Whether there is something to claim; only reads."""
        ...

    def update(self, before: Commitment, after: Commitment) -> None:
        """Write ``after`` where the row still has state, attempt and owner of ``before``; else ``LostLease``."""
        ...

    def counts(self) -> dict[CommitmentState, int]: ...


class AskedCommitments(Protocol):
    """Storage commitments that we ask peers for."""

    def add(self, asked: AskedCommitment) -> None: ...
    def get(self, transaction_uid: str) -> AskedCommitment | None: ...
    def accepted(self, transaction_uid: str, at: datetime) -> None: ...
    def reported(self, transaction_uid: str, at: datetime) -> None: ...


class Manifests(Protocol):
    """What peers say that studies consist of."""

    def add(self, manifests: Iterable[Manifest]) -> None: ...
    def replace(self, manifests: Sequence[Manifest]) -> None:
        """Put these, all of one kind and UID, in the place of what is there of it."""
        ...

    def forget(self, before: datetime, *, limit: int = 1000) -> int:
        """Delete those of before a time that name a study of which nothing ever came; returns how many."""
        ...

    def get(self, kind: ManifestKind, uid: str) -> list[Manifest]:
        """What one message says, one manifest for each study."""
        ...

    def of_study(self, study_uid: str) -> list[Manifest]:
        """Those that name the study, or one of its received instances."""
        ...

    def changed_since(self, at: datetime) -> list[tuple[int, datetime]]:
        """Number and time of the manifests that came or changed from a time on."""
        ...

    def studies_of(self, number: int) -> set[str]:
        """StudyInstanceUIDs that a manifest is about: a commitment is about those of its instances that have a row."""
        ...


class Journal(Protocol):
    """Events and decisions: written with the step they belong to, never changed."""

    def add(self, event: Event) -> None: ...
    def add_all(self, events: Iterable[Event]) -> None: ...
    def of_study(self, study_uid: str) -> list[Event]: ...
    def latest(self, *, limit: int = 100) -> list[Event]: ...
    def add_decision(self, decision: Decision) -> None: ...
    def decisions(self, *, study_uid: str | None = None, limit: int = 100) -> list[Decision]: ...


class Versions(Protocol):
    """The model versions that the node knows."""

    def add(self, version: KnownVersion) -> None: ...
    def get(self, model: ModelVersion) -> KnownVersion | None: ...
    def update(self, before: KnownVersion, after: KnownVersion) -> None:
        """Write ``after`` where the row still has the state of ``before``; else ``IllegalStep``."""
        ...

    def all(self, *, name: str | None = None) -> list[KnownVersion]: ...


class Rollouts(Protocol):
    """The pointers of model names that somebody has set."""

    def get(self, name: str, *, lock: bool = False) -> Rollout | None:
        """``lock``: nobody else changes it before this transaction ends."""
        ...

    def all(self) -> list[Rollout]: ...
    def put(self, rollout: Rollout) -> None:
        """Write what was made from the rollout of the same number; ``IllegalStep`` if it was changed meanwhile."""
        ...


class Trials(Protocol):
    """Gates to be passed."""

    def add(self, trial: Trial) -> None: ...
    def get(self, trial_id: str) -> Trial | None: ...
    def claim(self, *, owner: str, now: datetime, lease: timedelta) -> Trial | None: ...
    def update(self, before: Trial, after: Trial) -> None: ...
    def heartbeat(self, trial: Trial, *, now: datetime, lease: timedelta) -> None: ...
    def owned(self) -> list[Trial]: ...


class Comparisons(Protocol):
    """Versions beside the champion; one row for a job."""

    def add(self, comparison: Comparison) -> None: ...
    def lock(self, study_uid: str) -> None:
        """Until the end of the transaction no other one that says so goes on with this study."""
        ...

    def of_job(self, job_id: str) -> Comparison | None: ...
    def of_model(
        self, model: ModelVersion, *, since: datetime | None = None, limit: int = 1000
    ) -> list[Comparison]: ...


class Audit(Protocol):
    """Who changed what about the models: written with the change, never altered or removed."""

    def add(self, entry: AuditEntry) -> None: ...
    def latest(self, *, name: str | None = None, limit: int = 100) -> list[AuditEntry]: ...


class UnitOfWork(Protocol):
    """One transaction: committed at the end of the ``with`` block, rolled back when it raises."""

    @property
    def instances(self) -> Instances: ...
    @property
    def studies(self) -> Studies: ...
    @property
    def jobs(self) -> Jobs: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def circuits(self) -> Circuits: ...
    @property
    def commitments(self) -> Commitments: ...
    @property
    def asked_commitments(self) -> AskedCommitments: ...
    @property
    def manifests(self) -> Manifests: ...
    @property
    def retention(self) -> Retention: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def versions(self) -> Versions: ...
    @property
    def rollouts(self) -> Rollouts: ...
    @property
    def trials(self) -> Trials: ...
    @property
    def comparisons(self) -> Comparisons: ...
    @property
    def audit(self) -> Audit: ...


# ``with uow() as tx`` writes (the write lock is taken at the start); ``with read() as tx`` only reads.
Transaction = Callable[[], AbstractContextManager[UnitOfWork]]
