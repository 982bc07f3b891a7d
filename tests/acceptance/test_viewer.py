"""Every kind of finding in OHIF, in a real browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_sr.ohif import label_of
from dicom_sr.outline import Outline, bounding_rectangle, outlines, slices_to_show
from tests import ohif
from tests.gallery import CENTRE, ORIGIN, SPACING, STUDY_UID, Gallery, gallery
from tests.orthanc import Orthanc

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def shown() -> Gallery:
    return gallery()


@pytest.fixture(scope="module")
def seen(shown: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What OHIF says of the study."""
    root = tmp_path_factory.mktemp("gallery")
    orthanc = Orthanc(root)
    orthanc.start()
    try:
        files = shown.written(root / "sources", root / "results")
        for path in files:
            orthanc.post("/instances", path.read_bytes())
        numbers = _series_numbers([dcmread(path, stop_before_pixels=True) for path in files])
        return ohif.look(STUDY_UID, orthanc.http_port, root, series=numbers, script="gallery.js")
    finally:
        orthanc.stop()


def _series_numbers(results: list[Dataset]) -> dict[str, int]:
    kinds = {
        Comprehensive3DSRStorage: "SR",
        SegmentationStorage: "SEG",
        SecondaryCaptureImageStorage: "SC",
        ParametricMapStorage: "MAP",
    }
    return {kinds[d.SOPClassUID]: int(d.SeriesNumber) for d in results if d.SOPClassUID in kinds}


def test_nothing_is_unsupported_and_no_page_error(seen: Any) -> None:
    assert seen["errors"] == []
    assert seen["unsupported"] == []


def test_every_measurement_is_loaded_with_its_values(seen: Any, shown: Gallery) -> None:
    said = {label_of(m["label"]): m for m in seen["report"]}
    assert set(said) == set(_stored(shown))
    assert all(m["loaded"] for m in seen["report"])
    assert any("40" in text for text in said["Line"]["texts"])
    assert any("12.35 %" in text for text in said["Ball"]["texts"])


def test_hydration_gives_back_what_was_stored(seen: Any, shown: Gallery) -> None:
    """Every finding once, under its name, with the tool that fits, on its image, its points in mm, LPS."""
    assert {m["label"]: m["tool"] for m in seen["hydrated"]} == {
        "Ball": "RectangleROI",
        "Point": "ArrowAnnotate",
        "Line": "Length",
        "Path": "PlanarFreehandROI",
        "Edge": "Length",
        "Outline": "PlanarFreehandROI",
        "Box": "RectangleROI",
        "Deep": "RectangleROI",
    }
    assert len(seen["hydrated"]) == len(seen["report"])
    stored = _stored(shown)
    for measurement in seen["hydrated"]:
        outline = stored[measurement["label"]]
        points = np.array([_mm(outline.k, row - 0.5, column - 0.5) for column, row in outline.points])
        found = np.array(measurement["points"])
        if measurement["tool"] == "RectangleROI":
            found, points = (np.array([p.min(axis=0), p.max(axis=0)]) for p in (found, points))
        elif measurement["tool"] == "ArrowAnnotate":
            found = found[:1]  # its tip
        elif np.array_equal(points[0], points[-1]):
            points = points[:-1]  # closed
        assert np.allclose(found, points, atol=0.01), measurement["label"]
        assert measurement["image"] == shown.headers[outline.k].SOPInstanceUID


def test_hydration_keeps_lengths_and_areas(seen: Any) -> None:
    text = {m["label"]: m["text"] for m in seen["hydrated"]}
    assert "40.0 mm" in text["Line"]
    assert "40.0 mm" in text["Edge"]
    assert "1296 mm" in text["Outline"]


def test_segments_lie_where_they_were_found_in_their_colours(seen: Any) -> None:
    (ball,) = seen["segments"]
    assert ball["label"] == "Ball"
    assert np.allclose(ball["colour"][:3], (40, 170, 230), atol=3)
    assert np.allclose(ball["centre"], _mm(*CENTRE), atol=max(SPACING))


def test_the_map_lies_on_the_ball(seen: Any, shown: Gallery) -> None:
    assert seen["map"]["ball"] == int(shown.ball.sum())
    assert seen["map"]["dice"] > 0.99


def test_the_captures_scroll(seen: Any, shown: Gallery) -> None:
    assert seen["captures"] >= len(shown.headers)


def _stored(shown: Gallery) -> dict[str, Outline]:
    """Where each finding lies on the one image that the report shows it on, by its label."""
    regions, marks = shown.findings.regions, shown.findings.marks
    slices = slices_to_show([region.mask for region in regions])
    stored = {r.label: Outline(k, bounding_rectangle(r.mask[k])) for r, k in zip(regions, slices, strict=True)}
    for mark in marks:
        drawn = outlines(mark, shown.findings.volume.shape)
        stored[mark.label] = drawn[len(drawn) // 2]
    return stored


def _mm(k: float, row: float, column: float) -> Any:
    """LPS, of an index."""
    return np.add(ORIGIN, (column * SPACING[2], row * SPACING[1], k * SPACING[0]))
