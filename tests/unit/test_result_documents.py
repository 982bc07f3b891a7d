"""What a profile may ask for beside SR, SEG and captures: key objects, presentation states, PDF, older SR, notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
)
from pypdf import PdfReader

from dicom_sr import content, encapsulated, key_images, notice, older, presentation
from dicom_sr.compose import compose
from dicom_sr.header import identity, local, normalised
from dicom_sr.key_images import Rejected
from dicom_sr.keys import key_slices
from dicom_sr.notice import NotRun
from node.domain.errors import InvalidInput
from node.domain.finding import Code, Evaluation
from node.domain.job import ResultReference
from node.domain.profile import FULL, Captures, Language, NoticeKind, Profile, Report
from tests import builders_pictures as pictures
from tests import builders_results as build
from tests.builders_pictures import Scan

AT = local(build.PROVENANCE.started_at, Dataset())


def _sources(scan: Scan) -> list[Dataset]:
    return [normalised(header, scan.findings.volume) for header in scan.headers]


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from _items(item)


# Key objects


@pytest.mark.parametrize("multiframe", [False, True], ids=["single-frame", "multi-frame"])
def test_key_images_are_those_of_the_findings(multiframe: bool) -> None:
    scan = pictures.scan(multiframe=multiframe)
    selection = key_images.build(build.PROVENANCE, scan.findings, _sources(scan), profile=FULL, series_number=906)
    images = [item for item in _items(selection) if item.ValueType == "IMAGE"]
    sources = [scan.findings.volume.sources[k] for k in key_slices(scan.findings)]
    assert [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in images] == [
        s.sop_instance_uid for s in sources
    ]
    assert [i.ReferencedSOPSequence[0].get("ReferencedFrameNumber") for i in images] == [
        s.frame_number for s in sources
    ]
    assert not any("ConceptNameCodeSequence" in image for image in images)
    (study,) = selection.CurrentRequestedProcedureEvidenceSequence
    evidence = {s.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence[0].ReferencedSOPSequence}
    assert evidence == {s.sop_instance_uid for s in sources}


def test_a_rejection_names_everything_that_is_withdrawn() -> None:
    results = pictures.scan().captures(Profile(captures=Captures.KEY))
    results.append(build.case().results()[-1])
    references = [content.as_reference(result) for result in results]
    note = key_images.reject(
        build.PROVENANCE, references, results[0], Rejected.OTHER_IDENTITY, profile=FULL, series_number=909
    )
    assert note.ConceptNameCodeSequence[0].CodeValue == "113038"
    named = [item for item in _items(note) if "ReferencedSOPSequence" in item]
    assert [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in named] == [
        r.sop_instance_uid for r in references
    ]
    assert [i.ValueType for i in named] == ["IMAGE"] * (len(results) - 1) + ["COMPOSITE"]
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    assert {len(series.ReferencedSOPSequence) for series in study.ReferencedSeriesSequence} == {len(results) - 1, 1}
    assert (note.PatientID, note.IssuerOfPatientID) == ("T-4711", "HOSPITAL")
    superseded = key_images.reject(
        build.PROVENANCE, references, results[0], Rejected.SUPERSEDED, profile=FULL, series_number=909
    )
    assert superseded.ConceptNameCodeSequence[0].CodeValue == "113001"


def test_nothing_of_another_study_is_rejected() -> None:
    header = build.case().headers[0]
    stranger = ResultReference("1.2.3", "1.2.4", SecondaryCaptureImageStorage, "1.2.5")
    for references in ([stranger], [content.as_reference(header), stranger], []):
        with pytest.raises(InvalidInput, match="supersedes"):
            key_images.reject(
                build.PROVENANCE, references, header, Rejected.SUPERSEDED, profile=FULL, series_number=909
            )


# Presentation states


def _states(scan: Scan, profile: Profile = FULL) -> list[Dataset]:
    return presentation.build(build.PROVENANCE, scan.findings, scan.headers, profile=profile, series_number=905, at=AT)


@pytest.mark.parametrize("multiframe", [False, True], ids=["single-frame", "multi-frame"])
def test_a_presentation_state_draws_within_a_pixel_of_what_was_found(multiframe: bool) -> None:
    scan = pictures.scan(multiframe=multiframe)
    (state,) = _states(scan)
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    slices = {(s.sop_instance_uid, s.frame_number): k for k, s in enumerate(scan.findings.volume.sources)}
    for annotation in state.GraphicAnnotationSequence:
        for graphic in annotation.get("GraphicObjectSequence", []):
            image = annotation.ReferencedImageSequence[0]
            k = slices[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")]
            points = np.array(graphic.GraphicData).reshape(-1, 2)
            assert len(points) == graphic.NumberOfGraphicPoints
            found.setdefault(annotation.GraphicLayer, []).append((k, points))
    ball = next(points for k, points in found["R1"] if k == 4)
    distance = np.linalg.norm(ball - 0.5 - (pictures.BALL[2], pictures.BALL[1]), axis=1)
    assert np.array_equal(ball[0], ball[-1]), "the outline is not closed"
    assert abs(distance - pictures.RADIUS_MM).max() < 1
    drawn = Image.new("1", (pictures.COLUMNS * 4, pictures.ROWS * 4))
    ImageDraw.Draw(drawn).polygon([(x * 4 - 0.5, y * 4 - 0.5) for x, y in ball], fill=1)
    assert np.array_equal(np.asarray(drawn)[2::4, 2::4], scan.findings.regions[0].mask[4])
    (low_k, low_row, low_column), (high_k, high_row, high_column) = pictures.BOX
    assert [k for k, _ in found["M1"]] == list(range(low_k, high_k + 1))
    box = found["M1"][0][1]
    assert box.min(axis=0).tolist() == [low_column, low_row]
    assert box.max(axis=0).tolist() == [high_column + 1, high_row + 1]
    ((k, point),) = found["M2"]
    assert (k, *point[0]) == (pictures.POINT[0], pictures.POINT[2] + 0.5, pictures.POINT[1] + 0.5)


def _filled(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """How many outlines there are, and what lies within an odd number of them."""
    scan = pictures.scan()
    inside = np.zeros(mask.shape, bool)
    rows, columns = np.indices(mask.shape) + 0.5
    lines = list(presentation.outlines(replace(scan.findings.regions[0], mask=mask[None]), 0))
    for line in lines:
        assert np.array_equal(line[0], line[-1]), "not closed"
        for (x, y), (x_end, y_end) in pairwise(line):
            assert (x == x_end) != (y == y_end), "not along the edges of pixels"
            if x == x_end:
                inside ^= (columns > x) & (rows > min(y, y_end)) & (rows < max(y, y_end))
    return len(lines), inside


@pytest.mark.parametrize("seed", range(4))
def test_outlines_run_along_the_edges_of_any_mask(seed: int) -> None:
    mask = np.random.default_rng(seed).random((12, 15)) < 0.5
    assert np.array_equal(_filled(mask)[1], mask)


def test_a_hole_is_outlined_too() -> None:
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:5] = False
    count, inside = _filled(ring)
    assert count == 2
    assert np.array_equal(inside, ring)


def test_slices_with_another_rescale_have_a_state_of_their_own() -> None:
    scan = pictures.scan()
    for k, header in enumerate(scan.headers):
        header.RescaleIntercept, header.RescaleSlope = "-1024", "1" if k < 5 else "2"
    first, second = _states(scan)
    assert (first.RescaleSlope, second.RescaleSlope) == (1, 2)
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    known = {i.ReferencedSOPInstanceUID for i in second.ReferencedSeriesSequence[0].ReferencedImageSequence}
    annotated = {
        a.ReferencedImageSequence[0].ReferencedSOPInstanceUID
        for a in second.GraphicAnnotationSequence
        if "ReferencedImageSequence" in a
    }
    assert known == annotated == {header.SOPInstanceUID for header in scan.headers[5:]}


def test_a_state_of_key_slices_and_none_of_colour_or_of_nothing() -> None:
    scan = pictures.scan()
    (state,) = _states(scan, Profile(captures=Captures.KEY))
    assert len(state.ReferencedSeriesSequence[0].ReferencedImageSequence) == len(key_slices(scan.findings))
    assert _states(scan.with_findings(regions=(), marks=())) == []
    for header in scan.headers:
        header.SamplesPerPixel = 3
    assert _states(scan) == []


def test_the_banner_is_on_every_image_of_a_state() -> None:
    (state,) = _states(pictures.scan(), replace(FULL, language=Language.GERMAN))
    (banner,) = (a for a in state.GraphicAnnotationSequence if a.GraphicLayer == "BANNER")
    assert "ReferencedImageSequence" not in banner
    assert "nicht für diagnostische Zwecke" in banner.TextObjectSequence[0].UnformattedTextValue


# PDF


def test_the_pdf_is_whole_and_the_same_in_every_run() -> None:
    scan = pictures.scan()
    who = identity(scan.headers[0])

    def written() -> Dataset:
        return encapsulated.build(
            build.PROVENANCE, scan.findings, _sources(scan), who, profile=FULL, series_number=907, at=AT
        )

    document = written()
    assert document.SOPClassUID == EncapsulatedPDFStorage
    assert document.MIMETypeOfEncapsulatedDocument == "application/pdf"
    pdf = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert len(document.EncapsulatedDocument) % 2 == 0
    assert written().EncapsulatedDocument == document.EncapsulatedDocument


def _pdf(scan: Scan, **profile: object) -> PdfReader:
    wanted = replace(FULL, document=True, captures=Captures.NONE, summary=False, **profile)  # type: ignore[arg-type]
    results = compose(build.PROVENANCE, scan.findings, scan.headers, wanted)
    (document,) = (result for result in results if result.SOPClassUID == EncapsulatedPDFStorage)
    return PdfReader(BytesIO(document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]))


def _said(pdf: PdfReader) -> str:
    return " ".join(" ".join(page.extract_text() for page in pdf.pages).split())


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (Language.ENGLISH, ("Left lung", "Volume", "12.35 %", "Roundness Yes", "not for diagnostic use")),
        (Language.GERMAN, ("Linke Lunge", "Volumen", "12,35 %", "FORSCHUNG", "nicht für diagnostische Zwecke")),
        (Language.FRENCH, ("Poumon gauche", "12,35 %", "Modèle", "ne pas utiliser pour le diagnostic", "Nœud")),
        (Language.SPANISH, ("Pulmón izquierdo", "Volumen", "12,35 %", "INVESTIGACIÓN")),
    ],
)
def test_the_words_of_a_pdf_can_be_found(language: Language, words: tuple[str, ...]) -> None:
    scan = pictures.scan()
    (ball,) = scan.findings.regions
    notes = ("Größe: ß € – “x” Ω Узел Όζος",)
    evaluations = (Evaluation(Code("ROUND", "99AINODE", "Roundness"), Code("373066001", "SCT", "Yes")),)
    named = scan.with_findings(regions=(replace(ball, label="Left lung", evaluations=evaluations),), notes=notes)
    pdf = _pdf(named, language=language)
    said = _said(pdf)
    for word in (*words, *notes, build.PROVENANCE.model.name):
        assert word in said
    assert pdf.trailer["/Root"]["/Lang"] == language.value


def test_a_pdf_brings_its_font_and_key_images_and_names_no_patient() -> None:
    scan = pictures.scan()
    pdf = _pdf(scan)
    (page,) = pdf.pages
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    assert fonts
    assert all("/FontFile2" in font["/FontDescriptor"] and "/ToUnicode" in font for font in fonts)
    assert len(page.images) == len(key_slices(scan.findings))
    assert all(image.image.size == (pictures.COLUMNS, pictures.ROWS) for image in page.images)
    assert pdf.metadata is not None
    assert pdf.metadata.title == "AI Ball"
    assert pdf.metadata.creation_date == AT.replace(microsecond=0)
    everything = _said(pdf) + str(dict(pdf.metadata))
    who = identity(scan.headers[0])
    assert who.AccessionNumber in everything
    assert not any(name in everything for name in (*str(who.PatientName).split("^"), who.PatientID))


def test_a_long_pdf_has_several_pages() -> None:
    scan = pictures.scan()
    mask = scan.findings.regions[0].mask
    regions = tuple(replace(pictures.region(n, mask), colour=(250, 0, 0)) for n in range(150))
    pdf = _pdf(scan.with_findings(regions=regions))
    assert len(pdf.pages) > 1
    said = _said(pdf)
    assert all(f"Region {n} Volume {10 + n}.0 ml" in said for n in range(150))
    assert f"Page 2 of {len(pdf.pages)}" in said


# Older SR

CLASSES = {
    Report.COMPREHENSIVE: ComprehensiveSRStorage,
    Report.ENHANCED: EnhancedSRStorage,
    Report.BASIC: BasicTextSRStorage,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_an_older_report_says_the_same(kind: Report) -> None:
    report = build.case().results()[-1]
    before = list(_items(report))
    dataset = older.build(build.PROVENANCE, report, profile=replace(FULL, report=kind))
    assert dataset.SOPClassUID == CLASSES[kind]
    assert dataset.SOPInstanceUID != report.SOPInstanceUID
    items = list(_items(dataset))
    names = Counter(i.ConceptNameCodeSequence[0].CodeMeaning for i in before if i.ValueType == "NUM")
    kept = Counter(i.ConceptNameCodeSequence[0].CodeMeaning for i in items if i.ValueType in ("NUM", "TEXT"))
    assert names["Volume"] == 3
    assert names <= kept
    texts = {str(i.TextValue) for i in before if i.ValueType == "TEXT"}
    assert texts <= {str(i.TextValue) for i in items if i.ValueType == "TEXT"}
    assert list(_items(report)) == before, "the report itself is left as it is"


def test_basic_text_tells_numbers_in_words_and_keeps_the_image_of_an_outline() -> None:
    report = build.case().results()[-1]
    dataset = older.build(build.PROVENANCE, report, profile=replace(FULL, report=Report.BASIC))
    items = list(_items(dataset))
    assert not {"NUM", "SCOORD", "SCOORD3D"} & {i.ValueType for i in items}
    assert "12.35 Percent" in {str(i.TextValue) for i in items if i.ValueType == "TEXT"}
    outlined = [i for i in _items(report) if i.ValueType == "SCOORD"]
    images = [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in items if i.ValueType == "IMAGE"]
    for outline in outlined:
        assert outline.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID in images


# Notices


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("why", NotRun)
def test_a_notice_says_which_model_did_not_run_and_why(why: NotRun, language: Language) -> None:
    header = build.case().headers[0]
    profile = replace(FULL, notice=NoticeKind.SR, language=language)
    dataset = notice.build(build.PROVENANCE, why, "missing-slices: three", [header], profile=profile)
    said = [str(i.TextValue) for i in dataset.ContentSequence if i.ValueType == "TEXT"]
    assert any("ball_ct@1.2.3" in text for text in said)
    assert any("missing-slices: three" in text for text in said)
    assert len(set(said)) == len(said)
    assert str(dataset.SeriesDescription).startswith("AI ")
    assert (dataset.PatientID, dataset.StudyInstanceUID) == ("T-4711", build.STUDY_UID)


def test_a_notice_needs_no_image_and_its_class_is_that_of_the_reports() -> None:
    header = Dataset()
    header.StudyInstanceUID, header.PatientID = "1.2.3", "T-1"
    for report, expected in {**CLASSES, Report.NONE: BasicTextSRStorage}.items():
        profile = Profile(notice=NoticeKind.SR, report=report)
        dataset = notice.build(build.PROVENANCE, NotRun.FAILED, "", [header], profile=profile)
        assert dataset.SOPClassUID == expected
        assert dataset.PatientName == ""


def test_a_notice_as_a_picture_is_one_page_without_the_patient() -> None:
    profile = Profile(notice=NoticeKind.SC)

    def picture(**elements: object) -> Dataset:
        header = build.case(**elements).headers[0]
        return notice.build(build.PROVENANCE, NotRun.TIMED_OUT, "after 600 s", [header], profile=profile)

    dataset = picture()
    assert dataset.SOPClassUID == SecondaryCaptureImageStorage
    assert (dataset.pixel_array > 200).any(axis=-1).sum() > 5000, "no letters"
    assert picture(PatientName="Other^Name", PatientID="X", PatientSex="M").PixelData == dataset.PixelData
