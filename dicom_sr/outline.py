"""Where a region lies on one image, in the coordinates of an SCOORD."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def slices_to_show(masks: Sequence[NDArray[np.bool_]]) -> list[int]:
    """For each mask (slices, rows, columns) the slice with its largest cross-section that no mask before it took.

    Viewers write the numbers of a finding beside its outline: two findings on one slice are written over each other.
    A mask that lies only on slices that are taken shares its largest one.
    """
    shown: list[int] = []
    for mask in masks:
        areas = np.array([np.count_nonzero(plane) for plane in mask])
        free = areas.copy()
        free[shown] = 0
        shown.append(int(np.argmax(free if free.any() else areas)))
    return shown


def bounding_rectangle(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Rectangle about ``mask`` (rows, columns): five (column, row) points, closed.

    Pixels count from the top left corner of the top left pixel, so the centre of pixel 0 lies at 0.5 (PS3.3
    C.18.6.1.1). The rectangle runs along the outer edges of the outermost pixels.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], np.float64)
