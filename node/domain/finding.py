"""What the model says: coded, located, measured. Knows no DICOM encoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.mask import Mask
from node.domain.volume import SliceSource, Volume


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator, meaning (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Measurement:
    """A number with its unit (UCUM). ``name`` is the concept; ``method`` says how where that changes the number.

    ``key`` is the stable short name by which programs and the API find it, for instance ``volume_ml``.
    """

    key: str
    name: Code
    value: float
    unit: Code
    method: Code | None = None
    derivation: Code | None = None
    digits: int = 1


@dataclass(frozen=True)
class Evaluation:
    """A qualitative statement: a question and its coded answer."""

    name: Code
    value: Code


@dataclass(frozen=True, eq=False)
class Region:
    """A region of the volume, and what is said of it.

    ``mask``: (slices, rows, columns), bool, on the grid of the volume: an array, or one label of a `LabelMap`.
    ``in_segmentation`` is False for a region that is only the union of others. ``colour`` is sRGB, 0 to 255.
    """

    key: str
    label: str
    mask: Mask
    category: Code
    type: Code
    site: Code
    laterality: Code | None
    colour: tuple[int, int, int]
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    in_segmentation: bool = True


class Shape(StrEnum):
    """What the points of a `Mark` mean."""

    POINT = "point"  # one
    POLYLINE = "polyline"  # an open line through them, on one slice
    POLYGON = "polygon"  # a closed outline through them, on one slice; the first is not repeated
    BOX = "box"  # two opposite corners, along the axes of the grid; through several slices where they differ


@dataclass(frozen=True, eq=False)
class Mark:
    """A place that is no region: a point, a line, an outline or a box, and what is said of it.

    ``points``: (n, 3) indices (slice, row, column) from the centre of the first voxel, as ``Volume.affine`` takes them;
    a box's corners lie on the outer edges of its voxels, so that one voxel is a box from k - 0.5 to k + 0.5.
    ``confidence``: 0 to 1. ``colour`` is sRGB, 0 to 255.
    """

    key: str
    label: str
    shape: Shape
    points: NDArray[np.float64]
    type: Code
    site: Code
    laterality: Code | None = None
    category: Code | None = None
    confidence: float | None = None
    colour: tuple[int, int, int] = (255, 220, 90)
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()


@dataclass(frozen=True, eq=False)
class Map:
    """A number for every voxel: a probability, or where a network looked (Grad-CAM).

    ``values``: (slices, rows, columns), float32, on the grid of the volume, in ``unit``. ``shown`` is the range of
    values that pictures show, its lower end transparent.
    """

    key: str
    label: str
    values: NDArray[np.float32]
    quantity: Code
    unit: Code
    shown: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that one run says about one volume.

    ``procedure`` is the imaging procedure reported (CID 100), ``evaluations`` and ``measurements`` are about the whole
    study, ``window`` is (centre, width) for pictures of this anatomy, ``notes`` are sentences for the report and
    ``also_read`` the instances that were read beside those of ``volume``.
    """

    volume: Volume
    procedure: Code
    regions: tuple[Region, ...]
    evaluations: tuple[Evaluation, ...] = ()
    window: tuple[float, float] = (40.0, 400.0)
    title: str = ""
    notes: tuple[str, ...] = ()
    series_notes: tuple[tuple[str, str], ...] = field(default=())
    also_read: tuple[SliceSource, ...] = ()
    marks: tuple[Mark, ...] = ()
    maps: tuple[Map, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The numbers and statements as JSON types: for the job row, the CLI and the API."""
        return {
            "title": self.title,
            "series": self.volume.series_uid,
            "regions": {
                region.key: {
                    "label": region.label,
                    "measurements": _numbers(region.measurements),
                    "evaluations": _answers(region.evaluations),
                }
                for region in self.regions
            },
            "marks": {
                mark.key: {
                    "label": mark.label,
                    "shape": mark.shape.value,
                    "points": [[round(float(v), 2) for v in point] for point in mark.points],
                    "confidence": mark.confidence,
                    "measurements": _numbers(mark.measurements),
                    "evaluations": _answers(mark.evaluations),
                }
                for mark in self.marks
            },
            "maps": {found.key: {"label": found.label, "unit": found.unit.value} for found in self.maps},
            "measurements": _numbers(self.measurements),
            "evaluations": _answers(self.evaluations),
            "notes": list(self.notes),
            "series_not_taken": dict(self.series_notes),
        }


def _numbers(measurements: tuple[Measurement, ...]) -> dict[str, Any]:
    return {m.key: {"name": m.name.meaning, "value": round(m.value, 6), "unit": m.unit.value} for m in measurements}


def _answers(evaluations: tuple[Evaluation, ...]) -> dict[str, str]:
    return {e.name.meaning: e.value.meaning for e in evaluations}
