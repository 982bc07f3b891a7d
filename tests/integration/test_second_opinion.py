"""The second opinion that the node itself asks for where dicom3tools are installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.config import disable_value_validation

from dicom_sr.compose import compose, write
from dicom_sr.judge import judged
from node.domain.profile import Captures, Profile, Report
from tests import builders_results as build
from tests import peers

pytestmark = pytest.mark.peer

ODD = {"PatientSex": "X", "PatientBirthDate": "19", "PatientID": "T" * 70, "StudyTime": "noon"}


@pytest.fixture(autouse=True)
def _installed() -> None:
    peers.program("dciodvfy")


def test_sound_results_pass_whatever_the_patient_of_their_source_is(tmp_path: Path) -> None:
    with disable_value_validation():
        written = [file.path for file in build.case(**ODD).written(tmp_path / "out")]
        assert judged([written[0], written[1], written[2], written[-1]]) == []


def test_an_error_is_named_without_its_value(tmp_path: Path) -> None:
    path = build.case().written(tmp_path / "out")[-1].path
    with disable_value_validation():
        report = dcmread(path)
        report.CompletionFlag = "PERHAPS"
        report.save_as(path)
    (problem,) = judged([path])
    assert "CompletionFlag" in problem
    assert "PERHAPS" not in problem


def _many_frames(folder: Path) -> Path:
    """A segmentation of 40 regions on 12 slices, 480 frames of 47 × 39 pixels, which end within a byte."""
    case = build.case()
    for header in case.headers:
        header.Rows, header.Columns = 47, 39
    volume = replace(case.findings.volume, voxels=np.ascontiguousarray(case.findings.volume.voxels[:, :47, :39]))
    small = replace(case, findings=replace(case.findings, volume=volume))
    everywhere = np.ones(volume.shape, np.bool_)
    regions = [build.region(f"r{n}", f"Region {n}", everywhere) for n in range(40)]
    profile = Profile(report=Report.NONE, captures=Captures.NONE, summary=False, maps=False)
    made = compose(build.PROVENANCE, small.with_regions(*regions).findings, case.headers, profile)
    return write(made, folder)[0].path


def test_of_many_frames_all_are_shown(tmp_path: Path) -> None:
    path = _many_frames(tmp_path)
    written = path.read_bytes()
    assert judged([path]) == []
    for n in (0, 230, 479):
        segmentation = dcmread(path)
        source = segmentation.PerFrameFunctionalGroupsSequence[n].DerivationImageSequence[0].SourceImageSequence[0]
        del source.ReferencedSOPClassUID
        segmentation.save_as(path)
        (problem,) = judged([path])
        assert "PerFrameFunctionalGroupsSequence" in problem and "ReferencedSOPClassUID" in problem
        path.write_bytes(written)
    segmentation.NumberOfFrames, segmentation.PixelData = 481, segmentation.PixelData + bytes(300)
    segmentation.save_as(path)
    assert [p for p in judged([path]) if "PixelData" in p], judged([path])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_is_wrong_with_many_items_is_said_once(tmp_path: Path) -> None:
    path = build.case().written(tmp_path / "out")[0].path
    with disable_value_validation():
        segmentation = dcmread(path)
        for segment in segmentation.SegmentSequence:
            segment.SegmentLabel = ["Left", "right"]
        segmentation.save_as(path)
    assert len(segmentation.SegmentSequence) == 2
    found = [problem for problem in judged([path]) if "Required by Dictionary" in problem]
    assert len(found) == 1
