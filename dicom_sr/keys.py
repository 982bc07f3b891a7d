"""Which slices show the findings: the key images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.domain.finding import Findings, Map, Mark, Shape
from node.domain.mask import areas as voxels

MOST_KEYS = 8
# A slice that adds less than this to what is shown already is no key image; 1 is a finding that no other slice shows.
_LEAST_GAIN = 0.5
_FAR_FROM_ITS_MIDDLE = 0.6  # how well a slice shows a box that only passes through it


def areas(findings: Findings) -> NDArray[np.int64]:
    """Voxels of each region on each slice: (regions, slices)."""
    counted = [voxels(region.mask) for region in findings.regions]
    return np.array(counted, np.int64).reshape(len(counted), findings.volume.shape[0])


def slices_of(mark: Mark, slices: int) -> range:
    """Slices on which ``mark`` is drawn, of a volume that has ``slices``."""
    first, last = float(mark.points[:, 0].min()), float(mark.points[:, 0].max())
    if mark.shape is Shape.BOX and last > first:
        low, high = int(np.ceil(first)), int(np.floor(last))
    else:
        low = high = int(np.floor(first + 0.5))
    return range(max(low, 0), min(high, slices - 1) + 1)


def shown_share(heat: Map, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where ``values`` of a map lie in the range that pictures show: 0 at its lower end and below, 1 at its upper end.

    What is no number is not shown.
    """
    low, high = heat.shown
    share = (values - np.float32(low)) * np.float32(1 / max(high - low, 1e-9))
    return np.clip(np.nan_to_num(share, copy=False, nan=0.0), 0, 1, out=share)


def key_slices(findings: Findings, area: NDArray[np.int64] | None = None, most: int = MOST_KEYS) -> list[int]:
    """At most ``most`` slices that together show every finding at its largest, in the order of the volume.

    They are taken one by one, each the one that adds most to what the others show, so that findings that lie on one
    slice share it. Where nothing was found it is the middle slice.

    Args:
        area: of `areas`, where it is known.
    """
    shown = _shown(findings, areas(findings) if area is None else area)
    best = np.zeros(len(shown))
    chosen: list[int] = []
    while len(chosen) < most and len(shown):
        gains = np.maximum(shown - best[:, None], 0).sum(axis=0)
        k = int(gains.argmax())
        if gains[k] < (_LEAST_GAIN if chosen else 1e-6):
            break
        chosen.append(k)
        best = np.maximum(best, shown[:, k])
    return sorted(chosen) or [findings.volume.shape[0] // 2]


def _shown(findings: Findings, area: NDArray[np.int64]) -> NDArray[np.float64]:
    """How well each slice shows each finding, 0 to 1: (findings, slices)."""
    slices = findings.volume.shape[0]
    rows = [row / row.max() for row in area if row.max() > 0]
    for mark in findings.marks:
        row = np.zeros(slices)
        where = slices_of(mark, slices)
        row[where.start : where.stop] = _FAR_FROM_ITS_MIDDLE
        if where:
            row[where[len(where) // 2]] = 1.0
        rows.append(row)
    for heat in findings.maps:
        peaks = np.array([np.fmax.reduce(plane, axis=None) for plane in heat.values], np.float32)
        rows.append(shown_share(heat, peaks).astype(np.float64))
    return np.array(rows).reshape(len(rows), slices)
