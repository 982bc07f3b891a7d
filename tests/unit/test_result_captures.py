"""Secondary captures: which there are, where they lie, and that what is drawn lies where it was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage

from dicom_sr.keys import MOST_KEYS, key_slices
from dicom_sr.lettering import font
from node.domain.finding import Findings
from node.domain.profile import FULL, Captures, Language, Profile
from tests import builders_pictures as pictures
from tests import builders_results as build
from tests.builders_pictures import BLUE, BOX, COLUMNS, GREEN, POINT, RED, ROWS, SLICES

SOURCES = [
    *((orientation, "isotropic", False) for orientation in pictures.ORIENTATIONS),
    ("oblique", "anisotropic", False),
    ("sagittal", "anisotropic", True),
]


def _colour(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.float64]:
    """(row, column) of the pixels of exactly that colour."""
    return np.argwhere((picture == colour).all(axis=-1)).astype(float)


def _in_patient(capture: Dataset, pixels: NDArray[np.float64], frame: Dataset | None = None) -> NDArray[np.float64]:
    """Patient coordinates of (row, column), from what the capture itself says (PS3.3 C.7.6.2.1.1)."""
    place, grid, measures = capture, capture, capture
    if frame is not None:
        shared = capture.SharedFunctionalGroupsSequence[0]
        place, grid = frame.PlanePositionSequence[0], shared.PlaneOrientationSequence[0]
        measures = shared.PixelMeasuresSequence[0]
    cosines = np.array(grid.ImageOrientationPatient, float)
    y, x = (float(v) for v in measures.PixelSpacing)
    origin = np.array(place.ImagePositionPatient, float)
    return origin + np.outer(pixels[:, 1] * x, cosines[:3]) + np.outer(pixels[:, 0] * y, cosines[3:])


@pytest.mark.parametrize("one_object", [False, True], ids=["many", "one multi-frame"])
@pytest.mark.parametrize(("orientation", "spacing", "multiframe"), SOURCES)
def test_what_is_drawn_lies_where_it_was_found(
    orientation: str, spacing: str, multiframe: bool, one_object: bool
) -> None:
    scan = pictures.scan(orientation, spacing, multiframe=multiframe)
    pixel = max(scan.findings.volume.spacing[1:])
    captures = scan.captures(replace(FULL, summary=False, multiframe=one_object))
    if one_object:
        (capture,) = captures
        drawn = list(capture.pixel_array)
        frames: list[Dataset | None] = list(capture.PerFrameFunctionalGroupsSequence)
        captures = [capture] * SLICES
    else:
        drawn, frames = [capture.pixel_array for capture in captures], [None] * SLICES
    above_the_legend = drawn[4][: ROWS - 30]
    outline = _in_patient(captures[4], _colour(above_the_legend, RED), frames[4])
    distance = np.linalg.norm(outline - scan.centre, axis=1)
    assert len(distance) > 40
    assert distance.max() <= pictures.RADIUS_MM
    assert distance.min() > pictures.RADIUS_MM - np.sqrt(2) * pixel - 1e-6
    place = scan.findings.volume.affine
    for k in range(SLICES):
        box = _colour(drawn[k], GREEN)
        if BOX[0][0] <= k <= BOX[1][0]:
            low, high = _in_patient(captures[k], np.array([box.min(axis=0), box.max(axis=0)]), frames[k])
            assert np.allclose(low, place[:3, :3] @ (k, *BOX[0][1:]) + place[:3, 3], atol=1e-3)
            assert np.allclose(high, place[:3, :3] @ (k, *BOX[1][1:]) + place[:3, 3], atol=1e-3)
        else:
            assert not len(box)
        assert bool(len(_colour(drawn[k], BLUE))) == (k == POINT[0])
    point = _in_patient(captures[POINT[0]], _colour(drawn[POINT[0]], BLUE), frames[POINT[0]]).mean(axis=0)
    assert np.linalg.norm(point - (place[:3, :3] @ POINT + place[:3, 3])) < pixel


def test_a_line_and_an_outline_run_through_their_points() -> None:
    scan = pictures.scan()
    points = np.array([(3, 80, 20), (3, 80, 60), (3, 150, 60)], float)
    for shape, closed in ((pictures.Shape.POLYLINE, False), (pictures.Shape.POLYGON, True)):
        mark = replace(scan.findings.marks[0], shape=shape, points=points)
        picture = scan.with_findings(marks=(mark,), regions=()).captures(replace(FULL, summary=False))[3].pixel_array
        drawn = {tuple(p) for p in _colour(picture, GREEN).astype(int)}
        assert {(80, 20), (80, 40), (80, 60), (110, 60), (150, 60)} <= drawn
        assert ((115, 40) in drawn) == closed


def test_a_profile_chooses_every_slice_the_key_slices_or_none() -> None:
    scan = pictures.scan()
    keys = key_slices(scan.findings)
    # The box is in the middle on slice 4, as the ball is; only the point lies elsewhere.
    assert keys == [4, POINT[0]]
    summary, *shown = scan.captures(Profile(captures=Captures.KEY))
    assert [c.SourceImageSequence[0].ReferencedSOPInstanceUID for c in shown] == [
        scan.headers[k].SOPInstanceUID for k in keys
    ]
    assert [c.InstanceNumber for c in (summary, *shown)] == [1, 2, 3]
    assert len(scan.captures(Profile(captures=Captures.NONE))) == 1
    assert scan.captures(Profile(captures=Captures.NONE, summary=False)) == []
    every = scan.captures()
    assert [c.InstanceNumber for c in every] == list(range(1, SLICES + 2))
    assert {c.SOPInstanceUID for c in shown} & {c.SOPInstanceUID for c in every[1:]}


def test_few_slices_show_all_findings() -> None:
    scan = pictures.scan()
    masks = np.zeros((30, SLICES, ROWS, COLUMNS), bool)
    for n, mask in enumerate(masks):
        mask[n % SLICES, 40 : 50 + n, 40:50] = True
    many = scan.with_findings(regions=tuple(pictures.region(n, mask) for n, mask in enumerate(masks)), marks=())
    assert len(key_slices(many.findings)) == MOST_KEYS
    one = scan.with_findings(regions=(pictures.region(3, masks[3]),), marks=())
    assert key_slices(one.findings) == [3]
    assert key_slices(_two({3: 10, 4: 2}, {4: 10})) == [3, 4]
    assert key_slices(_two({3: 10, 4: 9}, {4: 10})) == [4], "slice 3 shows little that 4 does not"
    hot = scan.with_findings(regions=(), marks=(), maps=(pictures.heat(scan.findings.volume, (7, 60, 60)),))
    assert key_slices(hot.findings) == [7]
    assert key_slices(scan.with_findings(regions=(), marks=()).findings) == [SLICES // 2]


def _two(first: dict[int, int], second: dict[int, int]) -> Findings:
    """Two regions, by slice as many rows high."""
    masks = np.zeros((2, SLICES, ROWS, COLUMNS), bool)
    for mask, heights in zip(masks, (first, second), strict=True):
        for k, rows in heights.items():
            mask[k, 40 : 40 + rows, 40:50] = True
    regions = tuple(pictures.region(n, mask) for n, mask in enumerate(masks))
    return pictures.scan().with_findings(regions=regions, marks=()).findings


def test_the_summary_comes_first_in_the_series_and_lies_in_no_plane() -> None:
    summary, *slices = pictures.scan().captures()
    assert list(summary.ImageType) == ["DERIVED", "SECONDARY", "SUMMARY"]
    assert {tuple(c.ImageType) for c in slices} == {("DERIVED", "SECONDARY")}
    assert (summary.Rows, summary.Columns) == (512, 512)
    assert not {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"} & set(summary.dir())
    assert {c.SeriesInstanceUID for c in slices} == {summary.SeriesInstanceUID}
    assert {c.FrameOfReferenceUID for c in slices} == {summary.FrameOfReferenceUID}


def test_thirty_regions_stand_on_one_page() -> None:
    scan = pictures.scan()
    mask = np.zeros((SLICES, ROWS, COLUMNS), bool)
    mask[2, 100:120, 100:120] = True
    thirty = scan.with_findings(regions=tuple(pictures.region(n, mask) for n in range(1, 29)), marks=())
    (page,) = thirty.captures(Profile(captures=Captures.NONE))
    for n in (1, 14, 28):
        assert len(_colour(page.pixel_array, (8 * n, 200, 90))) > 50, "no swatch in the table"


def test_what_fits_no_page_goes_on_on_the_next() -> None:
    scan = pictures.scan()
    mask = np.zeros((SLICES, ROWS, COLUMNS), bool)
    mask[2, 100:120, 100:120] = True
    wordy = tuple(
        replace(pictures.region(n, mask), evaluations=build.case().findings.evaluations) for n in range(1, 29)
    )
    many = scan.with_findings(regions=wordy, marks=(), notes=("A sentence. " * 40, "Another."))
    first, *others = many.captures(Profile(captures=Captures.NONE))
    assert others
    assert [c.InstanceNumber for c in (first, *others)] == list(range(1, len(others) + 2))
    drawn = np.concatenate([c.pixel_array for c in (first, *others)])
    for n in range(1, 29):
        assert len(_colour(drawn, (8 * n, 200, 90))) > 50


def test_a_radiograph_has_no_plane_and_a_page_as_large_as_itself() -> None:
    summary, capture = pictures.radiograph().captures()
    assert (summary.Rows, summary.Columns) == (2048, 1900)
    assert (capture.Rows, capture.Columns) == (2200, 1900)
    for dataset in (summary, capture):
        assert not {"ImagePositionPatient", "FrameOfReferenceUID", "PixelSpacing"} & set(dataset.dir())
    box = _colour(capture.pixel_array, (255, 220, 90))
    box = box[(box[:, 0] > 300) & (box[:, 1] < 810)]
    assert box.min(axis=0).tolist() == [600, 400]
    assert box.max(axis=0).tolist() == [1200, 800]


def test_a_heat_map_is_strongest_at_its_peak_and_has_a_bar() -> None:
    scan = pictures.scan()
    plain = scan.with_findings(marks=(), regions=())
    before = plain.captures(replace(FULL, summary=False))
    after = plain.with_findings(maps=(pictures.heat(scan.findings.volume, (4, 60, 60)),)).captures(
        replace(FULL, summary=False)
    )
    change = np.abs(after[4].pixel_array.astype(int) - before[4].pixel_array).max(axis=-1)
    assert np.unravel_index(change[:100].argmax(), (100, COLUMNS)) == (60, 60)
    assert change[60, 62] > 0 == change[60, 80], "transparent below the range that is shown"
    elsewhere = np.abs(after[0].pixel_array.astype(int) - before[0].pixel_array).max(axis=-1)
    assert elsewhere[:100].max() == 0
    assert elsewhere[-30:, -70:].max() > 100, "no bar of colours"


def test_the_legend_names_the_largest_where_there_are_too_many() -> None:
    scan = pictures.scan()
    masks = np.zeros((30, SLICES, ROWS, COLUMNS), bool)
    for n, mask in enumerate(masks):
        mask[2, 60:62, 2 * n : 2 * n + (20 if n == 17 else 2)] = True
    many = scan.with_findings(regions=tuple(pictures.region(n, mask) for n, mask in enumerate(masks)), marks=())
    legend = many.captures(replace(FULL, summary=False))[2].pixel_array[ROWS // 2 :, :20]
    swatches = [n for n in range(30) if len(_colour(legend, (8 * n, 200, 90))) > 20]
    assert 17 in swatches
    assert 2 < len(swatches) < 12


def test_multiframe_puts_all_slices_into_one_object() -> None:
    scan = pictures.scan(multiframe=True)
    summary, capture = scan.captures(replace(FULL, multiframe=True))
    assert capture.SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage
    assert capture.NumberOfFrames == SLICES == len(capture.PageNumberVector)
    assert (summary.InstanceNumber, capture.InstanceNumber) == (1, 2)
    frames = [image.ReferencedFrameNumber for image in capture.SourceImageSequence]
    assert summary.SOPClassUID == SecondaryCaptureImageStorage
    assert frames == [source.frame_number for source in scan.findings.volume.sources]


@pytest.mark.parametrize("language", Language)
def test_the_banner_speaks_the_language_of_the_profile(language: Language) -> None:
    capture = pictures.scan().captures(replace(FULL, summary=False, language=language))[0]
    letters = np.abs(capture.pixel_array[:36].astype(int) - (255, 220, 90)).max(axis=-1) < 60
    assert letters.sum() > 80


def test_the_font_has_the_letters_of_every_language() -> None:
    absent = bytes(font(20).getmask("\U000f0000"))
    assert [c for c in "äöüßÄÖÜéèêëàâçîïôûùœŒñÑ¿¡áíóúµ²³±°–×…≥≤„“АЯαΩŁž" if bytes(font(20).getmask(c)) == absent] == []


def test_no_picture_names_the_patient() -> None:
    one, other = pictures.scan(), pictures.scan()
    for header in other.headers:
        header.PatientName, header.PatientID, header.PatientBirthDate = "Other^Name", "X-1", "19990101"
    for a, b in zip(one.captures(), other.captures(), strict=True):
        assert a.PixelData == b.PixelData
