"""Bad input through a whole node: each gets its documented answer, stops nothing else, and can be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from node.dicom.scu import StorageSender
from node.dicom.send_dir import collect
from node.dicom.sink import Sink
from node.domain.job import Job
from node.domain.peer import Peer
from pipelines.phantom import SeriesOptions, write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests.running import RunningNode, eventually, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    sink = Sink("PACS", free_port(), tmp_path_factory.mktemp("pacs"))
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Sink) -> Iterator[RunningNode]:
    running = RunningNode(tmp_path_factory.mktemp("node"), pacs_port=pacs.port)
    yield running.start()
    running.close()


def phantom(folder: Path, seed: str) -> list[Path]:
    spec = PhantomSpec(shape=(60, 128, 128), spacing=(5.0, 2.8, 2.8), seed=seed)
    return write_series(make_phantom(spec), folder, SeriesOptions())


def send(node: RunningNode, files: list[Path]) -> list[int]:
    answers: list[int] = []
    StorageSender("CT1").send(
        Peer("node", "AINODE", "127.0.0.1", node.port), files, lambda index, status, comment: answers.append(status)
    )
    return answers


def job_of(node: RunningNode, study_uid: str) -> Job:
    def ended() -> Job | None:
        found = [j for j in node.rows()[1] if j.study_uid == study_uid]
        return next((j for j in found if j.state.value in ("refused", "succeeded", "dead")), None)

    job = eventually(ended, "the job ended", seconds=120)
    assert isinstance(job, Job)
    return job


def study_uid(path: Path) -> str:
    return str(dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def test_a_missing_slice_is_refused_with_its_place(node: RunningNode, tmp_path: Path) -> None:
    files = phantom(tmp_path, "missing")
    assert set(send(node, files[:30] + files[31:])) == {0}
    job = job_of(node, study_uid(files[0]))
    assert job.state.value == "refused"
    assert "missing" in (job.reason or "")
    assert "mm" in (job.reason or "")


def test_a_colour_image_among_ct_slices_is_refused_by_name(node: RunningNode, tmp_path: Path) -> None:
    files = phantom(tmp_path, "colour")
    odd = dcmread(files[20])
    odd.SOPInstanceUID = odd.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    odd.PhotometricInterpretation, odd.SamplesPerPixel, odd.PlanarConfiguration = "RGB", 3, 0
    odd.BitsAllocated, odd.BitsStored, odd.HighBit, odd.PixelRepresentation = 8, 8, 7, 0
    odd.PixelData = np.zeros((odd.Rows, odd.Columns, 3), np.uint8).tobytes()
    odd.save_as(tmp_path / "odd.dcm")
    assert set(send(node, [*files, tmp_path / "odd.dcm"])) == {0}
    job = job_of(node, study_uid(files[0]))
    assert job.state.value == "refused"
    assert "RGB" in (job.reason or "")


def test_a_study_that_no_route_takes_is_shown_with_the_reason(node: RunningNode, tmp_path: Path) -> None:
    (path,) = phantom(tmp_path, "not-ct")[:1]
    other = dcmread(path)
    other.Modality = "MR"
    other.StudyInstanceUID = generate_uid()
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    other.save_as(tmp_path / "mr.dcm")
    assert send(node, [tmp_path / "mr.dcm"]) == [0]
    reasons = eventually(
        lambda: [d["reason"] for d in node.get("/api/v1/decisions") if d["study_uid"] == other.StudyInstanceUID],
        "the decision is stored",
    )
    assert any("Modality is MR, wanted Modality CT" in reason for reason in reasons)


def test_the_node_goes_on_after_all_published_broken_files(
    node: RunningNode, pacs: Sink, shared_data: Path, tmp_path: Path
) -> None:
    broken = collect(shared_data / "broken").files
    answers = send(node, list(broken))
    assert len(answers) == len(broken)
    assert 0 < answers.count(0) < len(answers)
    files = phantom(tmp_path, "after")
    assert set(send(node, files)) == {0}
    assert job_of(node, study_uid(files[0])).state.value == "succeeded"
    eventually(node.all_delivered, "the results are delivered", seconds=60)
    aside = node.get("/api/v1/aside")
    assert {a["reason"] for a in aside} == {"invalid", "conflict"}
    assert all((node.data_dir / a["path"]).is_file() for a in aside)
    assert "Traceback" not in node.log
