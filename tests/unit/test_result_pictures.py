"""The overlay shows the regions, a legend and the banner; the report reads as text and HTML."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from dicom_sr.render import html, overlay_png, text
from node.domain.finding import Region
from node.domain.model import Qualification
from node.domain.volume import Volume
from tests import builders_results as build

BANNER = (255, 220, 90)


def _large(size: int) -> build.Case:
    """One slice of ``size`` by ``size`` with a square, outlined and painted."""
    case = build.case()
    volume = case.findings.volume
    mask = np.zeros((1, size, size), bool)
    mask[0, size // 2 : size // 2 + 20, size // 2 : size // 2 + 20] = True
    outlined = build.region("square", "Square", mask, colour=(250, 0, 0))
    painted = build.region("paint", "Paint", mask, type=build.Code("X", "99AINODE", "X"), colour=(0, 250, 0))
    header = case.headers[0]
    header.Rows = header.Columns = size
    one = Volume(
        np.full((1, size, size), -400, np.float32),
        volume.affine,
        volume.sources[:1],
        volume.series_uid,
        volume.frame_of_reference_uid,
    )
    regions: tuple[Region, ...] = (outlined, painted)
    return replace(case, headers=[header], findings=replace(case.findings, volume=one, regions=regions))


def _capture(size: int) -> np.ndarray:
    return _large(size).results()[2].pixel_array


def test_the_ground_is_windowed() -> None:
    assert _capture(256)[150, 40].tolist() == [127] * 3  # −400 is the centre of the window


def test_a_structure_is_outlined_and_a_scatter_is_painted() -> None:
    pixels = _capture(256)
    assert pixels[128, 130].tolist() == [250, 0, 0]
    inside = pixels[138, 138]
    assert inside[1] > 127 > inside[0] == inside[2]


@pytest.mark.parametrize("size", [256, 512])
def test_the_banner_and_the_legend_are_legible(size: int) -> None:
    pixels = _capture(size).astype(int)
    top = np.abs(pixels[: size // 8] - BANNER).max(axis=-1) < 40
    assert top.sum() > 80, "no letters in the colour of the banner"
    rows = np.flatnonzero(top.any(axis=1))
    assert rows.max() - rows.min() > 15, "two lines are at least this high"
    assert np.flatnonzero(top.any(axis=0)).max() < size - 5, "the banner is cut off"
    assert (pixels[-size // 8 :, : size // 8] == (250, 0, 0)).all(axis=-1).sum() > 20, "no colour in the legend"


def test_a_product_has_one_line_of_banner() -> None:
    def height(qualification: Qualification) -> int:
        picture = _large(256).results(replace(build.PROVENANCE, qualification=qualification))[2].pixel_array
        return int((np.abs(picture[:40].astype(int) - BANNER).max(axis=-1) < 40).any(axis=1).sum())

    assert height(Qualification.PRODUCT) < height(Qualification.RESEARCH)


@pytest.fixture(scope="module")
def report() -> Dataset:
    return build.case().results()[-1]


def test_text_says_what_was_found(report: Dataset) -> None:
    said = text(report)
    assert said.startswith("AI Report Ball RESEARCH\n=====")
    assert said.count("Volume") == 3
    assert "Share of the whole  12.35 %" in said
    assert "Roundness: Yes" in said
    assert "Research result. Not for diagnostic use." in said
    assert "ball_ct@1.2.3" in said
    assert "Testa" not in said


def test_html_stands_alone_and_is_escaped(report: Dataset) -> None:
    page = html(report)
    assert page.startswith("<!doctype html>")
    assert "<td>Share of the whole</td><td>12.35 %</td>" in page
    assert "src=" not in page
    case = build.case()
    odd = build.region("odd", "<b>&", case.findings.regions[1].mask)
    assert "<h2>&lt;b&gt;&amp;</h2>" in html(case.with_regions(odd).results()[-1])


def test_the_overlay_is_a_png_of_the_same_pixels() -> None:
    capture = build.case().results()[4]
    with Image.open(BytesIO(overlay_png(capture))) as picture:
        assert np.array_equal(np.asarray(picture), capture.pixel_array)
