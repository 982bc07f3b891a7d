"""What the services need of the world, as Protocols. The store, the files, the network and the clock implement them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from node.domain.commitment import Reference
from node.domain.encoded import Encoded
from node.domain.job import JobInput, JobOutput
from node.domain.peer import Peer
from node.domain.retention import Amount, Contents, QuarantinedRun
from node.domain.trial import TrialInput, TrialOutput
from node.domain.verification import CommitmentReport, Wanted


class Clock(Protocol):
    """The time, aware, in UTC."""

    def now(self) -> datetime: ...


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

    def all_instances(self, study_uid: str | None = None) -> Iterable[str]:
        """Every received instance, of one study or of all."""
        ...

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


class Trash(Protocol):
    """Removes files from the data directory. Paths are relative to it."""

    def held(self) -> AbstractContextManager[bool]:
        """Keep others from removing meanwhile; False where another process is at it."""
        ...

    def take(self, name: str, study_uid: str, contents: Contents) -> None:
        """Move the files of a study, durably, into a folder of the trash, where nothing finds them.

        What lies among its instances and is none of ``contents`` stays.
        """
        ...

    def names(self) -> list[str]: ...
    def put_back(self, name: str) -> None:
        """Move files to where they have lain; one whose name is taken by now stays in the trash."""
        ...

    def empty(self, name: str) -> None:
        """Remove a folder of the trash, for good."""
        ...

    def remove(self, path: str) -> Amount:
        """Remove a file with its note, or a folder, for good, and folders above it that are empty then."""
        ...

    def quarantined(self) -> list[QuarantinedRun]:
        """What lies in quarantine, the oldest first."""
        ...

    def scratch(self, before: datetime) -> Mapping[str, str]:
        """Scratch folders in which nothing was written since then, and the job of each."""
        ...


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
        """The SOPInstanceUIDs of those that the peer lists in their study and series.

        Raises:
            PeerUnreachable: it cannot be asked now.
            Rejected: it refuses the query; says why.
        """
        ...

    def elsewhere(self, peer: Peer, wanted: Sequence[Wanted]) -> dict[str, tuple[str, str]]:
        """Those that the peer lists in another study or series, as far as it answers that: their StudyInstanceUID and
        SeriesInstanceUID there, by SOPInstanceUID.

        Raises:
            PeerUnreachable: it cannot be asked now.
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
