"""Whether the headers of a study show that it is complete, as far as headers can.

DICOM has no message for "that was all". What headers show is whether the slices of a series fill one grid without a
hole, and whether its InstanceNumbers (0020,0013) run from 1 without one. They cannot show a series that is still to
come, nor slices missing from the end of a series at which its numbers end too, unless ImagesInAcquisition (0020,1002)
tells. So this is evidence only where the sender has said by itself that it is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from node.domain.volume import SPACING_TOLERANCE_MM, SPACING_TOLERANCE_SHARE

# Fewer slices are equally spaced by chance: two always are.
MIN_SLICES = 3
# A few dose reports or key images beside a scan are by-products; more of them are contents of their own.
MAX_BY_PRODUCTS = 10

_PARALLEL = 1e-3  # largest difference of a direction cosine within one orientation

_STACKS = frozenset(("CT", "MR", "PT"))
# Modalities of documents and annotations (PS3.3 C.7.3.1.1.1): they refer to images and are none.
_DOCUMENTS = frozenset(("SR", "PR", "KO", "DOC", "AU", "RTSTRUCT", "RTPLAN", "RTRECORD", "PLAN", "REG", "FID"))
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kin, .7.1 to .7.4
# Enhanced and legacy converted enhanced CT, MR and PET (PS3.6 table A-1): one instance holds a whole acquisition.
_ENHANCED = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{suffix}" for suffix in ("2.1", "2.2", "4.1", "4.3", "4.4", "128.1", "130")
)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a header says of the place of its instance in the series; None where it is silent or makes no sense.

    ``position`` is ImagePositionPatient in mm and ``orientation`` ImageOrientationPatient, LPS (PS3.3 C.7.6.2.1.1).
    ``parts`` is InConcatenationTotalNumber (0020,9163); ``in_concatenation`` whether the instance is a part at all.
    """

    sop_class_uid: str
    modality: str = ""
    image_type: tuple[str, ...] = ()
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    instance_number: int | None = None
    acquisition_number: int | None = None
    images_in_acquisition: int | None = None
    frames: int | None = None
    in_concatenation: bool = False
    parts: int | None = None


class Standing(Enum):
    """What a series says about the completeness of its study."""

    COMPLETE = "complete"  # as far as headers show
    OPEN = "open"  # something is missing, or cannot be judged
    SILENT = "silent"  # by its kind it neither proves nor prevents


@dataclass(frozen=True)
class SeriesVerdict:
    """``reason`` is for a person."""

    standing: Standing
    reason: str


@dataclass(frozen=True)
class StudyVerdict:
    """``series`` has the reason of every series by its SeriesInstanceUID."""

    complete: bool
    reason: str
    series: Mapping[str, str]


class _Open(Exception):
    """The series is not complete; the text says why."""


def judge_study(series: Mapping[str, Sequence[ImageFacts]]) -> StudyVerdict:
    """Complete when at least one series is, and every other one too or by its kind silent."""
    verdicts = {uid: judge_series(images) for uid, images in series.items()}
    reasons = {uid: verdict.reason for uid, verdict in verdicts.items()}
    for uid, verdict in verdicts.items():
        if verdict.standing is Standing.OPEN:
            return StudyVerdict(False, f"series {uid}: {verdict.reason}", reasons)
    complete = sum(verdict.standing is Standing.COMPLETE for verdict in verdicts.values())
    if not complete:
        return StudyVerdict(False, "no series whose geometry could show that it is complete", reasons)
    return StudyVerdict(True, f"{complete} series geometrically complete", reasons)


def judge_series(images: Sequence[ImageFacts]) -> SeriesVerdict:
    """Judge one series by the headers of all its instances, at least one, in any order."""
    if by_product := _by_product(images):
        return SeriesVerdict(Standing.SILENT, by_product)
    scan = [image for image in images if "LOCALIZER" not in image.image_type]
    if not scan:
        return SeriesVerdict(Standing.SILENT, f"{len(images)} localizer image(s)")
    try:
        said = _enhanced(scan) if scan[0].sop_class_uid in _ENHANCED else _stacks(scan)
        _numbers(images)
        _acquisitions(images)
    except _Open as missing:
        return SeriesVerdict(Standing.OPEN, str(missing))
    return SeriesVerdict(Standing.COMPLETE, said)


def _by_product(images: Sequence[ImageFacts]) -> str | None:
    """What the series is, where it is a few documents or captures that lie beside a scan."""
    if len(images) > MAX_BY_PRODUCTS:
        return None
    if all(image.modality in _DOCUMENTS for image in images):
        return f"{len(images)} object(s) of modality {images[0].modality}"
    if all(f"{image.sop_class_uid}.".startswith(f"{_SECONDARY_CAPTURE}.") for image in images):
        return f"{len(images)} secondary capture(s)"
    return None


def _numbers(images: Sequence[ImageFacts]) -> None:
    """InstanceNumbers run from 1 without a hole; each may occur several times, but all equally often.

    Scanners that number every phase or echo anew repeat them.
    """
    numbers = Counter(image.instance_number for image in images)
    if None in numbers:
        raise _Open(f"{numbers[None]} of {len(images)} instances have no InstanceNumber")
    held = {number: times for number, times in numbers.items() if number is not None}
    if min(held) != 1:
        raise _Open(f"InstanceNumber begins at {min(held)}")
    if max(held) != len(held):
        absent = next(n for n in range(1, max(held)) if n not in held)
        raise _Open(f"InstanceNumber {absent} is missing below {max(held)}")
    if min(held.values()) != max(held.values()):
        raise _Open("some InstanceNumbers occur more often than others")


def _acquisitions(images: Sequence[ImageFacts]) -> None:
    """No acquisition is said to have resulted in more images than are there."""
    held = Counter(image.acquisition_number for image in images)
    for image in images:
        if (image.images_in_acquisition or 0) > held[image.acquisition_number]:
            raise _Open(f"{held[image.acquisition_number]} of {image.images_in_acquisition} images of an acquisition")


def _enhanced(images: Sequence[ImageFacts]) -> str:
    """An enhanced instance that is whole has all its frames; a concatenation (PS3.3 C.7.6.16.2.2.4) all its parts."""
    frames = 0
    for image in images:
        if image.sop_class_uid not in _ENHANCED or not image.frames:
            raise _Open("enhanced and other instances are mixed, or NumberOfFrames is missing")
        if image.in_concatenation and image.parts != len(images):
            raise _Open(f"{len(images)} of {image.parts or 'an unknown number of'} parts of a concatenation")
        frames += image.frames
    return f"{len(images)} enhanced instance(s) with {frames} frames"


def _stacks(images: Sequence[ImageFacts]) -> str:
    """Every orientation is a gapless stack, each of its positions taken equally often (phases, echoes, b-values)."""
    if images[0].modality not in _STACKS:
        raise _Open(f"modality {images[0].modality or '(none)'} has no geometry that could show a hole")
    places = [(i.position, i.orientation) for i in images if i.position is not None and i.orientation is not None]
    if len(places) != len(images):
        raise _Open(f"{len(images) - len(places)} of {len(images)} instances have no position or orientation")
    positions = np.array([position for position, _ in places])
    orientations = np.array([orientation for _, orientation in places])
    stacks = [_stack(positions[chosen], orientations[chosen][0]) for chosen in _by_orientation(orientations)]
    return "; ".join(sorted(set(stacks))) if len(stacks) == 1 else f"{len(stacks)} stacks: " + "; ".join(stacks)


def _by_orientation(orientations: NDArray[np.float64]) -> Iterable[NDArray[np.int64]]:
    """Indices of the parallel ones, group by group."""
    left = np.arange(len(orientations))
    while left.size:
        alike = np.abs(orientations[left] - orientations[left[0]]).max(axis=1) <= _PARALLEL
        yield left[alike]
        left = left[~alike]


def _stack(positions: NDArray[np.float64], orientation: NDArray[np.float64]) -> str:
    """``positions``: (n, 3); ``orientation``: (6,). What the stack is, in words."""
    normal = np.cross(orientation[:3], orientation[3:])
    along = np.sort(positions @ normal)
    begins = np.flatnonzero(np.diff(along, prepend=-np.inf) > SPACING_TOLERANCE_MM)
    places, times = along[begins], np.diff(begins, append=len(along))
    if len(places) < MIN_SLICES:
        raise _Open(f"{len(places)} slice position(s), fewer than {MIN_SLICES}")
    gaps = np.diff(places)
    # The lower median: with a hole in a stack of three, the mean of the two gaps would be neither.
    spacing = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    odd = np.flatnonzero(np.abs(gaps - spacing) > SPACING_TOLERANCE_MM + SPACING_TOLERANCE_SHARE * spacing)
    if odd.size:
        gap, at = float(gaps[odd[0]]), float(places[odd[0]])
        if gap < 1.5 * spacing:
            raise _Open(f"slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart, first off at {at:.1f} mm")
        raise _Open(f"hole at {at + spacing:.1f} mm ({gap:.1f} mm between slices, {spacing:.1f} mm elsewhere)")
    if times.min() != times.max():
        rare = float(places[times.argmin()])
        raise _Open(f"{times.min()} to {times.max()} images at a position, the fewest at {rare:.1f} mm")
    phases = f", {times[0]} images at each" if times[0] > 1 else ""
    return f"{len(places)} slices {spacing:.2f} mm apart{phases}"
