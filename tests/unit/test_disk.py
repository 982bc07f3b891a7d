"""DiskFiles on a real file system."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from node.domain.errors import StorageFull
from node.domain.part10 import head
from node.files.disk import DiskFiles
from tests import objects

SENT = objects.incoming()
HEAD = head(SENT)
DIGEST = hashlib.sha256(SENT.dataset).hexdigest()


@pytest.fixture
def files(tmp_path: Path) -> DiskFiles:
    return DiskFiles(tmp_path / "var", min_free_bytes=0)


def keep(files: DiskFiles, dataset: bytes = SENT.dataset, study_uid: str = "1.2.3") -> str:
    return files.keep(head=HEAD, dataset=dataset, study_uid=study_uid, series_uid="1.2.3.1", sop_instance_uid="1.2.3.4")


def temporary(files: DiskFiles) -> list[Path]:
    return list(files.absolute("tmp").iterdir())


def test_a_kept_object_has_exactly_the_bytes_that_came(files: DiskFiles) -> None:
    path = keep(files)
    assert path == "instances/1.2.3/1.2.3.1/1.2.3.4.dcm"
    assert files.absolute(path).read_bytes() == HEAD + SENT.dataset
    assert files.find("1.2.3", "1.2.3.1", "1.2.3.4") == path
    assert files.find("1.2.3", "1.2.3.1", "1.2.3.5") is None
    assert files.digest(path) == DIGEST
    assert list(files.all_instances()) == [path]
    assert temporary(files) == []


def test_nothing_is_overwritten(files: DiskFiles) -> None:
    path = keep(files)
    with pytest.raises(FileExistsError):
        keep(files, dataset=b"other")
    assert files.digest(path) == DIGEST
    assert temporary(files) == []


def test_of_concurrent_writers_exactly_one_wins(files: DiskFiles) -> None:
    start = threading.Barrier(8)
    won: list[int] = []

    def write(number: int) -> None:
        start.wait()
        try:
            keep(files, dataset=bytes([number]) * 1000)
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    path = files.absolute("instances/1.2.3/1.2.3.1/1.2.3.4.dcm")
    assert path.read_bytes() == HEAD + bytes(won) * 1000
    assert temporary(files) == []


def test_the_file_is_synced_before_it_has_its_name_and_the_directory_after(
    files: DiskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fdatasync", "link", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    keep(files)
    assert calls[0] == "fdatasync"
    # instances/, the study and the series are new: each is synced into its parent before the object is named in it.
    assert calls[1:] == ["fsync", "fsync", "fsync", "link", "fsync"]


def test_below_the_watermark_nothing_is_written(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path, min_free_bytes=1 << 60)
    with pytest.raises(StorageFull):
        keep(files)
    assert list(files.all_instances()) == []
    assert temporary(files) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_nothing(files: DiskFiles, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(*args: object) -> None:
        raise OSError(code, "no space left")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(StorageFull):
        keep(files)
    assert list(files.all_instances()) == []
    assert temporary(files) == []


def test_an_object_aside_lies_beside_its_note_and_once(files: DiskFiles) -> None:
    for _ in range(2):
        draft = files.draft(HEAD)
        draft.write(SENT.dataset)
        path = draft.keep_aside(folder="conflict/2026-01-02", name="1.2.3.4-ab", note={"why": "ü"})
    assert path == "aside/conflict/2026-01-02/1.2.3.4-ab.dcm"
    assert files.digest(path) == DIGEST
    assert json.loads(files.absolute("aside/conflict/2026-01-02/1.2.3.4-ab.json").read_text("utf-8")) == {"why": "ü"}
    assert list(files.all_asides()) == [path]
    assert list(files.all_instances()) == []


def test_result_files_are_moved_in_order_and_not_twice(files: DiskFiles) -> None:
    run = files.job_dir("job-1", 1)
    made = [objects.write(run / f"{n}.dcm", objects.incoming(SOPInstanceUID=f"1.2.{n}")) for n in (2, 1)]
    assert files.adopt(made, job_id="job-1", attempt=1) == ["results/job-1/1/1.2.2.dcm", "results/job-1/1/1.2.1.dcm"]
    assert list(run.iterdir()) == []
    again = objects.write(run / "2.dcm", objects.incoming(SOPInstanceUID="1.2.2"))
    with pytest.raises(FileExistsError):
        files.adopt([again], job_id="job-1", attempt=1)


def test_a_run_starts_in_an_empty_directory(files: DiskFiles) -> None:
    (files.job_dir("job-1", 1) / "left").write_text("by a crash")
    assert list(files.job_dir("job-1", 1).iterdir()) == []
    files.job_dir("job-1", 2)
    files.clear_job_dir("job-1")
    assert not files.absolute("work/job-1").exists()
    files.clear_job_dir("job-1")


def test_a_sweep_at_the_worst_moment_takes_nothing_that_is_being_written(
    files: DiskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    swept: list[int] = []

    def sweep_first(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not swept:  # the file is made, and not locked yet
            swept.append(-1)
            swept[0] = files.sweep()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    assert files.digest(keep(files)) == DIGEST
    assert swept == [1]


def test_sweep_removes_what_the_dead_left_and_spares_the_living(files: DiskFiles) -> None:
    kept = keep(files)
    (files.absolute("tmp") / "dead").write_bytes(b"half")
    living = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'wb'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()",
            str(files.absolute("tmp") / "living"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with living:
        assert living.stdout is not None
        living.stdout.readline()
        assert files.sweep() == 1
        assert [path.name for path in temporary(files)] == ["living"]
        living.communicate(b"\n")
    assert files.sweep() == 1
    assert files.digest(kept) == DIGEST
