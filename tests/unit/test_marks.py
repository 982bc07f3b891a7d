"""Marks become outlines on the slices that they go through; what lies nowhere is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicom_sr.outline import outlines
from node.domain.errors import InvalidInput
from node.domain.finding import Findings, Mark, Shape
from tests import builders_results as build

SHAPE = (10, 40, 30)


def _mark(shape: Shape, points: object) -> Mark:
    return Mark("one", "One", shape, np.array(points, float), build.LUNG, build.LUNG)


def _found(shape: Shape, points: object) -> list[tuple[int, list[list[float]]]]:
    return [(outline.k, outline.points.tolist()) for outline in outlines(_mark(shape, points), SHAPE)]


def test_the_centre_of_a_voxel_is_half_a_pixel_from_its_corner() -> None:
    assert _found(Shape.POINT, [(3, 7, 11)]) == [(3, [[11.5, 7.5]])]


def test_a_line_stays_open_and_an_outline_is_closed() -> None:
    corners = [(3, 0, 0), (3, 0, 4), (3, 5, 4)]
    assert _found(Shape.POLYLINE, corners) == [(3, [[0.5, 0.5], [4.5, 0.5], [4.5, 5.5]])]
    assert _found(Shape.POLYGON, corners) == [(3, [[0.5, 0.5], [4.5, 0.5], [4.5, 5.5], [0.5, 0.5]])]


def test_an_outline_of_four_corners_is_not_taken_for_an_upright_rectangle() -> None:
    ((_, points),) = _found(Shape.POLYGON, [(3, 0, 2), (3, 2, 4), (3, 4, 2), (3, 2, 0)])
    assert len(points) == 6
    assert points[4] == [1.5, 1.5], "in the middle of its last side"


def test_a_voxel_as_a_box_is_its_outer_edge() -> None:
    assert _found(Shape.BOX, [(2.5, 6.5, 10.5), (3.5, 7.5, 11.5)]) == [
        (3, [[11, 7], [12, 7], [12, 8], [11, 8], [11, 7]])
    ]


def test_a_box_is_on_the_slices_whose_centres_lie_in_it() -> None:
    assert [k for k, _ in _found(Shape.BOX, [(2.6, 1, 1), (6.4, 5, 5)])] == [3, 4, 5, 6]
    assert [k for k, _ in _found(Shape.BOX, [(6.4, 5, 5), (2.6, 1, 1)])] == [3, 4, 5, 6]
    assert [k for k, _ in _found(Shape.BOX, [(2.6, 1, 1), (2.9, 5, 5)])] == [3]
    assert [k for k, _ in _found(Shape.BOX, [(-5, 1, 1), (0.2, 5, 5)])] == [0]
    assert [k for k, _ in _found(Shape.BOX, [(9.2, 1, 1), (20, 5, 5)])] == [9]


def test_what_of_a_box_lies_outside_is_cut_off() -> None:
    ((_, points),) = _found(Shape.BOX, [(0, -7, -9), (0, 100, 100)])
    assert points == [[0, 0], [30, 0], [30, 40], [0, 40], [0, 0]]


@pytest.mark.parametrize(
    ("shape", "points", "said"),
    [
        (Shape.POINT, [(3, 40, 0)], "lie outside"),
        (Shape.POINT, [(-1, 0, 0)], "lie outside"),
        (Shape.POINT, [(1, 1, 1), (1, 2, 2)], "make no point"),
        (Shape.POINT, [(1, float("nan"), 1)], "make no point"),
        (Shape.POLYLINE, [(1, 1, 1)], "make no polyline"),
        (Shape.POLYLINE, [(1, 1, 1), (2, 1, 1)], "on several slices"),
        (Shape.POLYGON, [(1, 1, 1), (1, 2, 2)], "make no polygon"),
        (Shape.BOX, [(1, 50, 1), (1, 60, 9)], "without a part in the images"),
        (Shape.BOX, [(1, 5, 1), (1, 5, 9)], "without a part in the images"),
        (Shape.BOX, [(1, 5), (1, 9)], "make no box"),
    ],
)
def test_a_mark_that_lies_nowhere_is_refused(shape: Shape, points: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=rf"one\.points: .*{said}"):
        _found(shape, points)


def _refused(findings: Findings) -> str:
    case = replace(build.case(), findings=findings)
    with pytest.raises(InvalidInput) as refusal:
        case.results()
    return str(refusal.value)


def test_findings_that_cannot_be_encoded_are_refused_by_name() -> None:
    findings = build.with_everything(build.case()).findings
    (heat,) = findings.maps
    endless = heat.values.copy()
    endless[3, 2, 1] = np.inf
    assert "ball: is the key of two findings" in _refused(
        replace(findings, marks=(replace(findings.marks[0], key="ball"),))
    )
    assert "heat.values: holds what is no finite number" in _refused(
        replace(findings, maps=(replace(heat, values=endless),))
    )
    assert "heat.values: has the shape (11, 48, 40)" in _refused(
        replace(findings, maps=(replace(heat, values=heat.values[1:]),))
    )
    assert "findings.length_mm: is nan" in _refused(
        replace(findings, measurements=(replace(build.LENGTH, value=float("nan")),))
    )


def test_the_summary_tells_of_marks_maps_and_numbers() -> None:
    said = build.with_everything(build.case()).findings.summary()
    assert said["marks"]["spot"] == {
        "label": "Spot",
        "shape": "point",
        "points": [[5.0, 21.0, 24.0]],
        "confidence": 0.875,
        "measurements": {},
        "evaluations": {},
    }
    assert said["maps"] == {"heat": {"label": "Where the network looked", "unit": "1"}}
    assert said["measurements"]["whole_mm"]["value"] == 12.84
