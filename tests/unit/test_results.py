"""Findings become result objects: places, identity, provenance, and the same bytes on a rerun."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.filereader import read_partial
from pydicom.uid import ImplicitVRLittleEndian

from dicom_sr.check import check
from dicom_sr.check_content import concept, content, groups, tracking_uid
from dicom_sr.compose import compose, write
from dicom_sr.outline import bounding_rectangle, slices_to_show
from node.domain.errors import InvalidInput
from node.domain.model import ModelVersion, Qualification
from tests import builders_results as build

KINDS = {"SEG": 0, "SC": 2, "SR": -1}


def _problems(case: build.Case, folder: Path) -> list[str]:
    files = case.written(folder)
    return check([file.path for file in files], case.headers, case.findings)


def test_what_others_refer_to_comes_first() -> None:
    modalities = [result.Modality for result in build.case().results()]
    assert modalities == ["SEG", *["OT"] * (1 + build.SLICES), "SR"]


def test_findings_are_shown_on_slices_of_their_own() -> None:
    case = build.case()
    ball = case.findings.regions[1].mask
    flat = np.zeros_like(ball)
    flat[5] = ball[5]
    assert slices_to_show([ball, ball, ball]) == [5, 4, 6]
    assert slices_to_show([flat, ball, flat]) == [5, 4, 5]


def test_the_rectangle_runs_along_the_outer_edges() -> None:
    mask = np.zeros((10, 20), bool)
    mask[2, 7] = mask[4, 11] = True
    assert bounding_rectangle(mask).tolist() == [[7, 2], [12, 2], [12, 5], [7, 5], [7, 2]]


def test_captures_lie_on_the_planes_of_their_sources() -> None:
    case = build.case("oblique")
    for header, capture in zip(case.headers, case.results()[2:-1], strict=True):
        assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert np.allclose(capture.ImagePositionPatient, np.array(header.ImagePositionPatient, float))
        assert np.allclose(capture.ImageOrientationPatient, np.array(header.ImageOrientationPatient, float))


def test_slices_that_were_given_a_frame_of_reference_each_make_one_segmentation(tmp_path: Path) -> None:
    case = build.case()
    for n, header in enumerate(case.headers[1:]):
        header.FrameOfReferenceUID = f"{build.FRAME_OF_REFERENCE_UID}.{n + 1}"
    assert _problems(case, tmp_path) == []
    captures = case.results()[2:-1]
    assert [c.FrameOfReferenceUID for c in captures] == [h.FrameOfReferenceUID for h in case.headers]


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Zoë"),
        ("ISO_IR 144", "Люкceмбypг^Анна"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "Ångström^Åsa=王^小东"),
        (None, "Plain^Name"),
    ],
)
def test_names_survive_in_unicode(charset: object, name: str, tmp_path: Path) -> None:
    case = build.case(SpecificCharacterSet=charset, PatientName=name)
    build.save_sources(case.headers, tmp_path / "source")
    read_back = [dcmread(path) for path in sorted((tmp_path / "source").iterdir())]
    case = replace(case, headers=read_back)
    assert _problems(case, tmp_path / "out") == []
    for path in (tmp_path / "out").iterdir():
        result = dcmread(path)
        assert result.SpecificCharacterSet == "ISO_IR 192"
        assert str(result.PatientName) == name


def test_missing_type_2_attributes_become_empty(tmp_path: Path) -> None:
    missing = ("AccessionNumber", "StudyID", "PatientBirthDate", "PatientSex", "PatientID", "StudyTime")
    case = build.case(**dict.fromkeys((*missing, "SliceThickness", "ReferringPhysicianName", "BodyPartExamined")))
    assert _problems(case, tmp_path) == []
    for result in case.results():
        assert all(keyword in result and not result[keyword].value for keyword in missing)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientSex", "U"), ("PatientSex", "m"), ("PatientBirthDate", "19610200"), ("StudyTime", "25:61")],
)
def test_odd_identity_stays_as_the_source_has_it_and_out_of_the_log(
    keyword: str, value: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with disable_value_validation():
        case = build.case(**{keyword: value})
    assert _problems(case, tmp_path) == []
    assert {str(result[keyword].value) for result in case.results()} == {value}
    assert value not in caplog.text


def test_missing_frame_of_reference_comes_from_the_volume(tmp_path: Path) -> None:
    case = build.case(FrameOfReferenceUID=None)
    assert _problems(case, tmp_path) == []
    assert case.results()[0].FrameOfReferenceUID == build.FRAME_OF_REFERENCE_UID


@pytest.mark.parametrize("kind", KINDS)
def test_issuer_description_and_time_zone_are_kept(kind: str) -> None:
    result = build.case().results()[KINDS[kind]]
    assert (result.IssuerOfPatientID, result.StudyDescription) == ("HOSPITAL", "CT Thorax")
    assert result.TimezoneOffsetFromUTC == "+0100"
    # 22:30:15 UTC is the next day's eve nowhere: in +01:00 it is 23:30:15 of the same day.
    assert (result.ContentDate, result.ContentTime) == ("20260304", "233015")


def test_times_follow_the_zone_of_the_source_over_midnight() -> None:
    report = build.case(TimezoneOffsetFromUTC="+0530").results()[-1]
    assert (report.ContentDate, report.ContentTime) == ("20260305", "040015")
    assert "TimezoneOffsetFromUTC" not in build.case(TimezoneOffsetFromUTC=None).results()[-1]


def test_private_elements_do_not_leak(tmp_path: Path) -> None:
    case = build.case()
    for header in case.headers:
        header.add_new(0x00091001, "LO", "SECRET-PRIVATE")
        header.private_block(0x0011, "VENDOR", create=True).add_new(1, "LO", "SECRET-PRIVATE")
        qualifiers = Dataset()
        qualifiers.UniversalEntityID = "1.2.3"
        qualifiers.UniversalEntityIDType = "ISO"
        qualifiers.private_block(0x0011, "VENDOR", create=True).add_new(2, "LO", "SECRET-PRIVATE")
        header.IssuerOfPatientIDQualifiersSequence = [qualifiers]
    assert _problems(case, tmp_path) == []
    for path in tmp_path.iterdir():
        assert b"SECRET-PRIVATE" not in path.read_bytes()
        assert dcmread(path).IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == "1.2.3"


def test_a_rerun_writes_the_same_bytes(tmp_path: Path) -> None:
    first = build.case().written(tmp_path / "first")
    second = build.case().written(tmp_path / "second")
    assert [f.digest for f in first] == [f.digest for f in second]
    assert [f.path.read_bytes() for f in first] == [f.path.read_bytes() for f in second]


def test_another_job_writes_other_uids() -> None:
    other = replace(build.PROVENANCE, job_id="another")
    first, second = build.case().results(), build.case().results(other)
    assert not {r.SOPInstanceUID for r in first} & {r.SOPInstanceUID for r in second}
    assert {r.SeriesInstanceUID for r in first}.isdisjoint({r.SeriesInstanceUID for r in second})


def test_the_digest_is_that_of_the_data_set_alone(tmp_path: Path) -> None:
    for file in build.case().written(tmp_path):
        with file.path.open("rb") as stream:
            read_partial(stream, stop_when=lambda tag, vr, length: True)
            stream.seek(0)
            meta = dcmread(stream, stop_before_pixels=True).file_meta
            stream.seek(144 + meta.FileMetaInformationGroupLength)
            assert hashlib.sha256(stream.read()).hexdigest() == file.digest
        assert file.size == file.path.stat().st_size


def test_the_device_uid_changes_with_the_digest_alone() -> None:
    def device(model: ModelVersion) -> str:
        return (
            build.case().results(replace(build.PROVENANCE, model=model))[-1].ContributingEquipmentSequence[0].DeviceUID
        )

    model = build.PROVENANCE.model
    assert device(model) == device(replace(model, title="Another title"))
    assert len({device(model), device(replace(model, digest="f" * 64)), device(replace(model, version="2"))}) == 3


def test_series_numbers_step_aside_for_the_source() -> None:
    results = build.case(SeriesNumber=902).results()
    assert [results[n].SeriesNumber for n in KINDS.values()] == [901, 903, 904]


def test_a_product_says_neither_research_nor_a_warning(tmp_path: Path) -> None:
    case = build.case()
    product = replace(build.PROVENANCE, qualification=Qualification.PRODUCT)
    files = case.written(tmp_path, product)
    assert check([f.path for f in files], case.headers, case.findings) == []
    report = dcmread(files[-1].path)
    assert report.SeriesDescription == "AI Report Ball"
    assert not [i for i in content(report) if i.ValueType == "TEXT" and "diagnostic" in i.TextValue]


def test_a_group_for_the_place_and_one_for_the_numbers_share_the_tracking_uid() -> None:
    segmentation, *_, report = build.case().results()
    found = [(g.ContentTemplateSequence[0].TemplateIdentifier, tracking_uid(g)) for g in groups(report)]
    assert [template for template, _ in found] == ["1410", "1501", "1410", "1411", "1410", "1411"]
    uids = [uid for _, uid in found]
    assert uids[0::2] == uids[1::2]
    assert [s.TrackingUID for s in segmentation.SegmentSequence] == uids[2::2]


def test_the_numbers_of_the_report_are_rounded_to_their_digits() -> None:
    case = build.case()
    numbers = [i for g in groups(case.results()[-1]) for i in g.ContentSequence if i.ValueType == "NUM"]
    assert {float(i.MeasuredValueSequence[0].NumericValue) for i in numbers if concept(i) == "SHARE"} == {12.35}
    assert len(numbers) == 6


def test_a_region_without_voxels_is_told_in_words(tmp_path: Path) -> None:
    case = build.case()
    ball = case.findings.regions[1]
    none = build.region("none", "Nothing", np.zeros_like(ball.mask))
    case = case.with_regions(ball, none)
    assert _problems(case, tmp_path) == []
    segmentation, *_, report = case.results()
    assert [s.SegmentLabel for s in segmentation.SegmentSequence] == ["Ball"]
    texts = [i.TextValue for i in content(report) if i.ValueType == "TEXT"]
    assert "Nothing: none found (Volume 0.0 ml; Share of the whole 12.35 %)." in texts


def test_what_cannot_be_encoded_is_refused_by_name() -> None:
    case = build.case()
    ball = case.findings.regions[1]
    not_a_number = replace(ball, measurements=(replace(ball.measurements[0], value=float("nan")),))
    with pytest.raises(InvalidInput, match=r"ball\.volume_ml: is nan"):
        case.with_regions(not_a_number).results()
    nothing = replace(case.findings, regions=(), evaluations=(), notes=())
    with pytest.raises(InvalidInput, match="say nothing"):
        replace(case, findings=nothing).results()


def test_a_study_without_regions_has_a_report_of_statements(tmp_path: Path) -> None:
    case = build.case().with_regions()
    assert _problems(case, tmp_path) == []
    assert not groups(case.results()[-1])
    said = [concept(item) for item in content(case.results()[-1])]
    assert "126010" not in said and "C0034375" in said


def test_headers_that_do_not_fit_the_volume_are_refused() -> None:
    case = build.case()
    with pytest.raises(InvalidInput, match="11 for 12 slices"):
        compose(build.PROVENANCE, case.findings, case.headers[1:])
    with pytest.raises(InvalidInput, match="do not follow"):
        compose(build.PROVENANCE, case.findings, case.headers[::-1])
    case.headers[4].ImagePositionPatient = case.headers[5].ImagePositionPatient
    with pytest.raises(InvalidInput, match="grid"):
        case.results()
    with pytest.raises(InvalidInput, match="ImagePositionPatient: is missing"):
        build.case(ImagePositionPatient=None).results()


def test_files_are_explicit_little_endian_with_our_meta(tmp_path: Path) -> None:
    case = build.case()
    results = case.results()
    results[0].file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for file in write(results, tmp_path):
        meta = dcmread(file.path, stop_before_pixels=True).file_meta
        assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1" == file.transfer_syntax_uid
        assert meta.ImplementationVersionName == "AINODE"
