"""Every rule of the check finds the fault that it is there for, and nothing is said of faultless results."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_sr.check import check
from dicom_sr.check_content import concept, content, groups
from dicom_sr.collector import held_off
from dicom_sr.compose import compose
from node.domain.errors import InvalidInput
from node.domain.job import ResultReference
from node.domain.model import Qualification
from node.domain.profile import Captures, Profile, Segments
from tests import builders_results as build

SEG, SC, PM, SR = range(4)
Fault = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def case() -> build.Case:
    return build.with_everything(build.case())


@pytest.fixture(scope="module")
def sound(case: build.Case, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The results as they are written; nobody changes these files."""
    paths = [file.path for file in case.written(tmp_path_factory.mktemp("sound"))]
    return [paths[n] for n in (0, 2, -2, -1)]  # the capture after the summary


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


def _scoord(ds: Dataset, kind: str = "POLYLINE") -> Dataset:
    return next(i for i in content(ds) if i.ValueType == "SCOORD" and i.GraphicType == kind)


def _a_bit_aside(ds: Dataset) -> None:
    place = _scoord(ds)
    place.GraphicData = [float(v) + 1 for v in place.GraphicData]


def _two_points(ds: Dataset) -> None:
    place = _scoord(ds, "POINT")
    place.GraphicData = [*place.GraphicData, *place.GraphicData]


def _on_another_slice(ds: Dataset) -> None:
    references = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    _scoord(ds).ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = references[
        0
    ].ReferencedSOPInstanceUID


def _places_of_the_mark(ds: Dataset) -> None:
    for group in groups(ds):
        for item in group.ContentSequence:
            if concept(item) == "112039" and item.TextValue == "Spot":
                item.TextValue = "Spots"


def _twice_in_evidence(ds: Dataset) -> None:
    listed = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    listed.append(listed[0])


def _more_evidence(ds: Dataset) -> None:
    more = Dataset()
    more.ReferencedSOPClassUID, more.ReferencedSOPInstanceUID = build.CTImageStorage, "1.2.3"
    ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence.append(more)


def _predecessor(ds: Dataset) -> None:
    ds.PredecessorDocumentsSequence = ds.CurrentRequestedProcedureEvidenceSequence


def _language(ds: Dataset) -> None:
    next(i for i in ds.ContentSequence if concept(i) == "121049").ConceptCodeSequence[0].CodeValue = "de"


def _not_a_number(ds: Dataset) -> None:
    ds[0x0040A730][-1].ContentSequence[0].add_new("ValueType", "CS", "NUM")


def _no_frame(ds: Dataset) -> None:
    source = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedFrameNumber = 7


def _no_segment(ds: Dataset) -> None:
    references = [item for i in content(ds) for item in i.get("ReferencedSOPSequence", [])]
    next(item for item in references if "ReferencedSegmentNumber" in item).ReferencedSegmentNumber = 9


def _wrong_series(ds: Dataset) -> None:
    ds.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"


def _frames_swapped(ds: Dataset) -> None:
    groups_ = ds.PerFrameFunctionalGroupsSequence
    groups_[0], groups_[1] = groups_[1], groups_[0]


def _float(n: int, value: float) -> Fault:
    def plant(ds: Dataset) -> None:
        values = np.frombuffer(ds.FloatPixelData, np.float32).copy()
        values[n] = value
        ds.FloatPixelData = values.tobytes()

    return plant


def _mapping(ds: Dataset) -> Dataset:
    return ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]


def _another_name(ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = "Téstà^Mara"


def _undecodable(ds: Dataset) -> None:
    ds.add_new("StudyDescription", "LO", b"CT Thor\xffx")


def _another_procedure(ds: Dataset) -> None:
    _another = groups(ds)[0]
    _another.ContentSequence[1].UID = groups(ds)[2].ContentSequence[1].UID


def _no_banner(ds: Dataset) -> None:
    pixels = np.frombuffer(ds.PixelData, np.uint8).copy()
    pixels.reshape(ds.Rows, ds.Columns, 3)[...] = 90
    ds.PixelData = pixels.tobytes()


def _other_image(ds: Dataset) -> None:
    ds.PlanarConfiguration = 1


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
    ("SC source: orientation", SC, _set("ImageOrientationPatient", ["0", "1", "0", "1", "0", "0"])),
    ("SC image: PlanarConfiguration is 1", SC, _other_image),
    ("SC image: the image has no banner", SC, _no_banner),
    ("SC image: PixelData has another length", SC, lambda ds: setattr(ds, "Rows", ds.Rows + 1)),
    ("SR identity: StudyInstanceUID differs", SR, _set("StudyInstanceUID", "1.2.3")),
    ("PM identity: TimezoneOffsetFromUTC differs", PM, _without("TimezoneOffsetFromUTC")),
    ("PM identity: AccessionNumber differs", PM, _without("AccessionNumber")),
    ("SR identity: StudyDescription differs", SR, _undecodable),
    ("SR character set: SpecificCharacterSet is missing", SR, _without("SpecificCharacterSet")),
    ("SR character set: SpecificCharacterSet is ISO_IR 100", SR, _another_name),
    ("PM series: SeriesNumber 903 is that of another series", PM, _set("SeriesNumber", 903)),
    ("SR series: SeriesDescription does not start", SR, _set("SeriesDescription", "AI " + 70 * "x")),
    ("SR coordinates: a POINT has 2 points", SR, _two_points),
    ("SR places: all lies elsewhere", SR, _a_bit_aside),
    ("SR places: all lies elsewhere", SR, _on_another_slice),
    ("SR places: spot has no coordinates", SR, _places_of_the_mark),
    ("SR evidence: 1.2.826.0.1.3680043.10.1443.4.1 is listed twice", SR, _twice_in_evidence),
    ("SR references: 1.2.3 is neither", SR, _more_evidence),
    ("SR predecessors: 1.2.826", SR, _predecessor),
    ("SR root: the language is de, not en", SR, _language),
    ("SR numbers: ROUND has no value", SR, _not_a_number),
    ("SR groups: tracking UID", SR, _another_procedure),
    ("SR references: 2.25", SR, _no_segment),
    ("SEG references: 1.2.826", SEG, _no_frame),
    ("SEG series of references: 1.2.826", SEG, _wrong_series),
    (
        "SEG segments: segment 1 has no colour",
        SEG,
        lambda ds: ds.SegmentSequence[0].pop("RecommendedDisplayCIELabValue"),
    ),
    ("SEG segments: segment 1 is not tracked", SEG, lambda ds: ds.SegmentSequence[0].pop("TrackingID")),
    ("SEG segments: segments are numbered [3, 2]", SEG, lambda ds: setattr(ds.SegmentSequence[0], "SegmentNumber", 3)),
    ("SEG masks: segment 1 is not the mask", SEG, _frames_swapped),
    ("SEG masks: segment 2 is no region", SEG, _segment(1, "SegmentLabel", "Another")),
    ("SEG grid: grid is 40×48", SEG, lambda ds: ds.update({"Rows": ds["Columns"].value, "Columns": ds["Rows"].value})),
    ("SEG grid: NumberOfFrames", SEG, _set("NumberOfFrames", 3)),
    ("PM grid: FrameOfReferenceUID", PM, _set("FrameOfReferenceUID", "1.2.3")),
    ("PM planes: a frame does not lie", PM, _moved),
    ("PM values: a value is not finite", PM, _float(7, float("nan"))),
    ("PM values: the values are not those of its map", PM, _float(7, 3.5)),
    ("PM values: FloatPixelData has another length", PM, lambda ds: setattr(ds, "Rows", ds.Rows + 1)),
    ("PM values: the frames are not the slices", PM, _frames_swapped),
    ("PM values: the quantity is not said", PM, lambda ds: _mapping(ds).pop("QuantityDefinitionSequence")),
    (
        "PM values: the unit is of LOCAL",
        PM,
        lambda ds: setattr(_mapping(ds).MeasurementUnitsCodeSequence[0], "CodingSchemeDesignator", "LOCAL"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("problem", "which", "plant"), FAULTS, ids=[name for name, _, _ in FAULTS])
def test_a_planted_fault_is_found(
    problem: str, which: int, plant: Fault, case: build.Case, sound: list[Path], tmp_path: Path
) -> None:
    paths = list(sound)
    with disable_value_validation():
        result = dcmread(paths[which])
        plant(result)
        paths[which] = tmp_path / "faulty.dcm"
        result.save_as(paths[which])
    problems = check(paths, case.headers, case.findings)
    assert any(found.startswith(problem) for found in problems), problems
    assert not any(
        secret in found for found in problems for secret in ("Testa", "4711", "4712", "1961", "Dora", "Thor")
    )


def test_sound_results_have_no_problem(case: build.Case, sound: list[Path]) -> None:
    assert check(sound, case.headers, case.findings) == []


def test_a_meta_of_another_object_is_found(case: build.Case, sound: list[Path], tmp_path: Path) -> None:
    report = dcmread(sound[SR])
    report.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    with (tmp_path / "faulty.dcm").open("wb") as stream:
        dcmwrite(stream, report, enforce_file_format=False)
    problems = check([*sound[:-1], tmp_path / "faulty.dcm"], case.headers)
    assert "SR file meta: MediaStorageSOPInstanceUID differs from the data set" in problems


def test_a_file_that_is_no_dicom_and_a_set_without_report_are_found(
    case: build.Case, sound: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.dcm").write_text("not DICOM")
    problems = check([*sound[:-1], tmp_path / "broken.dcm"], case.headers)
    assert problems[0].startswith("file readable: broken.dcm")
    assert "set order: the last object is not an SR" in problems
    assert "set contents: 0 reports, the profile has comprehensive-3d" in problems


def test_what_the_profile_asks_for_is_there_and_nothing_else(case: build.Case, sound: list[Path]) -> None:
    lean = Profile(segments=Segments.NONE, captures=Captures.NONE, summary=False, maps=False)
    problems = check(sound, case.headers, case.findings, profile=lean)
    assert {p for p in problems if p.startswith("set")} == {
        f"set contents: a {kind}, which the profile has not" for kind in ("SEG", "SC", "PM")
    }
    missing = check([sound[SC], sound[SR]], case.headers, case.findings)
    assert "set contents: 0 SEG for 2 regions with voxels" in missing
    assert "set contents: 0 PM for 1 maps" in missing


def test_two_results_of_one_uid_are_found(case: build.Case, sound: list[Path]) -> None:
    problems = check([sound[SC], *sound], case.headers)
    assert "SC new UIDs: SOPInstanceUID is used twice (2 times)" in problems


def test_a_report_that_replaces_another_names_it(case: build.Case, sound: list[Path]) -> None:
    segmentation, report = dcmread(sound[SEG]), dcmread(sound[SR])
    earlier = ResultReference(build.STUDY_UID, "1.2.3", str(report.SOPClassUID), "1.2.3.4")
    problems = check(sound, case.headers, supersedes=[earlier])
    assert problems == ["SR predecessors: 1.2.3.4 is replaced but no predecessor"]
    same = replace(earlier, sop_class_uid=str(segmentation.SOPClassUID), sop_instance_uid=segmentation.SOPInstanceUID)
    problems = check(sound, case.headers, supersedes=[same])
    assert problems == ["SEG new UIDs: SOPInstanceUID is that of a result that it replaces"]


def test_results_of_another_identity_are_found(case: build.Case, sound: list[Path]) -> None:
    other = deepcopy(case.headers[0])
    other.PatientID = "T-4712"
    problems = check(sound, case.headers, identified=other)
    assert "SC identity: PatientID differs from the source" in problems
    assert len(problems) == 4


def test_a_qualification_that_is_not_the_one_of_the_profile_is_found(case: build.Case, sound: list[Path]) -> None:
    problems = check(sound, case.headers, profile=Profile(qualification=Qualification.PRODUCT))
    assert "SR qualification: ContentQualification is RESEARCH" in problems


def test_the_same_fault_of_many_objects_is_said_once(case: build.Case, sound: list[Path], tmp_path: Path) -> None:
    paths = []
    for n in range(3):
        capture = dcmread(sound[SC])
        capture.BurnedInAnnotation = "NO"
        capture.SOPInstanceUID = capture.file_meta.MediaStorageSOPInstanceUID = f"1.2.{n}"
        paths.append(tmp_path / f"{n}.dcm")
        capture.save_as(paths[-1])
    problems = check([sound[SEG], *paths, sound[SR]], case.headers)
    assert problems == ["SC image: BurnedInAnnotation is NO, not YES (3 times)"]


def test_a_missing_sequence_is_a_problem_not_a_crash(case: build.Case, sound: list[Path], tmp_path: Path) -> None:
    segmentation = dcmread(sound[SEG])
    del segmentation.PerFrameFunctionalGroupsSequence
    segmentation.save_as(tmp_path / "faulty.dcm")
    problems = check([tmp_path / "faulty.dcm", *sound[1:]], case.headers)
    assert any(found.startswith("SEG planes: cannot be judged: AttributeError") for found in problems)


def test_masks_are_not_compared_without_findings(case: build.Case, sound: list[Path]) -> None:
    other = np.asarray(case.findings.regions[1].mask)
    np.logical_not(other, out=other)
    try:
        assert check(sound, case.headers) == []
        assert check(sound, case.headers, case.findings) != []
    finally:
        np.logical_not(other, out=other)


def _in_file(path: Path, found: bytes, wanted: bytes) -> None:
    """Other bytes on the disk, as many."""
    written = path.read_bytes()
    assert written.count(found) == 1 and len(found) == len(wanted)
    path.write_bytes(written.replace(found, wanted))


def test_what_objects_have_alike_is_looked_at_in_each_file(case: build.Case, tmp_path: Path) -> None:
    files = case.written(tmp_path / "out")
    paths = [file.path for file in files]
    captures = [file.path for file in files if file.sop_class_uid == files[2].sop_class_uid]
    assert len(captures) > 9 and check(paths, case.headers, case.findings) == []
    _in_file(captures[4], b"Newcode1", b"Newcode2")
    unnamed = (
        "SC contributing equipment: no item names the processing algorithm with its version and DeviceUID (IHE AIR)"
    )
    assert check(paths, case.headers, case.findings) == [unnamed]
    for path in (captures[7], captures[9]):
        _in_file(path, b"Processing Algorithm", b" " * 20)
    incomplete = "SC codes: code ['Newcode1'] is incomplete (2 times)"
    assert check(paths, case.headers, case.findings) == [unnamed, incomplete]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_fault_is_found_at_every_depth(syntax: UID, case: build.Case, sound: list[Path], tmp_path: Path) -> None:
    segmentation = dcmread(sound[SEG])
    segmentation.file_meta.TransferSyntaxUID = syntax
    place = segmentation.PerFrameFunctionalGroupsSequence[-1].DerivationImageSequence[0].SourceImageSequence[0]
    place.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator = "SRT"
    segmentation.save_as(tmp_path / "deep.dcm")
    profile = Profile(transfer_syntax=str(syntax))
    problems = check([tmp_path / "deep.dcm", *sound[1:]], case.headers, case.findings, profile=profile)
    assert problems == ["SEG codes: code ['121322'] is of the retired scheme SRT"]


@pytest.mark.parametrize("running", [True, False])
def test_the_collector_is_afterwards_as_it_was(running: bool, case: build.Case, sound: list[Path]) -> None:
    before = gc.isenabled()
    (gc.enable if running else gc.disable)()
    try:
        assert check(sound, case.headers, case.findings) == []
        with pytest.raises(InvalidInput):
            compose(build.PROVENANCE, case.findings, case.headers[1:])
        assert gc.isenabled() == running
    finally:
        (gc.enable if before else gc.disable)()


def test_the_collector_rests_while_a_set_is_made() -> None:
    with held_off():
        assert not gc.isenabled()
    assert gc.isenabled()
