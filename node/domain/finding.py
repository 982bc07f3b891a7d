"""What the model says: coded, located, measured. Knows no DICOM encoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    ``mask``: (slices, rows, columns), bool, on the grid of the volume. ``in_segmentation`` is False for a region that
    is only the union of others. ``colour`` is sRGB, 0 to 255.
    """

    key: str
    label: str
    mask: NDArray[np.bool_]
    category: Code
    type: Code
    site: Code
    laterality: Code | None
    colour: tuple[int, int, int]
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    in_segmentation: bool = True


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that one run says about one volume.

    ``procedure`` is the imaging procedure reported (CID 100), ``evaluations`` are statements about the whole study,
    ``window`` is (centre, width) for pictures of this anatomy, ``notes`` are sentences for the report and
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

    def summary(self) -> dict[str, Any]:
        """The numbers and statements as JSON types: for the job row, the CLI and the API."""
        return {
            "title": self.title,
            "series": self.volume.series_uid,
            "regions": {
                region.key: {
                    "label": region.label,
                    "measurements": {
                        m.key: {"name": m.name.meaning, "value": round(m.value, 6), "unit": m.unit.value}
                        for m in region.measurements
                    },
                    "evaluations": {e.name.meaning: e.value.meaning for e in region.evaluations},
                }
                for region in self.regions
            },
            "evaluations": {e.name.meaning: e.value.meaning for e in self.evaluations},
            "notes": list(self.notes),
            "series_not_taken": dict(self.series_notes),
        }
