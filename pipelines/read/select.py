"""A series in a few words, from headers alone: what a pipeline judges it by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from node.domain.errors import Refused
from node.domain.study import SeriesContent
from pipelines.read.series import read_headers, stacked
from pipelines.read.stack import Stack, normal_of

# Rank of a series whose number is missing: behind all that have one.
_NO_NUMBER = 1 << 31


@dataclass(frozen=True, eq=False)
class SeriesSummary:
    """What the headers of a series say, once they have been proved to make a stack.

    ``off_axial_degrees`` is the angle between the slice normal and the patient's long axis, 0 to 90.
    ``slice_thickness_mm`` is SliceThickness, or the spacing where that is missing. ``localizers`` counts the images of
    the series that are none of its slices and are left out.
    """

    content: SeriesContent
    stack: Stack
    localizers: int
    image_type: tuple[str, ...]
    body_part: str
    kernel: str
    contrast: bool
    slice_thickness_mm: float
    series_number: int

    @property
    def off_axial_degrees(self) -> float:
        along = abs(float(normal_of(self.stack.frames[0])[2]))
        return float(np.degrees(np.arccos(min(along, 1.0))))


def summarise(series: SeriesContent, modality: str = "CT") -> SeriesSummary:
    """Read the headers of every instance of a series and prove that they make a stack.

    Raises:
        Refused: it is of another modality, a localizer, or no volume; the reason is for a person.
    """
    headers = read_headers(series)
    modalities = sorted({header.text("Modality") or "(none)" for header in headers})
    if modalities not in ([modality], []):
        raise Refused(f"not-{modality.lower()}", f"Modality is {', '.join(modalities)}")
    found = stacked(headers)
    first = headers[0]
    thickness = _number(first.texts("SliceThickness"))
    number = _number(first.texts("SeriesNumber"))
    return SeriesSummary(
        content=series,
        stack=found.stack,
        localizers=len(found.localizers),
        image_type=found.stack.frames[0].image_type,
        body_part=" ".join(first.texts("BodyPartExamined")[:1]),
        kernel=" ".join(first.texts("ConvolutionKernel")),
        contrast=bool(first.elements.get("ContrastBolusAgent") or first.elements.get("ContrastBolusAgentSequence")),
        slice_thickness_mm=found.stack.spacing_mm if thickness is None else thickness,
        series_number=_NO_NUMBER if number is None else int(number),
    )


def _number(values: tuple[str, ...]) -> float | None:
    try:
        return float(values[0]) if values else None
    except ValueError:
        return None
