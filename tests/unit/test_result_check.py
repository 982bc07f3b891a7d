"""Every rule of the check finds the fault that it is there for, and nothing is said of faultless results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.filewriter import dcmwrite

from dicom_sr.check import check
from dicom_sr.check_content import concept, content, groups
from tests import builders_results as build

SEG, SC, SR = 0, 2, -1
Fault = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def case() -> build.Case:
    return build.case()


def _without(keyword: str) -> Fault:
    return lambda ds: ds.pop(keyword) and None


def _set(keyword: str, value: object) -> Fault:
    return lambda ds: setattr(ds, keyword, value)


def _group(ds: Dataset, n: int = 0) -> Dataset:
    return groups(ds)[n]


def _drop(code: str, n: int | None = None) -> Fault:
    """Remove the content items with concept ``code`` from the root, or from group ``n``."""

    def plant(ds: Dataset) -> None:
        parent = ds if n is None else _group(ds, n)
        parent.ContentSequence = [item for item in parent.ContentSequence if concept(item) != code]

    return plant


def _drop_places(ds: Dataset) -> None:
    container = next(i for i in ds.ContentSequence if concept(i) == "126010")
    container.ContentSequence = container.ContentSequence[1:]


def _number(ds: Dataset) -> Dataset:
    return next(i for i in content(ds) if i.ValueType == "NUM" and concept(i) == "118565006").MeasuredValueSequence[0]


def _unit(ds: Dataset) -> None:
    _number(ds).MeasurementUnitsCodeSequence[0].CodeValue = "millilitres"


def _far_away(ds: Dataset) -> None:
    place = next(i for i in content(ds) if i.ValueType == "SCOORD")
    place.GraphicData = [float(v) + 1000 for v in place.GraphicData]


def _less_evidence(ds: Dataset) -> None:
    for series in ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence:
        series.ReferencedSOPSequence = series.ReferencedSOPSequence[-1:]


def _evidence_elsewhere(ds: Dataset) -> None:
    ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"


def _diagnostic(ds: Dataset) -> None:
    for item in content(ds):
        if item.ValueType == "TEXT" and concept(item) == "121106":
            item.TextValue = "Fine."


def _private(ds: Dataset) -> None:
    ds.SegmentSequence[0].private_block(0x0029, "VENDOR", create=True).add_new(1, "LO", "x")


def _moved(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient = ["1", "2", "3"]


def _segment(n: int, keyword: str, value: str) -> Fault:
    return lambda ds: setattr(ds.SegmentSequence[n], keyword, value)


def _elsewhere(ds: Dataset) -> None:
    ds.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def _no_meaning(ds: Dataset) -> None:
    next(i for i in content(ds) if concept(i) == "118565006").ConceptNameCodeSequence[0].CodeMeaning = ""


def _retired(ds: Dataset) -> None:
    unit = _number(ds).MeasurementUnitsCodeSequence[0]
    unit.CodeValue, unit.CodingSchemeDesignator = "T-28000", "SRT"


def _template(ds: Dataset) -> None:
    ds.ContentTemplateSequence[0].TemplateIdentifier = "2000"


def _procedure(ds: Dataset) -> None:
    next(i for i in ds.ContentSequence if concept(i) == "121058").ConceptCodeSequence[0].CodeValue = "1"


def _pixels(value: int, bytes_: slice) -> Fault:
    def plant(ds: Dataset) -> None:
        pixels = bytearray(ds.PixelData)
        pixels[bytes_] = bytes([value]) * len(pixels[bytes_])
        ds.PixelData = bytes(pixels)

    return plant


FAULTS: list[tuple[str, int, Fault]] = [
    ("SR identity: PatientID differs", SR, _set("PatientID", "T-4712")),
    ("SEG identity: IssuerOfPatientID differs", SEG, _without("IssuerOfPatientID")),
    ("SC identity: StudyDescription differs", SC, _without("StudyDescription")),
    ("SR identity: TimezoneOffsetFromUTC differs", SR, _set("TimezoneOffsetFromUTC", "+0200")),
    ("SR identity: PatientName differs", SR, _set("PatientName", "Test?^Mara")),
    ("SEG valid UIDs: TrackingUID", SEG, _segment(0, "TrackingUID", "1.02.3")),
    ("SR new UIDs: SeriesInstanceUID is that", SR, _set("SeriesInstanceUID", build.SERIES_UID)),
    ("SR series: SeriesNumber 3 is below", SR, _set("SeriesNumber", 3)),
    ("SR series: SeriesDescription does not start", SR, _set("SeriesDescription", "Report RESEARCH")),
    ("SC series: SeriesDescription does not say RESEARCH", SC, _set("SeriesDescription", "AI overlay")),
    ("SEG series: InstanceNumber is missing", SEG, _without("InstanceNumber")),
    ("SEG equipment: ManufacturerModelName", SEG, _without("ManufacturerModelName")),
    ("SR qualification: ContentQualification is MAYBE", SR, _set("ContentQualification", "MAYBE")),
    ("SC contributing equipment", SC, lambda ds: ds.ContributingEquipmentSequence[0].pop("DeviceUID") and None),
    ("SR character set: SpecificCharacterSet is ISO_IR 100", SR, _set("SpecificCharacterSet", "ISO_IR 100")),
    ("SR times: ContentTime is missing", SR, _set("ContentTime", "")),
    ("SEG private elements: private element", SEG, _private),
    ("SC references: 1.2.3 is neither", SC, _elsewhere),
    ("SR codes: code ['118565006'] is incomplete", SR, _no_meaning),
    ("SR codes: code ['T-28000'] is of the retired", SR, _retired),
    ("SR coding schemes: 99AINODE is not declared", SR, _without("CodingSchemeIdentificationSequence")),
    ("SR root: content item 121049", SR, _drop("121049")),
    ("SR root: content item 121058", SR, _drop("121058")),
    ("SR root: content item 121012", SR, _drop("121012")),
    ("SR root: root is not TID 1500", SR, _template),
    ("SR root: procedure 1 is not in CID 100", SR, _procedure),
    ("SR flags: VerificationFlag is VERIFIED", SR, _set("VerificationFlag", "VERIFIED")),
    ("SR groups: a group of TID 1410 has no 112039", SR, _drop("112039", 0)),
    ("SR groups: a group of TID 1411 has no 111001", SR, _drop("111001", 3)),
    ("SR tracking with coordinates: tracking UID 2.25", SR, _drop_places),
    ("SR tracking of segments: segment 1 is tracked by no group", SEG, _segment(0, "TrackingUID", "2.25.1")),
    ("SR numbers: unit of 118565006 is millilitres", SR, _unit),
    ("SR evidence: 1.2.826", SR, _less_evidence),
    ("SR evidence: 1.2.826", SR, _evidence_elsewhere),
    ("SR coordinates: coordinates lie outside", SR, _far_away),
    ("SR research statement", SR, _diagnostic),
    ("SEG grid: FrameOfReferenceUID", SEG, _set("FrameOfReferenceUID", "1.2.3")),
    ("SEG planes: a frame does not lie", SEG, _moved),
    ("SEG segments: segment 2 names no automatic algorithm", SEG, _segment(1, "SegmentAlgorithmType", "MANUAL")),
    ("SEG masks: segment 1 is empty", SEG, _pixels(0, slice(None))),
    ("SEG masks: segment 2 is not the mask", SEG, _pixels(255, slice(-8, None))),
    ("SC image: BurnedInAnnotation is NO", SC, _set("BurnedInAnnotation", "NO")),
    ("SC image: the image is black", SC, _pixels(0, slice(None))),
    ("SC source: it does not lie on the plane", SC, _set("ImagePositionPatient", ["0", "0", "0"])),
]  # fmt: skip


@pytest.mark.parametrize(("problem", "which", "plant"), FAULTS, ids=[name for name, _, _ in FAULTS])
def test_a_planted_fault_is_found(problem: str, which: int, plant: Fault, case: build.Case, tmp_path: Path) -> None:
    files = case.written(tmp_path)
    with disable_value_validation():
        result = dcmread(files[which].path)
        plant(result)
        result.save_as(files[which].path)
    problems = check([file.path for file in files], case.headers, case.findings)
    assert any(found.startswith(problem) for found in problems), problems
    assert not any(secret in found for found in problems for secret in ("Testa", "4711", "4712", "1961", "Dora"))


def test_a_meta_of_another_object_is_found(case: build.Case, tmp_path: Path) -> None:
    files = case.written(tmp_path)
    report = dcmread(files[SR].path)
    report.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    with files[SR].path.open("wb") as stream:
        dcmwrite(stream, report, enforce_file_format=False)
    problems = check([file.path for file in files], case.headers)
    assert "SR file meta: MediaStorageSOPInstanceUID differs from the data set" in problems


def test_a_file_that_is_no_dicom_and_a_set_without_report_are_found(case: build.Case, tmp_path: Path) -> None:
    files = case.written(tmp_path)
    files[SR].path.write_text("not DICOM")
    problems = check([file.path for file in files], case.headers)
    assert problems[0].startswith("file readable: 0014.dcm")
    assert "set order: the last object is not an SR" in problems


def test_the_same_fault_of_many_objects_is_said_once(case: build.Case, tmp_path: Path) -> None:
    files = case.written(tmp_path)
    for file in files[1:-1]:
        capture = dcmread(file.path)
        capture.BurnedInAnnotation = "NO"
        capture.save_as(file.path)
    problems = check([file.path for file in files], case.headers)
    assert problems == [f"SC image: BurnedInAnnotation is NO, not YES ({1 + build.SLICES} times)"]


def test_a_missing_sequence_is_a_problem_not_a_crash(case: build.Case, tmp_path: Path) -> None:
    files = case.written(tmp_path)
    segmentation = dcmread(files[SEG].path)
    del segmentation.PerFrameFunctionalGroupsSequence
    segmentation.save_as(files[SEG].path)
    problems = check([file.path for file in files], case.headers)
    assert any(found.startswith("SEG planes: cannot be judged: AttributeError") for found in problems)


def test_masks_are_not_compared_without_findings(case: build.Case, tmp_path: Path) -> None:
    files = case.written(tmp_path)
    other = case.findings.regions[1].mask
    np.logical_not(other, out=other)
    try:
        assert check([file.path for file in files], case.headers) == []
        assert check([file.path for file in files], case.headers, case.findings) != []
    finally:
        np.logical_not(other, out=other)
