"""Voxels and their place in the patient, with the instance behind every slice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import Refused

# Spacing may differ between neighbours by rounding of decimal strings only; beyond this it is a hole or a double.
SPACING_TOLERANCE_MM = 0.01
SPACING_TOLERANCE_SHARE = 0.01


@dataclass(frozen=True)
class SliceSource:
    """The instance, and for a multi-frame instance the frame (from 1, PS3.3), behind one slice of a Volume."""

    sop_instance_uid: str
    sop_class_uid: str
    frame_number: int | None = None


@dataclass(frozen=True, eq=False)
class Volume:
    """A stack of equally spaced parallel slices.

    ``voxels``: (slices, rows, columns), float32, in ``unit``. ``affine``: 4×4; maps (slice, row, column, 1), in index
    units from the centre of the first voxel, to patient coordinates in mm, LPS (PS3.3 C.7.6.2.1.1). Slices run along
    ``cross(row cosines, column cosines)``, so index 0 is the lowest along that normal, whatever the order of arrival;
    where a gantry was tilted they are shifted evenly within their planes, and the affine is sheared.
    ``sources[k]`` is the instance (and frame) behind ``voxels[k]``.

    ``in_patient`` is False for images that have no place in the patient, a radiograph or an angiogram: the affine then
    maps to mm (or pixels, where the image has no spacing) within the image, slices are its frames, and
    ``frame_of_reference_uid`` is empty. ``in_mm`` is False where it maps to pixels, so that nothing has a length.

    Raises:
        Refused: shapes, spacing or orientation do not make a volume.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    sources: tuple[SliceSource, ...]
    series_uid: str
    frame_of_reference_uid: str
    unit: str = "HU"
    in_patient: bool = True
    in_mm: bool = True

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3 or min(self.voxels.shape) < 1:
            raise Refused("no-volume", f"voxels have the shape {self.voxels.shape}, not (slices, rows, columns)")
        if self.voxels.dtype != np.float32:
            raise Refused("no-volume", f"voxels are {self.voxels.dtype}, not float32")
        if len(self.sources) != self.voxels.shape[0]:
            raise Refused("no-volume", f"{len(self.sources)} sources for {self.voxels.shape[0]} slices")
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise Refused("no-volume", "the affine is not a finite 4×4 matrix")
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-9:
            raise Refused("no-volume", "the affine has no volume: two directions or spacings coincide")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        slices, rows, columns = self.voxels.shape
        return slices, rows, columns

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring slices, rows and columns.

        That of slices is taken along their normal: where a gantry tilts, one slice is shifted against the next.
        """
        y, x = (float(np.linalg.norm(self.affine[:3, n])) for n in (1, 2))
        area = float(np.linalg.norm(np.cross(self.affine[:3, 1], self.affine[:3, 2])))
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / area, y, x

    @cached_property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def frame(self, k: int) -> Volume:
        """Slice ``k`` by itself."""
        affine = self.affine.copy()
        affine[:3, 3] += k * affine[:3, 0]
        return replace(self, voxels=self.voxels[k : k + 1], affine=affine, sources=self.sources[k : k + 1])

    def to_patient(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (…, 3) indices (slice, row, column) to (…, 3) patient coordinates in mm, LPS."""
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]
