"""Trachea and main bronchi, by region growing with explosion control."""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms.post.array import FillHoles
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.lung_density_ct.morphology import Spacing, components, plain

# The trachea of an adult is 10 to 27 mm wide (Breatnach et al., AJR 1984;142:903); slices may cut it obliquely, and
# children are smaller.
_TRACHEA_AREA_MM2 = (30.0, 900.0)
_TRACHEA_BELOW_HU = -800.0
_FROM_MIDLINE_MM = 40.0
_MAX_ASPECT = 2.5
_RUN_MM = 15.0  # a trachea goes on; a gas bubble in the oesophagus does not

# Explosion control: raise the threshold until the tree bursts into the lung, and keep the last one before (Mori et al.,
# CVRMed 1995, LNCS 905:542). Trachea and bronchi down to the segments hold less than `_LARGEST_ML`.
_THRESHOLDS_HU = (-975.0, -960.0, -945.0, -930.0, -915.0, -900.0, -875.0, -850.0, -800.0, -750.0)
_LARGEST_ML = 120.0
_BURST = 2.0


def trachea_seed(
    hu: torch.Tensor, inside: torch.Tensor, affine: NDArray[np.float64], spacing: Spacing
) -> NDArray[np.bool_] | None:
    """The uppermost stretch of the trachea: (slices, rows, columns), bool; None where none is found.

    Args:
        hu, inside: CT numbers and the inside of the body, on the grid of ``affine`` (LPS).
    """
    labels, sizes = components((hu < _TRACHEA_BELOW_HU) & inside, in_plane=True)
    fits = _round_and_central(labels, sizes, inside, affine, spacing)
    candidates = fits[labels]
    run = max(2, round(_RUN_MM / spacing[0]))
    downwards = range(hu.shape[0]) if affine[2, 0] < 0 else range(hu.shape[0] - 1, -1, -1)
    chain: list[int] = []
    shared: NDArray[np.bool_] | None = None
    # The intersection over the run stays inside the lumen and cannot drift into something else.
    for k in downwards:
        overlap = candidates[k] if shared is None else shared & candidates[k]
        if overlap.any():
            chain.append(k)
            shared = overlap
        else:
            chain, shared = ([k], candidates[k]) if candidates[k].any() else ([], None)
        if shared is not None and len(chain) == run:
            seed = np.zeros(candidates.shape, np.bool_)
            seed[chain] = shared
            return seed
    return None


def _round_and_central(
    labels: NDArray[np.int32],
    sizes: NDArray[np.int64],
    inside: torch.Tensor,
    affine: NDArray[np.float64],
    spacing: Spacing,
) -> NDArray[np.bool_]:
    """Which of the in-plane components may be a section of the trachea; index 0 (background) is not."""
    area = sizes * spacing[1] * spacing[2]
    fits = (area >= _TRACHEA_AREA_MM2[0]) & (area <= _TRACHEA_AREA_MM2[1])
    fits[0] = False
    body = np.argwhere(inside.cpu().numpy()[::4, ::4, ::4]) * 4
    midline = float(np.median(body @ affine[0, :3])) + affine[0, 3]
    for label, place in enumerate(ndimage.find_objects(labels), start=1):
        if not fits[label]:
            continue
        extent = [(place[n].stop - place[n].start) * spacing[n] for n in (1, 2)]
        middle = np.array([(s.start + s.stop - 1) / 2 for s in place])
        off_midline = abs(float(affine[0, :3] @ middle) + affine[0, 3] - midline)
        fits[label] = max(extent) <= _MAX_ASPECT * min(extent) and off_midline <= _FROM_MIDLINE_MM
    return np.asarray(fits, np.bool_)


def grow_airway(hu: torch.Tensor, inside: torch.Tensor, seed: NDArray[np.bool_], voxel_ml: float) -> torch.Tensor:
    """The tree that grows from ``seed`` at the highest threshold before it bursts into the lung."""
    airway = seed
    volume = 0.0
    for threshold in _THRESHOLDS_HU:
        labels, _ = components((hu < threshold) & inside)
        grown = np.unique(labels[seed])
        tree = np.isin(labels, grown[grown > 0])
        grown_ml = float(np.count_nonzero(tree)) * voxel_ml
        # Below the noise of the lumen the tree is in crumbs: growth counts once the seed is largely in it.
        if grown_ml > _LARGEST_ML or (volume > 0 and grown_ml > _BURST * volume):
            break
        if np.count_nonzero(tree & seed) >= 0.9 * np.count_nonzero(seed):
            volume = grown_ml
        airway = tree | seed
    # Noise leaves holes in the lumen that the threshold cannot reach.
    return plain(FillHoles(connectivity=1)(torch.from_numpy(airway)[None])[0]).to(hu.device)
