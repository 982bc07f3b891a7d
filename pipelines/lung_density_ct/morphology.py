"""Morphology of boolean masks on the configured device, in millimetres where a length is meant.

Masks are (slices, rows, columns), bool tensors.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.utils.type_conversion import convert_to_tensor
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

Spacing = tuple[float, float, float]

_IN_PLANE = np.zeros((3, 3, 3), np.bool_)
_IN_PLANE[1, 1, :] = _IN_PLANE[1, :, 1] = True


def steps(length_mm: float, spacing: Spacing) -> tuple[int, int, int]:
    """``length_mm`` in voxels along each axis, rounded."""
    z, y, x = (round(length_mm / s) for s in spacing)
    return z, y, x


def plain(mask: torch.Tensor) -> torch.Tensor:
    """A mask from a MONAI transform as a bool tensor without metadata, which costs time in every later step."""
    converted: torch.Tensor = convert_to_tensor(mask, dtype=torch.bool, track_meta=False)
    return converted


def dilate(mask: torch.Tensor, reach: tuple[int, int, int]) -> torch.Tensor:
    """Dilate by a box that reaches ``reach`` voxels to each side."""
    grown = mask[None, None].float()
    for axis, n in enumerate(reach):
        if n:
            kernel, padding = [1, 1, 1], [0, 0, 0]
            kernel[axis], padding[axis] = 2 * n + 1, n
            grown = functional.max_pool3d(grown, kernel, stride=1, padding=padding)
    return grown[0, 0] > 0.5


def erode(mask: torch.Tensor, reach: tuple[int, int, int]) -> torch.Tensor:
    """Erode by the same box; what lies outside the volume does not erode."""
    return ~dilate(~mask, reach)


def grow_apart(first: torch.Tensor, second: torch.Tensor, within: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Grow two disjoint masks by one voxel into ``within``; they stay disjoint."""
    free = within & ~first & ~second
    more_first = dilate(first, (1, 1, 1)) & free
    return first | more_first, second | (dilate(second, (1, 1, 1)) & free & ~more_first)


def components(mask: torch.Tensor, *, in_plane: bool = False) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Face-connected components: labels from 1, and the voxel count of each label (index 0 is the background)."""
    structure = _IN_PLANE if in_plane else None
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask.cpu().numpy(), structure, output=labels)
    return labels, np.bincount(labels.ravel())


def enclosed_in_plane(mask: torch.Tensor, largest_mm2: float, spacing: Spacing) -> torch.Tensor:
    """What is not ``mask`` but surrounded by it within its slice, in pieces of up to ``largest_mm2``."""
    labels, sizes = components(~mask, in_plane=True)
    small = sizes * spacing[1] * spacing[2] <= largest_mm2
    small[0] = False
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        small[np.unique(edge)] = False
    return torch.from_numpy(small[labels]).to(mask.device)
