"""Frames in order along their normal, with proof that they are equally spaced, parallel and complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import Refused
from node.domain.volume import SPACING_TOLERANCE_MM, SPACING_TOLERANCE_SHARE
from pipelines.read.frames import Frame

# A tilted stack stays on its own sheared grid: volumes are right by the determinant, and results lie on the source
# planes. Gantries tilt by up to 30°; beyond, the stack is something else.
MAX_TILT_DEGREES = 30.0
_PARALLEL = 1e-3  # largest difference of a direction cosine between slices
_GAPS_NAMED = 3


@dataclass(frozen=True, eq=False)
class Stack:
    """``frames`` in order along ``cross(row, column)``; ``affine`` as in `node.domain.volume.Volume`."""

    frames: tuple[Frame, ...]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> float:
        """Distance between neighbouring slices along their normal."""
        return abs(float(self.affine[:3, 0] @ normal_of(self.frames[0])))

    @property
    def coverage_mm(self) -> float:
        """From the first to the last slice along the normal, both included."""
        return self.spacing_mm * len(self.frames)


def normal_of(frame: Frame) -> NDArray[np.float64]:
    """The unit normal of a frame's plane, LPS."""
    return np.asarray(np.cross(frame.cosines[0], frame.cosines[1]))


def stack(frames: Sequence[Frame]) -> Stack:
    """Order frames and prove that they make a volume.

    FrameOfReferenceUID is not compared: a series has one (PS3.3 A.1.2.5), but de-identification tools in wide use give
    each instance another, and the positions prove more than it would.

    Raises:
        Refused: mixed grids or orientations, duplicates, gaps (where, in mm along the normal, and how many slices),
            unequal spacing, slices out of line, or a tilt of more than `MAX_TILT_DEGREES`.
    """
    if len(frames) < 2:
        raise Refused("too-few-slices", f"{len(frames)} slice(s) make no volume")
    _same_grid(frames)
    first = frames[0]
    normal = normal_of(first)
    along = np.array([frame.position @ normal for frame in frames])
    order = np.argsort(along, kind="stable")
    ordered = tuple(frames[n] for n in order)
    _equal_spacing(ordered, along[order])
    steps = np.diff(np.array([frame.position for frame in ordered]), axis=0)
    step = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    _in_line(steps, step, normal)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.cosines[1] * first.pixel_spacing[0]
    affine[:3, 2] = first.cosines[0] * first.pixel_spacing[1]
    affine[:3, 3] = ordered[0].position
    return Stack(ordered, affine)


def _same_grid(frames: Sequence[Frame]) -> None:
    first = frames[0]
    for frame in frames[1:]:
        name = frame.source.sop_instance_uid
        if np.abs(frame.cosines - first.cosines).max() > _PARALLEL:
            raise Refused(
                "mixed-orientations", f"ImageOrientationPatient of instance {name} differs from that of others"
            )
        if frame.shape != first.shape:
            raise Refused(
                "mixed-grids", f"instance {name} has {frame.shape} rows and columns, others have {first.shape}"
            )
        if not np.allclose(frame.pixel_spacing, first.pixel_spacing, rtol=1e-4, atol=0):
            raise Refused("mixed-grids", f"PixelSpacing of instance {name} differs from that of others")


def _equal_spacing(ordered: Sequence[Frame], along: NDArray[np.float64]) -> None:
    gaps = np.diff(along)
    doubles = np.flatnonzero(gaps < SPACING_TOLERANCE_MM)
    if doubles.size:
        twins = ordered[doubles[0]].source, ordered[doubles[0] + 1].source
        raise Refused(
            "duplicate-slices",
            f"{doubles.size} position(s) are taken twice, the first at {along[doubles[0]]:.2f} mm by "
            f"{' and '.join(_label(s.sop_instance_uid, s.frame_number) for s in twins)}",
        )
    spacing = float(np.median(gaps))
    tolerance = SPACING_TOLERANCE_MM + SPACING_TOLERANCE_SHARE * spacing
    odd = np.flatnonzero(np.abs(gaps - spacing) > tolerance)
    if not odd.size:
        return
    missing = np.rint(gaps[odd] / spacing) - 1
    if (missing >= 1).all() and (np.abs(gaps[odd] - (missing + 1) * spacing) <= tolerance * (missing + 1)).all():
        places = [
            f"{int(m)} between {along[n]:.2f} and {along[n + 1]:.2f} mm"
            for n, m in zip(odd[:_GAPS_NAMED], missing, strict=False)
        ]
        more = f" and {odd.size - _GAPS_NAMED} more gaps" if odd.size > _GAPS_NAMED else ""
        raise Refused(
            "missing-slices",
            f"{int(missing.sum())} slice(s) are missing at a spacing of {spacing:.2f} mm: {', '.join(places)}{more}",
        )
    raise Refused(
        "unequal-spacing",
        f"slices lie {gaps.min():.3f} to {gaps.max():.3f} mm apart, first off at {along[odd[0]]:.2f} mm; "
        f"a volume needs equal spacing",
    )


def _in_line(steps: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    spacing = float(step @ normal)
    aside = float(np.linalg.norm(step - spacing * normal))
    tilt = float(np.degrees(np.arctan2(aside, spacing)))
    if np.abs(steps - step).max() > SPACING_TOLERANCE_MM + SPACING_TOLERANCE_SHARE * spacing:
        raise Refused("not-in-line", "the slices are shifted against each other within their planes, unevenly")
    if tilt > MAX_TILT_DEGREES:
        raise Refused(
            "gantry-tilt",
            f"the stack leans by {tilt:.1f}° from its slice normal; up to {MAX_TILT_DEGREES:.0f}° is read",
        )


def _label(sop_instance_uid: str, frame_number: int | None) -> str:
    return sop_instance_uid if frame_number is None else f"{sop_instance_uid} frame {frame_number}"
