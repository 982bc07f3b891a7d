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


def test_every_measurement_is_loaded_with_its_values(seen: Any) -> None:
    said = {m["label"]: m for m in seen["report"]}
    assert set(said) == {"Ball", "Point", "Line", "Outline", "Box", "Deep"}
    assert all(m["loaded"] for m in seen["report"])
    assert any("40" in text for text in said["Line"]["texts"])
    assert any("12.35 %" in text for text in said["Ball"]["texts"])


def test_hydration_gives_back_what_was_stored(seen: Any, shown: Gallery) -> None:
    """Corners in mm, LPS, from the edges of pixels."""
    found = {m["tool"]: [] for m in seen["hydrated"]}
    for m in seen["hydrated"]:
        found[m["tool"]].append(np.array(m["points"]))
    centre = _mm(*CENTRE)
    assert any(
        np.allclose(points[0], centre, atol=SPACING[1]) for points in found.pop("ArrowAnnotate", found.pop("Probe", []))
    )
    box = [_mm(CENTRE[0] + 3, 97.5, 129.5), _mm(CENTRE[0] + 3, 134.5, 166.5)]
    assert any(
        np.allclose([points.min(axis=0), points.max(axis=0)], box, atol=SPACING[1]) for points in found["RectangleROI"]
    )


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


def _mm(k: float, row: float, column: float) -> Any:
    """LPS, of an index."""
    return np.add(ORIGIN, (column * SPACING[2], row * SPACING[1], k * SPACING[0]))
