"""Which series is measured, and the reason for every other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.domain.errors import Refused
from pipelines.lung_density_ct.selection import is_sharp, select
from pipelines.phantom import SeriesOptions
from tests.builders import change, study_of, tiny_series


def _series(folder: Path, name: str, spec: dict[str, Any] | None = None, **header: Any) -> list[Path]:
    """A tiny series of its own UID, with these elements changed."""
    spec = {"seed": name} | (spec or {})
    return tiny_series(folder / name, SeriesOptions(header=header), **spec)


def _uid(paths: list[Path]) -> str:
    return study_of(paths).series[0].series_uid


def _refusal(*series: list[Path]) -> Refused:
    with pytest.raises(Refused) as refused:
        select(study_of(*series))
    return refused.value


@pytest.mark.parametrize(
    ("header", "code", "words"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer", "24 localizer"),
        ({"Modality": "MR"}, "not-ct", "Modality is MR"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}, "secondary", "DERIVED/SECONDARY"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MIP"]}, "secondary", "projection"),
        ({"PixelSpacing": None}, "missing-geometry", "PixelSpacing"),
    ],
)
def test_a_header_that_excludes(tmp_path: Path, header: dict[str, Any], code: str, words: str) -> None:
    paths = _series(tmp_path, "only", {"spacing": (8.0, 11.0, 9.0)}, **header)
    refusal = _refusal(paths)
    assert refusal.code == code
    assert words in refusal.reason
    assert _uid(paths) in refusal.reason


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"shape": (16, 32, 40), "spacing": (8.0, 9.0, 9.0)}, "too-few-slices", "16 slices"),
        ({"shape": (24, 32, 40), "spacing": (2.0, 9.0, 9.0)}, "too-few-slices", "48 mm"),
        ({"spacing": (12.0, 9.0, 9.0)}, "too-few-slices", "12 mm apart"),
        ({"row_cosines": (1.0, 0.0, 0.0), "column_cosines": (0.0, 0.0, -1.0)}, "not-axial", "90°"),
        ({"row_cosines": (0.0, 1.0, 0.0), "column_cosines": (0.0, 0.0, -1.0)}, "not-axial", "90°"),
        ({"tilt_degrees": 40.0, "spacing": (8.0, 9.0, 9.0)}, "gantry-tilt", "40.0°"),
    ],
)
def test_a_geometry_that_excludes(tmp_path: Path, spec: dict[str, Any], code: str, words: str) -> None:
    refusal = _refusal(_series(tmp_path, "only", spec))
    assert refusal.code == code
    assert words in refusal.reason


def test_every_series_gets_its_reason(tmp_path: Path) -> None:
    usable = {"spacing": (8.0, 11.0, 9.0)}
    scout = _series(tmp_path, "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    holed = _series(tmp_path, "holed", usable)
    del holed[7]
    short = _series(tmp_path, "short", usable)[:5]
    refusal = _refusal(scout, holed, short)
    assert refusal.code == "no-suitable-series"
    for paths, words in ((scout, "localizer"), (holed, "1 slice(s) are missing"), (short, "5 slices")):
        assert f"series {_uid(paths)}: " in refusal.reason
        assert words in refusal.reason


def test_an_empty_study_is_refused() -> None:
    assert _refusal().code == "no-suitable-series"


BETTER = [
    ({}, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "derived"),
    ({}, {"BodyPartExamined": "ABDOMEN"}, "BodyPartExamined is ABDOMEN"),
    ({}, {"BodyPartExamined": None}, "BodyPartExamined is empty"),
    ({"SliceThickness": 8}, {"SliceThickness": 10}, "10 mm thick"),
    ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, "B70F is sharp"),
    ({}, {"ContrastBolusAgent": "IOHEXOL"}, "contrast-enhanced"),
    ({"SeriesNumber": 2}, {"SeriesNumber": 3}, "SeriesNumber"),
    ({"SeriesNumber": 9}, {"SeriesNumber": None}, "SeriesNumber"),
    # A sharp kernel is worse than contrast medium, thick slices are worse than a sharp kernel.
    ({"ContrastBolusAgent": "IOHEXOL"}, {"ConvolutionKernel": "LUNG"}, "sharp"),
]


@pytest.mark.parametrize(("better", "worse", "words"), BETTER)
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_the_better_series_is_taken(
    tmp_path: Path, better: dict[str, Any], worse: dict[str, Any], words: str, names: tuple[str, str]
) -> None:
    usable = {"spacing": (8.0, 11.0, 9.0)}
    good = _series(tmp_path, names[0], usable, **better)
    bad = _series(tmp_path, names[1], usable, **worse)
    selection = select(study_of(bad, good))
    assert selection.series.series_uid == _uid(good)
    ((uid, reason),) = selection.not_taken
    assert uid == _uid(bad)
    assert words in reason


def test_more_coverage_is_taken_before_thinner_slices(tmp_path: Path) -> None:
    long = _series(tmp_path, "long", {"shape": (32, 32, 40), "spacing": (8.0, 9.0, 9.0)})
    thin = _series(tmp_path, "thin", {"shape": (100, 32, 40), "spacing": (1.2, 9.0, 9.0)})
    assert select(study_of(thin, long)).series.series_uid == _uid(long)


def test_thin_slices_are_taken_before_thick_ones(tmp_path: Path) -> None:
    thick = _series(tmp_path, "thick", {"shape": (60, 32, 40), "spacing": (5.0, 9.0, 9.0)})
    thin = _series(tmp_path, "thin", {"shape": (260, 32, 40), "spacing": (1.0, 9.0, 9.0)}, ConvolutionKernel="B70f")
    selection = select(study_of(thick, thin))
    assert selection.series.series_uid == _uid(thin)
    assert "5 mm thick" in selection.not_taken[0][1]


def test_equal_series_are_decided_by_uid(tmp_path: Path) -> None:
    usable = {"spacing": (8.0, 11.0, 9.0)}
    first, second = (_series(tmp_path, name, usable) for name in ("a", "b"))
    lower = min(_uid(first), _uid(second))
    assert select(study_of(first, second)).series.series_uid == lower
    assert select(study_of(second, first)).series.series_uid == lower


def test_an_oblique_enhanced_series_is_taken(tmp_path: Path) -> None:
    spec: dict[str, Any] = {"spacing": (8.0, 11.0, 9.0), "column_cosines": (0.0, 0.866025403784, 0.5)}
    paths = tiny_series(tmp_path, SeriesOptions(multiframe=True), **spec)
    assert select(study_of(paths)).reason.startswith("axial CT, 24 slices, 8 mm apart, 8 mm thick, kernel STANDARD")


def test_a_file_that_is_no_dicom_is_a_reason(tmp_path: Path) -> None:
    usable = {"spacing": (8.0, 11.0, 9.0)}
    broken = _series(tmp_path, "broken", usable)
    study = study_of(broken, _series(tmp_path, "whole", usable))
    broken[3].write_bytes(b"no DICOM at all")
    assert "no readable DICOM" in select(study).not_taken[0][1]


def test_rgb_among_ct_is_a_reason(tmp_path: Path) -> None:
    paths = _series(tmp_path, "only", {"spacing": (8.0, 11.0, 9.0)})
    change(paths[3], lambda ds: (setattr(ds, "SamplesPerPixel", 3), setattr(ds, "PhotometricInterpretation", "RGB")))
    assert _refusal(paths).code == "not-monochrome"


@pytest.mark.parametrize(
    "kernel", ["B70f", "B50f", "I70f\\3", "Bl57d", "BONE", "LUNG", "D", "FC51", "FC30", "BONEPLUS"]
)
def test_sharp_kernels(kernel: str) -> None:
    assert is_sharp(kernel)


@pytest.mark.parametrize(
    "kernel", ["", "B30f", "B35f", "Br40d", "I31f\\2", "STANDARD", "SOFT", "B", "C", "FC01", "FC18"]
)
def test_smooth_kernels(kernel: str) -> None:
    assert not is_sharp(kernel)
