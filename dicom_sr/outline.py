"""Where a region or a mark lies on one image, in the coordinates of an SCOORD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import InvalidInput
from node.domain.finding import Mark, Shape
from node.domain.mask import Mask, areas


def slices_to_show(masks: Sequence[Mask]) -> list[int]:
    """For each mask (slices, rows, columns) the slice with its largest cross-section that no mask before it took.

    Viewers write the numbers of a finding beside its outline: two findings on one slice are written over each other.
    A mask that lies only on slices that are taken shares its largest one.
    """
    shown: list[int] = []
    for mask in masks:
        sizes = areas(mask)
        free = sizes.copy()
        free[shown] = 0
        shown.append(int(np.argmax(free if free.any() else sizes)))
    return shown


def bounding_rectangle(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Rectangle about ``mask`` (rows, columns): five (column, row) points, closed.

    Pixels count from the top left corner of the top left pixel, so the centre of pixel 0 lies at 0.5 (PS3.3
    C.18.6.1.1). The rectangle runs along the outer edges of the outermost pixels.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return _rectangle(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)


def _rectangle(top: float, bottom: float, left: float, right: float) -> NDArray[np.float64]:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], np.float64)


_CORNERS = 4  # of a rectangle


@dataclass(frozen=True, eq=False)
class Outline:
    """A mark on slice ``k``: ``points`` (n, 2) as (column, row), as `bounding_rectangle` counts them."""

    k: int
    points: NDArray[np.float64]


def outlines(mark: Mark, shape: tuple[int, int, int]) -> list[Outline]:
    """The mark on every slice that it goes through, in their order; outlines are closed.

    A slice belongs to a box when its centre lies in it; a box between two centres is on the nearer one. What of a box
    lies outside the images is cut off.

    Args:
        shape: (slices, rows, columns) of the volume.

    Raises:
        InvalidInput: the mark lies outside the images, on several slices that are no box, or has another number of
            points than its shape; names the mark.
    """
    points = np.asarray(mark.points, np.float64)
    _number_of_points(mark, points)
    if mark.shape is Shape.BOX:
        return _box(mark, points, shape)
    slices = np.rint(points[:, 0]).astype(int)
    if (slices != slices[0]).any():
        raise InvalidInput(f"{mark.key}.points", "lie on several slices", "Give one mark for each slice")
    upper = np.array(shape) - 0.5
    if (points < -0.5).any() or (points > upper).any():
        raise InvalidInput(f"{mark.key}.points", "lie outside of the images", "Give indices of the volume")
    flat = points[:, :0:-1] + 0.5
    if mark.shape is Shape.POLYGON:
        # OHIF takes a closed line of four corners for an upright rectangle; one more point on its last side is none.
        between = [(flat[-1:] + flat[:1]) / 2] if len(flat) == _CORNERS else []
        flat = np.concatenate([flat, *between, flat[:1]])
    return [Outline(int(slices[0]), flat)]


def _number_of_points(mark: Mark, points: NDArray[np.float64]) -> None:
    fewest, most = {Shape.POINT: (1, 1), Shape.POLYLINE: (2, None), Shape.POLYGON: (3, None), Shape.BOX: (2, 2)}[
        mark.shape
    ]
    number = len(points)
    right = points.shape == (number, 3) and number >= fewest and (most is None or number <= most)
    if not right or not np.isfinite(points).all():
        raise InvalidInput(
            f"{mark.key}.points",
            f"of shape {points.shape} make no {mark.shape}",
            "Give finite (slice, row, column), as many as the shape has",
        )


def _box(mark: Mark, points: NDArray[np.float64], shape: tuple[int, int, int]) -> list[Outline]:
    low, high = points.min(axis=0), points.max(axis=0)
    upper = np.array(shape) - 0.5
    if (high <= -0.5).any() or (low >= upper).any() or (high[1:] - low[1:] <= 0).any():
        raise InvalidInput(f"{mark.key}.points", "make a box without a part in the images", "Give two corners")
    low, high = np.maximum(low, -0.5), np.minimum(high, upper)
    first, last = int(np.ceil(low[0])), int(np.floor(high[0]))
    if first > last:
        first = last = int(np.clip(np.rint((low[0] + high[0]) / 2), 0, shape[0] - 1))
    rectangle = _rectangle(low[1] + 0.5, high[1] + 0.5, low[2] + 0.5, high[2] + 0.5)
    return [Outline(k, rectangle) for k in range(max(first, 0), min(last, shape[0] - 1) + 1)]
