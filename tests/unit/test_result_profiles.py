"""A profile says which objects a peer gets and how they are written; what is tracked is the same in all of them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from config.profiles import TRANSFER_SYNTAXES
from dicom_sr.check import check
from dicom_sr.check_content import concept, groups, tracking_uid
from dicom_sr.compose import compose, write
from dicom_sr.recode import recoded
from dicom_sr.segmentation import LABEL_MAP_STORAGE
from node.domain.ids import derived_uid
from node.domain.job import ResultReference
from node.domain.mask import LabelMap
from node.domain.model import Qualification
from node.domain.profile import FULL, Captures, Language, Profile, Report, Segments
from tests import builders_results as build

LEAN = Profile("lean", captures=Captures.NONE, summary=False)


@pytest.fixture(scope="module")
def case() -> build.Case:
    return build.with_everything(build.case())


def _results(case: build.Case, profile: Profile) -> list[Dataset]:
    return compose(build.PROVENANCE, case.findings, case.headers, profile)


def _sound(case: build.Case, profile: Profile, folder: Path) -> list[Dataset]:
    """The results as they are read back, of which the check has nothing to say."""
    paths = [file.path for file in write(_results(case, profile), folder)]
    assert check(paths, case.headers, case.findings, profile=profile) == []
    return [dcmread(path) for path in paths]


@pytest.mark.parametrize(
    ("profile", "modalities"),
    [
        (LEAN, ["SEG", "OT", "SR"]),
        (replace(LEAN, maps=False), ["SEG", "SR"]),
        (replace(LEAN, maps=False, segments=Segments.NONE), ["SR"]),
        (replace(LEAN, maps=False, report=Report.NONE), ["SEG"]),
        (Profile("sc-only", Report.NONE, Segments.NONE, summary=False, maps=False), ["OT"] * build.SLICES),
    ],
)
def test_only_what_the_profile_asks_for(
    profile: Profile, modalities: list[str], case: build.Case, tmp_path: Path
) -> None:
    assert [result.Modality for result in _sound(case, profile, tmp_path)] == modalities


def test_a_report_without_segments_has_the_numbers_all_the_same(case: build.Case) -> None:
    report = _results(case, replace(LEAN, segments=Segments.NONE, maps=False))[-1]
    templates = {group.ContentTemplateSequence[0].TemplateIdentifier for group in groups(report)}
    assert templates == {"1410", "1411", "1501"}
    numbers = [i for g in groups(report) for i in g.ContentSequence if i.ValueType == "NUM"]
    assert len([n for n in numbers if concept(n) == "118565006"]) == 3


def test_another_profile_writes_other_uids_but_tracks_the_same(case: build.Case) -> None:
    full, lean = _results(case, replace(LEAN, name=FULL.name)), _results(case, LEAN)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert not {r[keyword].value for r in full} & {r[keyword].value for r in lean}
    assert full[-1].SOPInstanceUID == derived_uid(build.PROVENANCE.job_id, "SR", "1")
    assert [tracking_uid(g) for g in groups(full[-1])] == [tracking_uid(g) for g in groups(lean[-1])]
    assert [s.TrackingUID for s in full[0].SegmentSequence] == [s.TrackingUID for s in lean[0].SegmentSequence]


def test_series_numbers_begin_where_the_profile_says_and_step_aside(tmp_path: Path) -> None:
    case = build.with_everything(build.case(SeriesNumber=4002))
    results = _sound(case, replace(LEAN, series_number=4001), tmp_path)
    assert [int(r.SeriesNumber) for r in results] == [4001, 4009, 4004]


def test_descriptions_of_the_profile(case: build.Case, tmp_path: Path) -> None:
    descriptions = {"report": "AI {what} Befund", "segments": "Segmente " + "x" * 80, "map": "Karte"}
    results = _sound(case, replace(LEAN, descriptions=descriptions), tmp_path)
    said = [r.SeriesDescription for r in results]
    assert said[-1] == "AI Ball Befund RESEARCH"
    assert said[1] == "AI Karte Where the network looked RESEARCH"
    assert said[0].startswith("AI Segmente xxx") and said[0].endswith(" RESEARCH") and len(said[0]) == 64


def test_the_qualification_of_the_profile_goes_before_that_of_the_node(case: build.Case, tmp_path: Path) -> None:
    results = _sound(case, replace(LEAN, qualification=Qualification.PRODUCT), tmp_path)
    assert {r.ContentQualification for r in results} == {"PRODUCT"}
    assert not any("RESEARCH" in r.SeriesDescription for r in results)


@pytest.mark.parametrize(
    ("character_set", "name", "written"),
    [
        ("ISO_IR 100", "Müller^Zoë", "ISO_IR 100"),
        ("ISO_IR 144", "Люкceмбypг^Анна", "ISO_IR 144"),
        ("ISO_IR 100", "Люкceмбypг^Анна", "ISO_IR 192"),
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"]),
        ("ISO_IR 6", "Plain^Name", "ISO_IR 6"),
    ],
)
def test_a_name_is_written_in_the_character_set_of_the_profile_where_it_fits(
    character_set: str, name: str, written: object, tmp_path: Path
) -> None:
    case = build.case(PatientName=name)
    for result in _sound(case, replace(LEAN, maps=False, character_set=character_set), tmp_path):
        assert result.SpecificCharacterSet == written
        assert str(result.PatientName) == name


def test_a_source_without_a_time_zone_gets_that_of_the_profile(tmp_path: Path) -> None:
    bare, profile = build.case(TimezoneOffsetFromUTC=None), replace(LEAN, timezone="-0330")
    report = _sound(bare, profile, tmp_path)[-1]
    assert (report.TimezoneOffsetFromUTC, report.ContentTime) == ("-0330", "190015")
    assert _results(build.case(), profile)[-1].TimezoneOffsetFromUTC == "+0100"


def test_the_report_names_its_language(case: build.Case, tmp_path: Path) -> None:
    report = _sound(case, replace(LEAN, language=Language.GERMAN), tmp_path)[-1]
    language = next(item for item in report.ContentSequence if concept(item) == "121049").ConceptCodeSequence[0]
    assert (language.CodeValue, language.CodingSchemeDesignator) == ("de", "RFC5646")


def test_the_earlier_report_is_the_predecessor(case: build.Case, tmp_path: Path) -> None:
    earlier = _results(case, LEAN)
    references = [
        ResultReference(r.StudyInstanceUID, r.SeriesInstanceUID, str(r.SOPClassUID), r.SOPInstanceUID) for r in earlier
    ]
    again = replace(build.PROVENANCE, job_id="another")
    results = compose(again, case.findings, case.headers, LEAN, supersedes=references)
    paths = [file.path for file in write(results, tmp_path)]
    assert check(paths, case.headers, case.findings, profile=LEAN, supersedes=references) == []
    (study,) = results[-1].PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert instance.ReferencedSOPInstanceUID == earlier[-1].SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in earlier[-1]


def test_a_corrected_identity_is_carried_by_every_result(case: build.Case, tmp_path: Path) -> None:
    other = deepcopy(case.headers[0])
    other.PatientName, other.PatientID, other.AccessionNumber = "Testa^Maria", "T-9", ""
    results = compose(build.PROVENANCE, case.findings, case.headers, LEAN, identified=other)
    paths = [file.path for file in write(results, tmp_path)]
    assert check(paths, case.headers, case.findings, profile=LEAN, identified=other) == []
    assert {(str(r.PatientName), r.PatientID, r.AccessionNumber) for r in results} == {("Testa^Maria", "T-9", "")}


def test_a_label_map_holds_the_same_masks(tmp_path: Path) -> None:
    case = build.case()
    ball = np.asarray(case.findings.regions[1].mask)
    left = ball & (np.arange(build.COLUMNS) < 20)
    two = case.with_regions(build.region("left", "Left", left), build.region("right", "Right", ball & ~left))
    (segmentation, _) = _sound(two, replace(LEAN, segments=Segments.LABELMAP), tmp_path)
    assert (segmentation.SOPClassUID, segmentation.SegmentationType) == (LABEL_MAP_STORAGE, "LABELMAP")
    read = highdicom.seg.segread(tmp_path / "0000.dcm").get_volume(combine_segments=True)
    assert sorted(np.bincount(read.array.reshape(-1))[1:]) == sorted([left.sum(), (ball & ~left).sum()])


@pytest.mark.parametrize("word", ["rle", "jpeg-ls", "jpeg-2000", "deflated"])
@pytest.mark.parametrize("count", [3, 300])
def test_a_compressed_label_map_holds_the_same_masks(word: str, count: int, tmp_path: Path) -> None:
    """Labels of one byte, and of two; what is read back equals every mask, and the check reads it too."""
    case = build.case()
    labels = np.zeros(case.findings.volume.shape, np.uint16)
    labels[2:9] = (
        np.arange(1, 7 * build.ROWS * build.COLUMNS + 1).reshape(7, build.ROWS, build.COLUMNS) // 40 % (count + 1)
    )
    found = LabelMap(labels)
    many = case.with_regions(*(build.region(f"r{n}", f"Region {n}", found.mask(n)) for n in range(1, count + 1)))
    syntax = str(TRANSFER_SYNTAXES[word])
    profile = replace(LEAN, report=Report.NONE, segments=Segments.LABELMAP, maps=False, transfer_syntax=syntax)
    (plain,) = write(_results(many, profile), tmp_path)
    packed = recoded(plain, syntax)
    assert packed.transfer_syntax_uid == syntax and packed.size < plain.size
    assert check([packed.path], many.headers, many.findings, profile=profile) == []
    read = dcmread(packed.path)
    assert read.SegmentationType == "LABELMAP" and read.BitsAllocated == (8 if count < 256 else 16)
    assert np.array_equal(read.pixel_array, labels[2:9])


def test_overlapping_regions_stay_binary(case: build.Case, tmp_path: Path) -> None:
    segmentation = _sound(case, replace(LEAN, segments=Segments.LABELMAP), tmp_path)[0]
    assert (segmentation.SegmentationType, segmentation.SegmentsOverlap) == ("BINARY", "YES")


def test_a_label_of_a_label_map_is_a_mask_like_any_other(tmp_path: Path) -> None:
    case = build.case()
    _, ball, half = case.findings.regions
    labels = np.asarray(ball.mask).astype(np.uint8) + np.asarray(half.mask)
    found = LabelMap(labels)
    arrays = case.with_regions(
        replace(ball, mask=np.asarray(found.mask(1))), replace(half, mask=np.asarray(found.mask(2)))
    )
    light = case.with_regions(replace(ball, mask=found.mask(1)), replace(half, mask=found.mask(2)))
    assert not found.mask(3).any() and found.mask(1).shape == case.findings.volume.shape
    first, second = (write(each.results(), tmp_path) for each in (arrays, light))
    assert [file.digest for file in first] == [file.digest for file in second]
    assert check([file.path for file in second], case.headers, light.findings) == []


def test_rows_that_end_within_a_byte(tmp_path: Path) -> None:
    """Frames of 13 by 11 pixels follow each other without a gap."""
    case = build.flat(3)
    volume = case.findings.volume
    for header in case.headers:
        header.Rows, header.Columns = 13, 11
    mask = np.random.default_rng(2).random((3, 13, 11)) > 0.5
    small = replace(volume, voxels=np.ascontiguousarray(volume.voxels[:, :13, :11]))
    odd = replace(case, findings=replace(case.findings, volume=small)).with_regions(build.region("odd", "Odd", mask))
    segmentation = _sound(odd, LEAN, tmp_path)[0]
    assert np.array_equal(segmentation.pixel_array.astype(bool), mask)
