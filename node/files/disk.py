"""Objects on a local file system, durable before anybody is told that they are kept."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from node.domain.errors import StorageFull
from node.domain.part10 import HEAD_LIMIT, split
from node.files import layout
from node.files.draft import DiskDraft, Stored, full_disk_named

_CHUNK = 1 << 20


class DiskFiles:
    """Implements ``node.ports.InstanceFiles`` below one directory. Safe for threads and for several processes.

    A file is written under a temporary name on the same file system, synced, linked to its final name and the directory
    synced. A hard link fails where the name is taken, which a rename would not: so a name appears only with complete
    content, of two writers exactly one wins, and nothing is overwritten. Needs a file system with hard links and
    ``flock`` (every local Linux one; NFS from version 4).

    Args:
        data_dir: made if it is not there.
        min_free_bytes: no object is begun, and a large one is not gone on with, while less than this is free.
        sync: whether what is received is durable before it has its name. Without it a power cut loses what the kernel
            has not written yet, answered or not; a crash of the node loses nothing. Results are synced in any case.
    """

    def __init__(self, data_dir: Path, *, min_free_bytes: int, sync: bool = True) -> None:
        self._root = data_dir.absolute()
        self._min_free_bytes = min_free_bytes
        self._sync = sync
        self._made: set[Path] = set()
        self._root.mkdir(parents=True, exist_ok=True)
        self._make_dir(self._root / layout.TMP, sync=True)

    def draft(self, head: bytes) -> DiskDraft:
        """Begin an object with its preamble and file meta.

        Raises:
            StorageFull: below the watermark, or the disk refused.
        """
        return DiskDraft(self.absolute(layout.TMP), head, self._look, self._link_received, sync=self._sync)

    def keep(self, *, head: bytes, dataset: bytes, study_uid: str, series_uid: str, sop_instance_uid: str) -> str:
        """Keep an object that is in memory; as ``draft`` and ``DiskDraft.keep``."""
        draft = self.draft(head)
        try:
            draft.write(dataset)
            return draft.keep(study_uid=study_uid, series_uid=series_uid, sop_instance_uid=sop_instance_uid)
        finally:
            draft.discard()

    def find(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> str | None:
        """The path of a received instance, None where it is not kept."""
        path = layout.instance_path(study_uid, series_uid, sop_instance_uid)
        return path if self.absolute(path).exists() else None

    def absolute(self, path: str) -> Path:
        """Where a path that is relative to the data directory lies."""
        return self._root / path

    @contextmanager
    def dataset(self, path: str) -> Iterator[Stored]:
        """The data set of a kept object, as it lies there.

        Raises:
            InvalidInstance: it is no DICOM file.
        """
        with self.absolute(path).open("rb") as file:
            start = split(file.read(HEAD_LIMIT)).offset
            yield Stored(file.fileno(), start, os.fstat(file.fileno()).st_size)

    def digest(self, path: str) -> str:
        """SHA-256, in hex, of the data set of a kept object: what follows its file meta information."""
        digest = hashlib.sha256()
        with self.absolute(path).open("rb") as file:
            file.seek(split(file.read(HEAD_LIMIT)).offset)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def secure(self, paths: Iterable[str]) -> dict[str, int]:
        """Make kept objects durable, their names too; the size in bytes of each, those that are not there left out.

        What was kept with ``sync`` is durable already, and syncing it again costs next to nothing.

        Raises:
            OSError: the disk could not write something.
        """
        sizes: dict[str, int] = {}
        directories: set[Path] = set()
        for path in paths:
            file = self.absolute(path)
            with suppress(FileNotFoundError), file.open("rb") as opened:
                os.fsync(opened.fileno())
                sizes[path] = os.fstat(opened.fileno()).st_size
                directories.update(parent for parent in file.parents if parent.is_relative_to(self._root))
        for directory in directories:
            sync_path(directory)
        return sizes

    def all_instances(self, study_uid: str | None = None) -> Iterator[str]:
        """Every received instance, of one study or of all; no order."""
        return self._all(layout.INSTANCES if study_uid is None else layout.study_path(study_uid))

    def all_asides(self) -> Iterator[str]:
        """Every object aside; no order."""
        return self._all(layout.ASIDE)

    def adopt(self, files: Sequence[Path], *, job_id: str, attempt: int) -> list[str]:
        """Move finished result files from the run's directory to the results, durably; paths in the same order.

        Raises:
            FileExistsError: this attempt has been adopted before.
            InvalidInstance: a file is no DICOM file.
        """
        paths: list[str] = []
        for source in files:
            with source.open("rb") as file:
                path = layout.result_path(job_id, attempt, split(file.read(HEAD_LIMIT)).sop_instance_uid)
                os.fsync(file.fileno())
            self.place(source, path)
            paths.append(path)
        return paths

    def quarantine(self, *, job_id: str, attempt: int, note: Mapping[str, Any]) -> str:
        """Move the directory of a run, durably, to where a person looks at it, with ``note`` as JSON beside its files.

        A job that was requeued counts its attempts anew: what is there of an earlier life stays.
        """
        source = self.absolute(layout.work_path(job_id, attempt))
        again = 1
        while self.absolute(path := layout.quarantine_path(job_id, attempt, again)).exists():
            again += 1
        with full_disk_named():
            (source / layout.REASON).write_text(json.dumps(note, indent=2, ensure_ascii=False), encoding="utf-8")
            for file in source.rglob("*"):
                sync_path(file)
            sync_path(source)
            self._make_dir(self.absolute(path).parent, sync=True)
            source.rename(self.absolute(path))
            sync_path(self.absolute(path).parent)
        return path

    def job_dir(self, job_id: str, attempt: int) -> Path:
        """An empty directory for one run; what an earlier crash left there is removed."""
        directory = self.absolute(layout.work_path(job_id, attempt))
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        return directory

    def clear_job_dir(self, job_id: str) -> None:
        """Remove the scratch space of all runs of a job, if there is any."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.absolute(layout.work_path(job_id)))

    def free_bytes(self) -> int:
        """What an unprivileged process may still write, in bytes."""
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def sweep(self) -> int:
        """Remove what dead processes left half-written in ``tmp/``, and only there; returns how many files.

        A writer holds a lock on its file, which the kernel releases when the process dies: so this may run while other
        processes of the node are receiving.
        """
        removed = 0
        for path in self.absolute(layout.TMP).iterdir():
            with suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                path.unlink()
                removed += 1
        return removed

    def _all(self, top: str) -> Iterator[str]:
        for directory, _, names in os.walk(self.absolute(top)):
            relative = Path(directory).relative_to(self._root)
            yield from (str(relative / name) for name in names if name.endswith(".dcm"))

    def _look(self) -> None:
        free = self.free_bytes()
        if free < self._min_free_bytes:
            raise StorageFull(f"{free} bytes are free; {self._min_free_bytes} have to stay free")

    def _link_received(self, source: Path, path: str) -> None:
        self._link(source, path, sync=self._sync)

    def place(self, source: Path, path: str) -> None:
        """Move a file of the data directory to another name, durably.

        Raises:
            FileExistsError: the name is taken.
        """
        with full_disk_named():
            self._link(source, path, sync=True)
            source.unlink()

    def _link(self, source: Path, path: str, *, sync: bool) -> None:
        target = self.absolute(path)
        self._make_dir(target.parent, sync=sync)
        try:
            os.link(source, target)
        except FileNotFoundError:
            self._make_dir(target.parent, sync=sync)  # the study was removed at this very moment
            os.link(source, target)
        if sync:
            sync_path(target.parent)

    def _make_dir(self, directory: Path, *, sync: bool) -> None:
        """Make a directory below the root and sync the entry that names it.

        A directory that exists is not enough: another thread may have made it and not have synced it yet, and an
        object in it would be acknowledged before its path is durable. Hence the set of those that are known to be.
        """
        if directory in self._made and directory.is_dir():
            return
        if directory != self._root:
            self._make_dir(directory.parent, sync=sync)
            directory.mkdir(exist_ok=True)
            if sync:
                sync_path(directory.parent)
        self._made.add(directory)


def sync_path(path: Path) -> None:
    """Make a file's content, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def held(directory: Path) -> Iterator[bool]:
    """Hold a directory until the end; False where another process, or another hold of this one, has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
