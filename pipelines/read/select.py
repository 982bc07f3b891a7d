"""A series in a few words, from headers alone: what a pipeline judges it by."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from node.domain.errors import Refused
from node.domain.study import SeriesContent
from pipelines.read.decode import read_header
from pipelines.read.frames import frames_of
from pipelines.read.stack import Stack, normal_of, stack

# Rank of a series whose number is missing: behind all that have one.
_NO_NUMBER = 1 << 31


@dataclass(frozen=True, eq=False)
class SeriesSummary:
    """What the headers of a series say, once they have been proved to make a stack.

    ``off_axial_degrees`` is the angle between the slice normal and the patient's long axis, 0 to 90.
    ``slice_thickness_mm`` is SliceThickness, or the spacing where that is missing.
    """

    content: SeriesContent
    stack: Stack
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


def summarise(series: SeriesContent) -> SeriesSummary:
    """Read the headers of every instance of a series and prove that they make a stack.

    Raises:
        Refused: it is no CT, a localizer, or no volume; the reason is for a person.
    """
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(read_header, (instance.path for instance in series.instances)))
    if not headers:
        raise Refused("too-few-slices", "the series holds no instance")
    first = headers[0]
    modalities = sorted({str(header.get("Modality", "(none)")) for header in headers})
    if modalities != ["CT"]:
        raise Refused("not-ct", f"Modality is {', '.join(modalities)}")
    if all("LOCALIZER" in _values(header, "ImageType") for header in headers):
        raise Refused("localizer", f"{len(headers)} localizer image(s)")
    frames = [frame for header in headers for frame in frames_of(header)]
    if len({header.SOPInstanceUID for header in headers}) != len(headers):
        raise Refused("duplicate-slices", "several instances share one SOPInstanceUID")
    ordered = stack(frames)
    thickness = _number(_anywhere(first, "SliceThickness"))
    number = _number(first.get("SeriesNumber"))
    return SeriesSummary(
        content=series,
        stack=ordered,
        image_type=frames[0].image_type,
        body_part=str(first.get("BodyPartExamined") or "").strip().upper(),
        kernel=" ".join(_values_of(_anywhere(first, "ConvolutionKernel"))),
        contrast=bool(first.get("ContrastBolusAgent") or first.get("ContrastBolusAgentSequence")),
        slice_thickness_mm=ordered.spacing_mm if thickness is None else thickness,
        series_number=_NO_NUMBER if number is None else int(number),
    )


def _anywhere(dataset: Dataset, keyword: str) -> object:
    """An element of the data set itself, or of the shared or first per-frame functional groups."""
    if keyword in dataset:
        return dataset[keyword].value
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or ())[:1]:
            for element in group:
                if element.VR == "SQ" and element.value and keyword in element.value[0]:
                    return element.value[0][keyword].value
    return None


def _values(dataset: Dataset, keyword: str) -> list[str]:
    return _values_of(dataset.get(keyword))


def _values_of(value: object) -> list[str]:
    if value is None:
        return []
    values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return [str(v).strip().upper() for v in values]


def _number(value: object) -> float | None:
    try:
        return None if value is None else float(str(value))
    except ValueError:
        return None
