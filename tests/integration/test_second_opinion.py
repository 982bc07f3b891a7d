"""The second opinion that the node itself asks for where dicom3tools are installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.config import disable_value_validation

from dicom_sr.judge import judged
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
