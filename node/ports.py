"""What the services need of the world, as Protocols. The store, the files, the network and the clock implement them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from node.domain.delivery import Delivery, DeliveryState
from node.domain.encoded import Encoded
from node.domain.events import Event
from node.domain.instance import Aside, Instance
from node.domain.job import Job, JobInput, JobOutput, JobState
from node.domain.peer import Peer
from node.domain.route import Decision
from node.domain.study import Study, StudyState


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
    def indexed(self, paths: Iterable[str]) -> set[str]:
        """Those of the given paths that a row points to, an instance's or an aside's."""
        ...

    def is_result_series(self, series_uid: str) -> bool: ...
    def count(self) -> int: ...
    def add_aside(self, aside: Aside) -> bool:
        """Note what lies aside; False when that object is noted already."""
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
    def claim(self, *, owner: str, now: datetime, lease: timedelta) -> Job | None:
        """Take the oldest queued job that is due; the attempt is counted here."""
        ...

    def update(self, before: Job, after: Job) -> None:
        """Write ``after`` where the row still has the state and the attempt of ``before``; else ``LostLease``."""
        ...

    def heartbeat(self, job: Job, *, now: datetime, lease: timedelta) -> None:
        """Prolong the lease; ``LostLease`` when it is gone."""
        ...

    def owned(self) -> list[Job]:
        """Running jobs, whoever runs them."""
        ...

    def of_study(self, study_uid: str) -> list[Job]: ...
    def latest(self, *, limit: int = 100, state: JobState | None = None) -> list[Job]: ...
    def counts(self) -> dict[JobState, int]: ...


class Deliveries(Protocol):
    """The outbox."""

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """``id`` of the argument is ignored; the store gives one."""
        ...

    def get(self, delivery_id: int) -> Delivery | None: ...
    def claim(self, *, peer: str, owner: str, now: datetime, lease: timedelta, limit: int) -> list[Delivery]: ...
    def update(self, before: Delivery, after: Delivery) -> None: ...
    def heartbeat(self, deliveries: Sequence[Delivery], *, now: datetime, lease: timedelta) -> None: ...
    def owned(self) -> list[Delivery]: ...
    def of_study(self, study_uid: str) -> list[Delivery]: ...
    def latest(self, *, limit: int = 100, state: DeliveryState | None = None) -> list[Delivery]: ...
    def counts(self) -> dict[tuple[str, DeliveryState], int]:
        """By peer and state."""
        ...

    def oldest_pending(self) -> dict[str, datetime]:
        """By peer."""
        ...


class Journal(Protocol):
    """Events and decisions: written with the step they belong to, never changed."""

    def add(self, event: Event) -> None: ...
    def of_study(self, study_uid: str) -> list[Event]: ...
    def latest(self, *, limit: int = 100) -> list[Event]: ...
    def add_decision(self, decision: Decision) -> None: ...
    def decisions(self, *, study_uid: str | None = None, limit: int = 100) -> list[Decision]: ...


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
    def journal(self) -> Journal: ...


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

    def all_instances(self) -> Iterable[str]: ...
    def all_asides(self) -> Iterable[str]: ...
    def adopt(self, files: Sequence[Path], *, job_id: str, attempt: int) -> list[str]:
        """Take finished result files over, durably; returns their paths in the same order."""
        ...

    def job_dir(self, job_id: str, attempt: int) -> Path:
        """An empty directory for one run; what an earlier crash left there is removed."""
        ...

    def clear_job_dir(self, job_id: str) -> None: ...
    def free_bytes(self) -> int: ...
    def sweep(self) -> int:
        """Remove what dead processes left half-written; never a kept object."""
        ...


class Sender(Protocol):
    """Sends instances to a peer."""

    def send(self, peer: Peer, files: Sequence[Path], on_status: Callable[[int, int, str], None]) -> None:
        """Send over one association, in order; ``on_status(index, status, comment)`` after each answer.

        Raises:
            PeerUnreachable: no association, or it broke; what was answered until then stands.
        """
        ...

    def echo(self, peer: Peer) -> None:
        """C-ECHO. Raises ``PeerUnreachable``."""
        ...


class Engine(Protocol):
    """Runs one job in a process of its own."""

    def run(self, job: JobInput, *, timeout: timedelta, beat: Callable[[], None]) -> JobOutput:
        """Run it; ``beat`` is called about every half second meanwhile, and what it raises ends the run.

        Raises:
            ChildLost, TimedOut, OutOfMemory: the run ended without an answer.
        """
        ...

    def close(self) -> None: ...
