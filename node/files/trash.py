"""What is removed from the data directory: studies by way of a trash, so that a crash half-way loses nothing."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from node.domain.retention import Amount, Contents, QuarantinedRun
from node.files import layout
from node.files.disk import DiskFiles, held, sync_path

log = logging.getLogger(__name__)

_NOTICE = "-notice"  # the scratch space of a job's notice is named so


class DiskTrash:
    """Implements ``node.ports.Trash``. A file in the trash keeps its path, below the folder that it is in."""

    def __init__(self, files: DiskFiles) -> None:
        self._files = files
        self._top = files.absolute(layout.TRASH)
        self._top.mkdir(exist_ok=True)

    def held(self) -> AbstractContextManager[bool]:
        """Keep others from removing meanwhile; False where another process is at it."""
        return held(self._top)

    def take(self, name: str, study_uid: str, contents: Contents) -> None:
        """Move the files of a study into a folder of the trash, durably; what is not there is left out.

        What was acknowledged a moment ago has no row yet, so that ``contents`` does not name it: it stays, as does what
        lies there and is part of no study.
        """
        notes = [layout.note_path(path) for path in contents.asides]
        results = [layout.results_path(job_id) for job_id in contents.jobs]
        self._move(name, [layout.study_path(study_uid), *contents.asides, *notes, *results])
        received = [path for path in self._files_of(name) if path.startswith(f"{layout.INSTANCES}/")]
        self._put_back(name, [path for path in received if path not in contents.instances])

    def _move(self, name: str, paths: Iterable[str]) -> None:
        changed: set[Path] = set()
        for path in paths:
            source, target = self._files.absolute(path), self._top / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                source.rename(target)
                changed.add(source.parent)
                changed.update(parent for parent in target.parents if parent.is_relative_to(self._top))
        # Where they go first: a power cut may show a file in both places, never in none.
        for directory in sorted(changed, key=lambda each: not each.is_relative_to(self._top)):
            sync_path(directory)

    def names(self) -> list[str]:
        """The folders of the trash."""
        return sorted(path.name for path in self._top.iterdir())

    def _files_of(self, name: str) -> list[str]:
        """Where the files of a folder have lain."""
        folder = self._top / name
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]

    def put_back(self, name: str) -> None:
        """Move files to where they have lain; one whose name is taken by now stays in the trash."""
        self._put_back(name, self._files_of(name))
        if not self._files_of(name):
            self.empty(name)

    def _put_back(self, name: str, paths: Iterable[str]) -> None:
        for path in paths:
            source = self._top / name / path
            try:
                self._files.place(source, path)
            except FileExistsError:
                if source.samefile(self._files.absolute(path)):
                    source.unlink()  # a crash came between the two steps of the move
                else:
                    log.error("%s/%s/%s cannot be put back: its name is taken", layout.TRASH, name, path)

    def empty(self, name: str) -> None:
        """Remove a folder of the trash, for good; does nothing where there is none."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._top / name)

    def remove(self, path: str) -> Amount:
        """Remove a file with its note, or a folder, for good, and the folders above it that are empty then.

        Returns:
            How many files there were, and their bytes.
        """
        target, note = self._files.absolute(path), self._files.absolute(layout.note_path(path))
        beside = (note,) if path.startswith(f"{layout.ASIDE}/") else ()
        found = [each for each in (target, *beside, *target.rglob("*")) if each.is_file()]
        amount = Amount(len(found), sum(each.stat().st_size for each in found))
        if target.is_dir():
            shutil.rmtree(target)
        else:
            for each in found:
                each.unlink(missing_ok=True)
        for parent in PurePosixPath(path).parents[:-2]:  # neither the data directory nor what lies in it
            with suppress(OSError):
                self._files.absolute(str(parent)).rmdir()
        return amount

    def quarantined(self) -> list[QuarantinedRun]:
        """What lies in quarantine, the oldest first."""
        found = []
        for run in self._files.absolute(layout.QUARANTINE).glob("*/*"):
            files = [each for each in run.rglob("*") if each.is_file()]
            amount = Amount(len(files), sum(each.stat().st_size for each in files))
            job_id = run.parent.name.removesuffix(_NOTICE)
            path = f"{layout.QUARANTINE}/{run.parent.name}/{run.name}"
            found.append(QuarantinedRun(path, job_id, _time_of(run), amount))
        return sorted(found, key=lambda each: each.at)

    def scratch(self, before: datetime) -> dict[str, str]:
        """Scratch folders in which nothing was written since then, and the job of each."""
        found = {}
        for folder in self._files.absolute(layout.WORK).glob("*"):
            with suppress(FileNotFoundError):
                written = max(each.stat().st_mtime for each in (folder, *folder.rglob("*")))
                if datetime.fromtimestamp(written, UTC) < before:
                    found[f"{layout.WORK}/{folder.name}"] = folder.name.removesuffix(_NOTICE)
        return found


def _time_of(run: Path) -> datetime:
    """When it failed, as its note says; where that cannot be read, when it was last written to."""
    note = run / layout.REASON
    try:
        return datetime.fromisoformat(json.loads(note.read_text(encoding="utf-8"))["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return datetime.fromtimestamp(run.stat().st_mtime, UTC)
