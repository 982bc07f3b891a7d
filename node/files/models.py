"""Model versions on disk: acquired into a staging directory, placed under their name and digest, never changed."""

from __future__ import annotations

import hashlib
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from node.domain.errors import InvalidInput, InvalidModel, StorageFull
from node.domain.model import Acquired
from node.files import layout
from node.files.disk import held, sync_path
from node.files.draft import full_disk_named
from node.files.https import Https, check_scheme
from node.files.registries import Registries, fetch, is_registered, look_up
from pipelines.weights import describe, digest_of_files, verify

_NOT_THE_MODEL = shutil.ignore_patterns(".git", "__pycache__", ".cache", ".DS_Store")


class ModelFiles:
    """The ``models`` folder of a data directory.

    Args:
        max_bytes: the most that a download or what a zip unpacks to may have.
        timeout_seconds: how long a server may be silent.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        max_bytes: int,
        registries: Registries = Registries(),  # noqa: B008 - it is frozen
        timeout_seconds: float = 60,
    ) -> None:
        self._root = data_dir.absolute()
        self._staging = self._root / layout.MODELS / ".staging"
        self._max_bytes = max_bytes
        self._registries = registries
        self._timeout_seconds = timeout_seconds

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty directory for a version in the making; what is left in it, and by dead processes, is removed."""
        self._staging.mkdir(parents=True, exist_ok=True)
        for left in self._staging.iterdir():
            with held(left) as ours:
                if ours:
                    shutil.rmtree(left)
        made = self._staging / uuid.uuid4().hex
        made.mkdir()
        with held(made), full_disk_named():
            try:
                yield made
            finally:
                shutil.rmtree(made, ignore_errors=True)

    def acquire(self, source: str, into: Path, *, sha256: str | None = None) -> Acquired:
        """Bring the files of a model to ``into``, a directory that is not there yet.

        Args:
            source: a directory, a zip file, the HTTPS address of a zip file, or a model in a registry (see `look_up`).
            sha256: the digest, in hex, that the zip file must have, or all files of a directory or from a registry
                together (see `fetch`); what is downloaded needs one.

        Raises:
            InvalidInput: there is nothing of that kind, or it is not what the digest says.
            PeerUnreachable: the server does not answer.
            StorageFull: it is larger than it may be, or than the disk.
        """
        if is_registered(source):
            return self._acquire_registered(source, into, sha256)
        if "://" in source:
            archive = into.with_suffix(".zip")
            self._download(source, archive, sha256)
            self._unpack(archive, into, source)
            archive.unlink()
        elif Path(source).is_dir():
            try:
                shutil.copytree(source, into, ignore=_NOT_THE_MODEL)
            except shutil.Error as error:
                raise InvalidInput("source", f"{source} cannot be read: {error}", "Mend what is named") from None
            if sha256 is not None:
                _compare(digest_of_files(describe(into)), sha256, source)
        elif zipfile.is_zipfile(source):
            with Path(source).open("rb") as file:
                _compare(hashlib.file_digest(file, "sha256").hexdigest(), sha256, source)
            self._unpack(Path(source), into, source)
        else:
            fix = "Give one, or an https://, hf:// or models:/ address"
            raise InvalidInput("source", f"{source} is no directory and no zip file", fix)
        return Acquired(source, Path(source).name.removesuffix(".zip"))

    def _acquire_registered(self, source: str, into: Path, sha256: str | None) -> Acquired:
        https = Https(timeout_seconds=self._timeout_seconds)
        listing = look_up(source, self._registries, https)
        found = fetch(listing, into, https, max_bytes=self._max_bytes)
        exact = listing.acquired.source
        if sha256 is None:
            fix = f"If that is what you mean to run, add {exact} with this digest"
            raise InvalidInput("sha256", f"is needed; the files of {exact} have {found}", fix)
        _compare(found, sha256, exact)
        return listing.acquired

    def _download(self, address: str, target: Path, sha256: str | None) -> None:
        check_scheme(address)
        if sha256 is None:
            raise InvalidInput("sha256", "is needed with an address", "Give the digest that its publisher names")
        fetched = Https(timeout_seconds=self._timeout_seconds).save(address, target, most=self._max_bytes)
        _compare(fetched.sha256, sha256, address)

    def _unpack(self, archive: Path, into: Path, source: str) -> None:
        """Unpack plain files alone; where all lie in one folder, that folder is the model."""
        inner = into.with_name(into.name + ".unpacked")
        try:
            with zipfile.ZipFile(archive) as packed:
                if sum(entry.file_size for entry in packed.infolist()) > self._max_bytes:
                    raise StorageFull(f"{source} unpacks to more than models.max_mb, {self._max_bytes >> 20} MiB")
                for entry in packed.infolist():
                    path = PurePosixPath(entry.filename)
                    if path.is_absolute() or ".." in path.parts:
                        raise InvalidInput("source", f"{source}: {path} lies outside", "Do not use this file")
                    packed.extract(entry, inner)
        except zipfile.BadZipFile as error:
            raise InvalidInput("source", f"{source} is no sound zip file: {error}", "Download it again") from None
        found = list(inner.iterdir())
        (found[0] if len(found) == 1 and found[0].is_dir() else inner).rename(into)
        shutil.rmtree(inner, ignore_errors=True)

    def place(self, staged: Path, name: str, digest: str) -> str:
        """Give a complete version its final name, durably; the same one that is there already stays. Returns its path.

        One that is no longer what it was makes room.
        """
        path = layout.model_path(name, digest)
        target = self._root / path
        if target.is_dir() and not _is_sound(target):
            target.rename(staged.with_name("damaged"))
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            for each in (*staged.rglob("*"), staged):
                sync_path(each)
            staged.rename(target)
            for directory in (target.parent, target.parent.parent):
                sync_path(directory)
        return path


def _is_sound(directory: Path) -> bool:
    try:
        verify(directory)
    except InvalidModel:
        return False
    return True


def _compare(found: str, wanted: str | None, source: str) -> None:
    if wanted is not None and found != wanted.strip().lower():
        raise InvalidInput("sha256", f"{source} has the digest {found}, wanted {wanted}", "Do not use this file")
