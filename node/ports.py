"""What the services need of the world, as Protocols. The store, the files, the network and the clock implement them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from node.domain.audit import AuditEntry
from node.domain.circuit import Circuit
from node.domain.commitment import Commitment, CommitmentState, Reference
from node.domain.comparison import Comparison
from node.domain.delivery import Delivery, DeliveryState
from node.domain.encoded import Encoded
from node.domain.events import Event
from node.domain.instance import Aside, Instance
from node.domain.job import Hold, Job, JobInput, JobOutput, JobState, ResultReference
from node.domain.manifest import Manifest, ManifestKind
from node.domain.model import KnownVersion, ModelVersion
from node.domain.peer import Peer
from node.domain.priority import Priority
from node.domain.rollout import Rollout
from node.domain.route import Decision
from node.domain.study import Study, StudyState
from node.domain.trial import Trial, TrialInput, TrialOutput
from node.domain.verification import AskedCommitment, CommitmentReport, Wanted


class Clock(Protocol):
    """The time, aware, in UTC."""

    def now(self) -> datetime: ...


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
        not. In sending order.
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

    def asides(self, *, limit: int = 100, study_uid: str | None = None) -> list[Aside]: ...
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


class Draft(Protocol):
    """An object that is being written; whoever opens it keeps it, keeps it aside or discards it.

    It is closed by each of them, with the exception of ``keep`` that raises FileExistsError.
    """

    size: int
    """Bytes of the file, so far."""

    @property
    def dataset(self) -> Encoded:
        """The data set as it was written so far."""
        ...

    def write(self, data: bytes | memoryview) -> None:
        """Append to the data set.

        Raises:
            StorageFull: below the watermark, or the disk refused.
        """
        ...

    def keep(self, *, study_uid: str, series_uid: str, sop_instance_uid: str) -> str:
        """Make it durable under its final name.

        Raises:
            FileExistsError: an object with this SOPInstanceUID is there already.
            StorageFull: the disk refused.
        """
        ...

    def keep_aside(self, *, folder: str, name: str, note: Mapping[str, Any]) -> str:
        """Make it durable where a person can find it, with a note that says why."""
        ...

    def discard(self) -> None:
        """Leave nothing; does nothing once it is closed."""
        ...


class InstanceFiles(Protocol):
    """Objects on disk. Every path that it returns or takes is relative to the data directory."""

    def draft(self, head: bytes) -> Draft:
        """Begin an object with its preamble and file meta.

        Raises:
            StorageFull: below the watermark, or the disk refused.
        """
        ...

    def find(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> str | None: ...
    def absolute(self, path: str) -> Path: ...
    def dataset(self, path: str) -> AbstractContextManager[Encoded]:
        """The data set of a kept object, as it lies there."""
        ...

    def digest(self, path: str) -> str:
        """SHA-256, in hex, of the data set of a kept object."""
        ...

    def secure(self, paths: Iterable[str]) -> dict[str, int]:
        """Make kept objects durable, their names too; the size in bytes of each, those that are not there left out."""
        ...

    def all_instances(self) -> Iterable[str]: ...
    def all_asides(self) -> Iterable[str]: ...
    def adopt(self, files: Sequence[Path], *, job_id: str, attempt: int) -> list[str]:
        """Take finished result files over, durably; returns their paths in the same order."""
        ...

    def quarantine(self, *, job_id: str, attempt: int, note: Mapping[str, Any]) -> str:
        """Keep the directory of a run, with a note that says why; returns where. Nothing ever removes it again."""
        ...

    def job_dir(self, job_id: str, attempt: int) -> Path:
        """An empty directory for one run; what an earlier crash left there is removed."""
        ...

    def clear_job_dir(self, job_id: str) -> None: ...
    def free_bytes(self) -> int: ...
    def sweep(self) -> int:
        """Remove what dead processes left half-written; never a kept object."""
        ...


def every(index: int) -> bool:
    """For ``Sender.send``: all are sent."""
    return True


def idle() -> None:
    """For ``Sender.send``: nobody waits for a sign of life."""


class Sender(Protocol):
    """Sends instances to a peer."""

    def send(
        self,
        peer: Peer,
        files: Sequence[Path],
        on_status: Callable[[int, int, str], None],
        *,
        wanted: Callable[[int], bool] = every,
        beat: Callable[[], None] = idle,
    ) -> None:
        """Send in order; ``on_status(index, status, comment)`` after each answer.

        Args:
            wanted: asked of each when all before it are answered; what it denies is left out without a status.
            beat: called now and then while an object goes out.

        Raises:
            PeerUnreachable: no association, or it broke; what was answered until then stands.
        """
        ...

    def echo(self, peer: Peer) -> None:
        """Ask whether the peer is there: a C-ECHO, or its like.

        Raises:
            PeerUnreachable: it is not.
            Rejected: it is there, and refuses the question.
        """
        ...


class Verifier(Protocol):
    """Looks for instances at a peer."""

    def held(self, peer: Peer, wanted: Sequence[Wanted]) -> set[str]:
        """The SOPInstanceUIDs of those that the peer lists.

        Raises:
            PeerUnreachable: it cannot be asked now.
            Rejected: it refuses the query; says why.
        """
        ...


class CommitmentRequester(Protocol):
    """Asks a peer for storage commitment (PS3.4 annex J)."""

    def request(
        self,
        peer: Peer,
        transactions: Mapping[str, Sequence[Reference]],
        answered: Callable[[str, int, str], None],
        reported: Callable[[str, CommitmentReport], None],
    ) -> None:
        """Ask for each of some transactions, over one association, which is then held for a moment for their reports.

        Args:
            transactions: what is to be committed to, by TransactionUID.
            answered: is told TransactionUID, status and comment after each answer.
            reported: is told the AE title and the report, before that is answered; raises ``InvalidRequest`` to refuse.

        Raises:
            PeerUnreachable: no association, or it broke; what was answered until then stands.
            Rejected: the peer does not offer storage commitment.
        """
        ...


class Engine(Protocol):
    """Runs one job, or tries one version, in a process of its own."""

    def has_room(self) -> bool:
        """Whether there is memory to run a job beside those that other engines run."""
        ...

    def run(self, job: JobInput, *, timeout: timedelta, beat: Callable[[], None]) -> JobOutput:
        """Run it; ``beat`` is called about every half second meanwhile, and what it raises ends the run.

        Raises:
            ChildLost, TimedOut, OutOfMemory: the run ended without an answer.
        """
        ...

    def run_batch(
        self, jobs: Sequence[JobInput], *, timeout: timedelta, beat: Callable[[], None]
    ) -> list[JobOutput | None]:
        """Run jobs of one version together; as ``run``. None stands for one that has to run by itself."""
        ...

    def try_out(self, trial: TrialInput, *, timeout: timedelta, beat: Callable[[], None]) -> TrialOutput:
        """Try a version in that process; as ``run``."""
        ...

    def close(self) -> None: ...
