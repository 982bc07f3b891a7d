"""Objects on a local file system, durable before anybody is told that they are kept."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from node.domain.errors import StorageFull
from node.domain.part10 import HEAD_LIMIT, split
from node.files import layout

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFiles:
    """Implements ``node.ports.InstanceFiles`` below one directory. Safe for threads and for several processes.

    A file is written under a temporary name on the same file system, synced, linked to its final name and the directory
    synced. A hard link fails where the name is taken, which a rename would not: so a name appears only with complete
    content, of two writers exactly one wins, and nothing is overwritten. Needs a file system with hard links and
    ``flock`` (every local Linux one; NFS from version 4).

    Args:
        data_dir: made if it is not there.
        min_free_bytes: nothing is written that would leave less than this free.
    """

    def __init__(self, data_dir: Path, *, min_free_bytes: int) -> None:
        self._root = data_dir.absolute()
        self._min_free_bytes = min_free_bytes
        self._synced: set[Path] = set()
        self._root.mkdir(parents=True, exist_ok=True)
        self._make_dir(self._root / layout.TMP)

    def keep(self, *, head: bytes, dataset: bytes, study_uid: str, series_uid: str, sop_instance_uid: str) -> str:
        """Write preamble, file meta and data set durably under their final name.

        Raises:
            FileExistsError: an object with this SOPInstanceUID is in this series already.
            StorageFull: below the watermark, or the disk refused.
            InvalidInstance: a UID that cannot be a path.
        """
        path = layout.instance_path(study_uid, series_uid, sop_instance_uid)
        self._write(path, (head, dataset))
        return path

    def keep_aside(self, *, head: bytes, dataset: bytes, folder: str, name: str, note: Mapping[str, Any]) -> str:
        """Write an object and a note that says why, durably, where a person can find both.

        ``name`` has to identify the bytes: where it is taken, they are taken to lie there already.
        """
        path = layout.aside_path(folder, name)
        # The note goes first, so that an object that lies aside always has one.
        with suppress(FileExistsError):
            self._write(layout.note_path(path), (json.dumps(note, indent=2, ensure_ascii=False).encode(),))
        with suppress(FileExistsError):
            self._write(path, (head, dataset))
        return path

    def find(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> str | None:
        """The path of a received instance, None where it is not kept."""
        path = layout.instance_path(study_uid, series_uid, sop_instance_uid)
        return path if self.absolute(path).exists() else None

    def absolute(self, path: str) -> Path:
        """Where a path that is relative to the data directory lies."""
        return self._root / path

    def digest(self, path: str) -> str:
        """SHA-256, in hex, of the data set of a kept object: what follows its file meta information."""
        digest = hashlib.sha256()
        with self.absolute(path).open("rb") as file:
            file.seek(split(file.read(HEAD_LIMIT)).offset)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def all_instances(self) -> Iterator[str]:
        """Every received instance; no order."""
        return self._all(layout.INSTANCES)

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
            self._place(source, path)
            paths.append(path)
        return paths

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
        return shutil.disk_usage(self._root).free

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

    def _write(self, path: str, parts: Sequence[bytes]) -> None:
        if self.absolute(path).exists():
            raise FileExistsError(path)
        with _full_disk_named(), self._temporary() as (temporary, descriptor):
            free = self.free_bytes()
            if free - sum(map(len, parts)) < self._min_free_bytes:
                raise StorageFull(f"{free} bytes are free; {self._min_free_bytes} have to stay free")
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
            self._link(temporary, path)

    def _place(self, source: Path, path: str) -> None:
        with _full_disk_named():
            self._link(source, path)
            source.unlink()

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, int]]:
        """A new locked file that is gone afterwards, whatever happens: what was linked keeps its content."""
        path = self.absolute(layout.TMP) / uuid.uuid4().hex
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield path, descriptor
        finally:
            with suppress(FileNotFoundError):
                path.unlink()
            os.close(descriptor)

    def _link(self, source: Path, path: str) -> None:
        target = self.absolute(path)
        self._make_dir(target.parent)
        os.link(source, target)
        _sync_dir(target.parent)

    def _make_dir(self, directory: Path) -> None:
        """Make a directory below the root and sync the entry that names it.

        A directory that exists is not enough: another thread may have made it and not have synced it yet, and an
        object in it would be acknowledged before its path is durable. Hence the set of those that are known to be.
        """
        if directory in self._synced and directory.is_dir():
            return
        if directory != self._root:
            self._make_dir(directory.parent)
            directory.mkdir(exist_ok=True)
            _sync_dir(directory.parent)
        self._synced.add(directory)


def _sync_dir(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"the disk is full: {error.strerror}") from error
        raise
