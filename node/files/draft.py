"""An object that is being written: a locked temporary file, until it has its name."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from node.domain.errors import StorageFull
from node.files import layout

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Free space is looked at once for so many bytes.
_LOOK_EVERY = 1 << 24
_WRITE_BACK_EVERY = 1 << 20


class Stored:
    """A part of an open file, for ``node.domain.encoded``: whatever is sliced out is read, and nothing is kept."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._length = end - start

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self._length)
        return os.pread(self._descriptor, max(0, stop - start), self._start + start)


class DiskDraft:
    """Implements ``node.ports.Draft``. For one thread.

    Args:
        directory: for the temporary file.
        head: preamble and file meta.
        look: raises StorageFull where free space is below the watermark.
        link: gives a synced file a name that is relative to the data directory.
        sync: whether content is made durable before it has its name.
    """

    def __init__(
        self, directory: Path, head: bytes, look: Callable[[], None], link: Callable[[Path, str], None], *, sync: bool
    ) -> None:
        self.size = 0
        self._offset = len(head)
        self._look = look
        self._look_at = 0
        self._written_back = 0
        self._link = link
        self._sync = sync
        self._path = directory / uuid.uuid4().hex
        with full_disk_named():
            look()
            self._descriptor = _locked(self._path)
        self._open = True
        try:
            self.write(head)
        except StorageFull:
            self.discard()
            raise

    @property
    def dataset(self) -> Stored:
        """The data set as it was written so far."""
        return Stored(self._descriptor, self._offset, self.size)

    def write(self, data: bytes | memoryview) -> None:
        """Append to the data set.

        Raises:
            StorageFull: below the watermark, or the disk refused.
        """
        with full_disk_named():
            if self.size >= self._look_at:
                self._look()
                self._look_at = self.size + _LOOK_EVERY
            written = os.write(self._descriptor, data)
            self.size += written
        if self._sync:
            self._write_back()
        if written < len(data):
            self.write(memoryview(data)[written:])

    def _write_back(self) -> None:
        """Have the disk begin while the rest is still to come, so that the sync at the end waits for little."""
        length = self.size - self._written_back
        if length >= _WRITE_BACK_EVERY:
            # On Linux this starts the writing of dirty pages at once, and drops none that is not yet written.
            os.posix_fadvise(self._descriptor, self._written_back, length, os.POSIX_FADV_DONTNEED)
            self._written_back = self.size

    def keep(self, *, study_uid: str, series_uid: str, sop_instance_uid: str) -> str:
        """Make it durable under its final name.

        Raises:
            FileExistsError: an object with this SOPInstanceUID is in this series already; the draft stays open.
            StorageFull: the disk refused.
            InvalidInstance: a UID that cannot be a path.
        """
        path = layout.instance_path(study_uid, series_uid, sop_instance_uid)
        self._name(path)
        return path

    def keep_aside(self, *, folder: str, name: str, note: Mapping[str, Any]) -> str:
        """Make it durable where a person can find it, with a note that says why.

        ``name`` has to identify the bytes: where it is taken, they are taken to lie there already.
        """
        path = layout.aside_path(folder, name)
        beside = DiskDraft(self._path.parent, b"", self._look, self._link, sync=self._sync)
        try:
            # The note goes first, so that an object that lies aside always has one.
            with suppress(FileExistsError):
                beside.write(json.dumps(note, indent=2, ensure_ascii=False).encode())
                beside._name(layout.note_path(path))
            with suppress(FileExistsError):
                self._name(path)
        finally:
            beside.discard()
        self.discard()
        return path

    def discard(self) -> None:
        """Leave nothing but what has a name; does nothing once it is closed."""
        if self._open:
            self._open = False
            with suppress(FileNotFoundError):
                self._path.unlink()
            os.close(self._descriptor)

    def _name(self, path: str) -> None:
        with full_disk_named():
            if self._sync:
                os.fdatasync(self._descriptor)
            self._link(self._path, path)
        self.discard()


def _locked(path: Path) -> int:
    """The descriptor of a new file that ``DiskFiles.sweep`` leaves alone.

    A sweep of another process may come between the making and the locking, and take the name away again.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


@contextmanager
def full_disk_named() -> Iterator[None]:
    """An error of a full disk, or of a full quota, as StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"the disk is full: {error.strerror}") from error
        raise
