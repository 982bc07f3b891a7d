"""Left and right lung, without trachea and main bronchi.

What is connected to what is decided on a coarse grid (about 1.5 mm, where the noise is low); where a lung ends is
decided voxel by voxel on the grid of the CT, by a threshold: there is no smoothing to move the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import ThresholdIntensity
from monai.transforms.post.array import KeepLargestConnectedComponent
from monai.transforms.utility.array import EnsureChannelFirst, EnsureType
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from node.domain.errors import Refused
from node.domain.volume import Volume
from pipelines.lung_density_ct.airway import grow_airway, trachea_seed
from pipelines.lung_density_ct.morphology import (
    Spacing,
    components,
    dilate,
    enclosed_in_plane,
    erode,
    grow_apart,
    plain,
    steps,
)

# Half way between aerated lung and soft tissue: the usual border in densitometry (Kemerink et al., Med Phys
# 1998;25:2432).
AIR_BELOW_HU = -500.0
# Vessels and small nodules surrounded by lung belong to it; larger consolidations and masses do not.
LARGEST_HOLE_MM2 = 300.0

_SCALE_HU = (-1024.0, 3071.0)
_COARSE_MM = 1.5
_BODY_OPENING_MM = 2.0
_AIRWAY_RIM_MM = 1.5
_SMALLEST_PART_ML = 20.0
_SMALLEST_LUNGS_ML = 200.0
# Gas in stomach, bowel or pleura is empty throughout; a lung is not, however severe its emphysema.
_GAS_BELOW_HU = -970.0
_GAS_SHARE = 0.7
_SPLIT_MM = (0.0, 1.5, 3.0, 4.5, 6.0, 8.0)
_BOTH_SIDES = 0.2


@dataclass(frozen=True, eq=False)
class Lungs:
    """Masks are (slices, rows, columns), bool, on the grid of the volume. ``left`` and ``right`` are the patient's."""

    left: NDArray[np.bool_]
    right: NDArray[np.bool_]
    airway_found: bool


@dataclass(frozen=True, eq=False)
class _Coarse:
    hu: torch.Tensor
    affine: NDArray[np.float64]
    spacing: Spacing
    factors: tuple[int, int, int]

    @property
    def voxel_ml(self) -> float:
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0


def segment(volume: Volume, device: torch.device) -> Lungs:
    """Segment the lungs of a chest CT in HU.

    Raises:
        Refused: no air-filled lung of at least `_SMALLEST_LUNGS_ML` inside the body.
    """
    hu = _prepare(volume, device)
    coarse = _coarse(hu, volume)
    body = _body(coarse)
    seed = trachea_seed(coarse.hu, body.opened, coarse.affine, coarse.spacing)
    airway = torch.zeros_like(body.opened)
    if seed is not None:
        tree = grow_airway(coarse.hu, body.opened, seed, coarse.voxel_ml)
        airway = dilate(tree, steps(_AIRWAY_RIM_MM, coarse.spacing))
    lungs = _lung_parts(body, airway, coarse)
    left, right = _sides(lungs, body.opened, coarse)
    # One coarse voxel more on each side: a coarse voxel on the border may be tissue on average and hold lung voxels.
    left, right = grow_apart(left, right, ~airway)
    airway_fine = _fine(airway, coarse, volume)
    air = (hu < AIR_BELOW_HU) & ~airway_fine
    sides = []
    for side in (left, right):
        lung = air & _fine(side, coarse, volume)
        sides.append(lung | (enclosed_in_plane(lung, LARGEST_HOLE_MM2, volume.spacing) & ~airway_fine))
    # A hole of one lung may be a part of the other where they lie against each other.
    return Lungs(sides[0].cpu().numpy(), (sides[1] & ~sides[0]).cpu().numpy(), seed is not None)


def _prepare(volume: Volume, device: torch.device) -> torch.Tensor:
    """CT numbers on the device, limited to the scale of a 12-bit CT: metal and padding must not weigh in averages."""
    prepare = Compose(
        (
            EnsureType(dtype=torch.float32, device=device, track_meta=False),
            EnsureChannelFirst(channel_dim="no_channel"),
            ThresholdIntensity(threshold=_SCALE_HU[0], above=True, cval=_SCALE_HU[0]),
            ThresholdIntensity(threshold=_SCALE_HU[1], above=False, cval=_SCALE_HU[1]),
        )
    )
    prepared: torch.Tensor = prepare(volume.voxels)[0]
    return prepared


def _coarse(hu: torch.Tensor, volume: Volume) -> _Coarse:
    z, y, x = (max(1, round(_COARSE_MM / s)) for s in volume.spacing)
    factors = (z, y, x)
    pooled = functional.avg_pool3d(hu[None, None], factors, ceil_mode=True, count_include_pad=False)[0, 0]
    affine = volume.affine.copy()
    affine[:3, :3] *= factors
    affine[:3, 3] = volume.to_patient((np.array(factors) - 1) / 2)
    a, b, c = (s * f for s, f in zip(volume.spacing, factors, strict=True))
    return _Coarse(pooled, affine, (a, b, c), factors)


def _fine(mask: torch.Tensor, coarse: _Coarse, volume: Volume) -> torch.Tensor:
    for axis, factor in enumerate(coarse.factors):
        mask = mask.repeat_interleave(factor, axis)
    z, y, x = volume.shape
    return mask[:z, :y, :x]


@dataclass(frozen=True, eq=False)
class _Body:
    """The inside of the body, twice.

    ``opened``: thin parts were taken off first, so the table is surely not in it, but a thin chest wall may have been
    opened too, and that slice of lung lost. ``closed``: nothing was taken off, so air inside a table that touches the
    body is in it. Trust a part of ``closed`` when most of it lies in ``opened``.
    """

    opened: torch.Tensor
    closed: torch.Tensor


def _body(coarse: _Coarse) -> _Body:
    """The body with all that it encloses, slice by slice.

    Not in 3D, because the lungs of a scan that starts or ends within them are open to the outside there.
    """
    tissue = coarse.hu >= AIR_BELOW_HU
    _, rows, columns = steps(_BODY_OPENING_MM, coarse.spacing)
    reach = (0, max(1, rows), max(1, columns))
    insides = []
    for mask in (dilate(erode(tissue, reach), reach), tissue):
        if not mask.any():
            raise Refused("no-lungs", f"the volume holds no body: no tissue above {AIR_BELOW_HU:.0f} HU")
        largest = plain(KeepLargestConnectedComponent(connectivity=1)(mask[None])[0])
        insides.append(largest | enclosed_in_plane(largest, float("inf"), coarse.spacing))
    return _Body(*insides)


def _lung_parts(body: _Body, airway: torch.Tensor, coarse: _Coarse) -> torch.Tensor:
    """Air-filled parts inside the body that may be lung: large enough, and not plain gas."""
    air = (coarse.hu < AIR_BELOW_HU) & body.closed & ~airway
    labels, sizes = components(air)
    gas = _count(labels, coarse.hu < _GAS_BELOW_HU)
    surely_inside = _count(labels, body.opened)
    lung = (sizes * coarse.voxel_ml >= _SMALLEST_PART_ML) & (gas <= _GAS_SHARE * sizes) & (surely_inside > 0.5 * sizes)
    lung[0] = False
    found_ml = float(sizes[lung].sum()) * coarse.voxel_ml
    if found_ml < _SMALLEST_LUNGS_ML:
        raise Refused(
            "no-lungs",
            f"{found_ml:.0f} ml of aerated lung were found inside the body; it takes {_SMALLEST_LUNGS_ML:.0f} ml",
        )
    return torch.from_numpy(lung[labels]).to(air.device)


def _sides(lungs: torch.Tensor, inside: torch.Tensor, coarse: _Coarse) -> tuple[torch.Tensor, torch.Tensor]:
    """The patient's left (+x in LPS) and right lung.

    Lungs that touch at a junction line are eroded until they come apart, and every voxel goes to the nearer core.
    """
    x = _patient_x(coarse)
    midline = x[inside].median()
    to_left = x > midline
    for length in _SPLIT_MM:
        core = erode(lungs, steps(length, coarse.spacing))
        labels, sizes = components(core)
        share = _count(labels, to_left) / np.maximum(sizes, 1)
        large = sizes * coarse.voxel_ml >= _SMALLEST_PART_ML
        large[0] = False
        spans = large & (share > _BOTH_SIDES) & (share < 1 - _BOTH_SIDES)
        if not spans.any():
            break
    # A part that spans the midline to the end is one lung that has crossed it: it goes to its larger side.
    on_left = (share >= 0.5)[labels]
    eroded = lungs.cpu().numpy() & ~large[labels]
    if eroded.any():
        nearest = ndimage.distance_transform_edt(
            ~large[labels], sampling=coarse.spacing, return_distances=False, return_indices=True
        )
        on_left = on_left[tuple(nearest)]
    left = lungs & torch.from_numpy(on_left).to(lungs.device)
    return left, lungs & ~left


def _count(labels: NDArray[np.int32], mask: torch.Tensor) -> NDArray[np.int64]:
    """How many voxels of each label lie in ``mask``."""
    return np.bincount(labels.ravel(), mask.cpu().numpy().ravel()).astype(np.int64)


def _patient_x(coarse: _Coarse) -> torch.Tensor:
    """The x coordinate (LPS, mm) of every coarse voxel."""
    axes = [torch.arange(n, device=coarse.hu.device, dtype=torch.float32) for n in coarse.hu.shape]
    a, b, c, d = (float(v) for v in coarse.affine[0])
    return a * axes[0][:, None, None] + b * axes[1][None, :, None] + c * axes[2][None, None, :] + d
