"""A Volume as MONAI wants an image, and a result back on the grid of the Volume.

MONAI's readers give (columns, rows, slices) and an affine to RAS; ours is (slices, rows, columns) and LPS. Both put the
origin in the centre of the first voxel, so the way from one to the other is a permutation and two signs: no voxel is
interpolated, and a sheared grid (tilted gantry) stays sheared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Orientation, SpatialResample
from monai.utils.enums import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from node.domain.errors import Refused
from node.domain.volume import Volume

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSED = [2, 1, 0, 3]
# Of the largest voxel edge: grids that differ by less are one.
_SAME_GRID = 1e-3


def affine_ras(volume: Volume) -> NDArray[np.float64]:
    """4×4; maps (column, row, slice, 1) to patient coordinates in mm, RAS."""
    return np.asarray(_LPS_RAS @ volume.affine[:, _REVERSED])


def index_map(affine: NDArray[np.float64], volume: Volume) -> NDArray[np.float64]:
    """4×4; maps (slice, row, column, 1) of ``volume`` to the index of an image of MONAI's with this affine (RAS)."""
    return np.asarray(np.linalg.inv(affine) @ _LPS_RAS @ volume.affine)


def image_of(
    volumes: Sequence[Volume], *, resample: bool, axcodes: str | None, channel_axis: int | None, planar: bool
) -> MetaTensor:
    """What ``LoadImage`` would give for these series.

    Args:
        volumes: several become channels, on the grid of the first.
        resample: bring the others onto that grid (linear; outside of them is 0); else they must lie on it.
        axcodes: the orientation to turn the image to, for instance LPS; None leaves columns, rows and slices.
        channel_axis: where the channels are, of a single volume too: 0 is what ``ensure_channel_first`` does. None is
            first for several volumes, and no axis of channels for a single one.
        planar: a volume of one slice becomes a two-dimensional image, as a radiograph is read.

    Raises:
        Refused: a series lies in another frame of reference, or on another grid and ``resample`` is not set.
    """
    first = volumes[0]
    channels = [_reversed(moved(each, first, resample=resample).voxels) for each in volumes]
    image = MetaTensor(torch.from_numpy(np.stack(channels)), affine=torch.from_numpy(affine_ras(first)))
    if axcodes is not None:
        image = cast(MetaTensor, Orientation(axcodes=axcodes, labels=None)(image))
    affine, data = image.affine, image.as_tensor()
    if planar and data.shape[3] == 1:
        data = data[..., 0]
    spatial, channel = data.shape[1:], float(channel_axis or 0)
    if channel_axis is not None:
        data = data.movedim(0, channel_axis)
    elif len(channels) == 1:
        data, channel = data[0], float("nan")
    meta = {
        MetaKeys.SPATIAL_SHAPE: np.asarray(spatial),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.ORIGINAL_AFFINE: affine.clone(),
        MetaKeys.ORIGINAL_CHANNEL_DIM: channel,
        "filename_or_obj": first.series_uid,
    }
    return MetaTensor(data, affine=affine, meta=meta)


def back_on_grid(result: MetaTensor, volume: Volume) -> NDArray[np.float32]:
    """A result (channels, columns, rows, slices) as (channels, slices, rows, columns) on the grid of ``volume``.

    One that lies on another grid is resampled by nearest neighbour, which for one that was only turned is exact.
    """
    data = result if result.ndim == 4 else result[..., None]
    if not on_grid(result, volume):
        data = _resampled(data, volume, "nearest")
    return np.ascontiguousarray(np.asarray(data.cpu(), np.float32).transpose(0, 3, 2, 1))


def on_grid(result: MetaTensor, volume: Volume) -> bool:
    """Whether a result lies on the grid of ``volume``, voxel for voxel."""
    shape = (*result.shape[1:], 1)[:3]
    return tuple(shape) == volume.shape[::-1] and _same(np.asarray(result.affine, np.float64), affine_ras(volume))


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= _SAME_GRID * np.abs(other[:3, :3]).max())


def _reversed(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(voxels.transpose(2, 1, 0))


def moved(other: Volume, first: Volume, *, resample: bool) -> Volume:
    """``other`` on the grid of ``first``, where it may lie already. Raises as `image_of`."""
    if other.frame_of_reference_uid != first.frame_of_reference_uid:
        raise Refused(
            "frame-of-reference",
            f"series {other.series_uid} and {first.series_uid} lie in different frames of reference",
        )
    if other.shape == first.shape and _same(affine_ras(other), affine_ras(first)):
        return other
    if not (resample and other.in_patient and first.in_patient):
        raise Refused(
            "other-grid",
            f"series {other.series_uid} lies on another grid than {first.series_uid}, and the model is not set to "
            "resample (ainode.yaml: resample)",
        )
    image = MetaTensor(torch.from_numpy(_reversed(other.voxels))[None], affine=torch.from_numpy(affine_ras(other)))
    resampled = _reversed(np.asarray(_resampled(image, first, "bilinear")[0], np.float32))
    return replace(first, voxels=resampled, series_uid=other.series_uid, unit=other.unit)


def _resampled(image: torch.Tensor, volume: Volume, mode: str) -> torch.Tensor:
    resample = SpatialResample(mode=mode, padding_mode="zeros", align_corners=False, dtype=np.float64)
    return resample(image, dst_affine=torch.from_numpy(affine_ras(volume)), spatial_size=volume.shape[::-1])
