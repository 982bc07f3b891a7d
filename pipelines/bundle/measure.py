"""What can be measured of a region, by name, for any bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from node.domain.finding import Code, Measurement
from node.domain.mask import Mask, areas
from node.domain.volume import Volume
from pipelines.bundle.sidefile import Measure

# What has no meaning in pixels.
_LENGTHS = frozenset({Measure.VOLUME, Measure.AREA, Measure.DIAMETER})

_ML = Code("ml", "UCUM", "milliliter")
_MM = Code("mm", "UCUM", "millimeter")
_ONE = Code("1", "UCUM", "no units")
_UNITS = {"HU": Code("[hnsf'U]", "UCUM", "Hounsfield unit")}
_ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
_SIGNAL = Code("110852", "DCM", "MR signal intensity")
_VOLUME = Code("118565006", "SCT", "Volume")
_VOXEL_SUM = Code("126030", "DCM", "Sum of segmented voxel method for volume")
_PIXEL_VALUE = Code("PIXELVALUE", "99AINODE", "Pixel value")
_AREA = Code("42798000", "SCT", "Area")
_MM2 = Code("mm2", "UCUM", "square millimeter")
_DIAMETER = Code("103339001", "SCT", "Long axis")
_COUNT = Code("COMPONENTS", "99AINODE", "Number of separate parts")


@dataclass(frozen=True)
class _Statistic:
    """A statistic over the voxels of a region; ``derivation`` is of CID 7464."""

    of: Callable[[NDArray[np.float32]], float]
    derivation: Code


_STATISTICS: Mapping[Measure, _Statistic] = {
    Measure.MEAN: _Statistic(lambda v: float(v.mean(dtype=np.float64)), Code("373098007", "SCT", "Mean")),
    Measure.MAXIMUM: _Statistic(lambda v: float(v.max()), Code("56851009", "SCT", "Maximum")),
    Measure.MINIMUM: _Statistic(lambda v: float(v.min()), Code("255605001", "SCT", "Minimum")),
    Measure.DEVIATION: _Statistic(
        lambda v: float(v.std(dtype=np.float64)), Code("386136009", "SCT", "Standard Deviation")
    ),
}


def measure(wanted: tuple[Measure, ...], mask: Mask, volume: Volume) -> Iterator[Measurement]:
    """Measure a region that has voxels; nothing in mm where the image says no spacing.

    Args:
        mask: (slices, rows, columns), on the grid of ``volume``.
    """
    if not wanted:
        return
    slices = np.flatnonzero(areas(mask))
    near = slice(int(slices[0]), int(slices[-1]) + 1)
    inside = np.asarray(mask[near])
    for name in wanted:
        if name in _LENGTHS and not volume.in_mm:
            continue
        if name in _STATISTICS:
            statistic = _STATISTICS[name]
            concept = _ATTENUATION if volume.unit == "HU" else _SIGNAL if volume.in_patient else _PIXEL_VALUE
            value = statistic.of(volume.voxels[near][inside])
            yield Measurement(
                name.value, concept, value, _UNITS.get(volume.unit, _ONE), derivation=statistic.derivation
            )
        elif name is Measure.VOLUME:
            ml = float(np.count_nonzero(inside)) * volume.voxel_ml
            yield Measurement(name.value, _VOLUME, ml, _ML, method=_VOXEL_SUM)
        elif name is Measure.AREA:
            _, down, along = volume.spacing
            yield Measurement(name.value, _AREA, float(np.count_nonzero(inside)) * down * along, _MM2)
        elif name is Measure.COUNT:
            _, count = ndimage.label(inside, ndimage.generate_binary_structure(3, 3))
            yield Measurement(name.value, _COUNT, float(count), _ONE, digits=0)
        elif name is Measure.DIAMETER:
            yield Measurement(name.value, _DIAMETER, longest_diameter_mm(inside, volume), _MM)


def longest_diameter_mm(mask: NDArray[np.bool_], volume: Volume) -> float:
    """The longest diameter within one slice, from outer edge to outer edge, in mm.

    As RECIST measures a lesion in the plane of the scan (Eisenhauer et al., Eur J Cancer 2009;45:228).
    """
    in_plane = volume.affine[:3, 1:3]
    longest = 0.0
    for plane in mask[mask.any(axis=(1, 2))]:
        pixels = np.argwhere(plane)
        corners = (pixels[:, None, :] + [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]).reshape(-1, 2)
        points = corners[_hull(corners)] @ in_plane.T
        longest = max(longest, float(pdist(points).max()))
    return longest


def _hull(points: NDArray[np.float64]) -> NDArray[np.int32]:
    try:
        return np.asarray(ConvexHull(points).vertices)
    except QhullError:  # cannot be for corners of pixels, but for their rounding in a huge image
        return np.arange(len(points), dtype=np.int32)
