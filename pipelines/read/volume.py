"""A series of CT instances to a `Volume` in HU."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.domain.errors import Refused
from node.domain.study import SeriesContent
from node.domain.volume import Volume
from pipelines.read.decode import Stored, read_instance, stored_frame
from pipelines.read.frames import Frame, frames_of
from pipelines.read.stack import stack

# What lies outside the reconstruction circle has no CT number; it is given that of the emptiest scale, below air.
PADDING_HU = -1024.0
_THREADS = min(8, os.cpu_count() or 1)


def read_volume(series: SeriesContent) -> Volume:
    """Read, check, order and rescale a series.

    Every instance is held against its digest; each slice is rescaled with its own slope and intercept (PS3.3
    C.11.1.1.2). PixelPaddingValue and its range become `PADDING_HU`.

    Raises:
        Refused: the series makes no volume; the reason names the instance, the element or the place.
        InvalidInstance: a stored file is damaged.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        datasets = list(pool.map(read_instance, series.instances))
        frames = [frame for dataset in datasets for frame in frames_of(dataset)]
        by_uid = {dataset.SOPInstanceUID: dataset for dataset in datasets}
        if len(by_uid) != len(datasets):
            raise Refused("duplicate-slices", f"{len(datasets)} instances share {len(by_uid)} SOPInstanceUID(s)")
        ordered = stack(frames)
        voxels = np.empty((len(ordered.frames), *ordered.frames[0].shape), np.float32)

        def fill(k: int) -> None:
            frame = ordered.frames[k]
            rescale(frame, by_uid[frame.source.sop_instance_uid], voxels[k])

        # list() brings an error of any slice back into this thread.
        list(pool.map(fill, range(len(ordered.frames))))
    first = ordered.frames[0]
    return Volume(
        voxels=voxels,
        affine=ordered.affine,
        sources=tuple(frame.source for frame in ordered.frames),
        series_uid=first.series_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
    )


def rescale(frame: Frame, dataset: Dataset, out: NDArray[np.float32]) -> None:
    """Decode one frame into ``out`` (rows, columns), in HU."""
    stored = stored_frame(dataset, frame.index)
    np.multiply(stored, np.float32(frame.slope), out=out, casting="unsafe")
    out += np.float32(frame.intercept)
    padding = _padding(stored, dataset)
    if padding is not None:
        out[padding] = PADDING_HU


def _padding(stored: Stored, dataset: Dataset) -> NDArray[np.bool_] | None:
    """Where the stored value lies between PixelPaddingValue and PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2)."""
    if dataset.get("PixelPaddingValue") is None:
        return None
    ends = [dataset.PixelPaddingValue, dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue)]
    # Writers mix up US and SS here: what counts is the bit pattern, read as the pixels are.
    bits = 8 * stored.dtype.itemsize
    low, high = sorted(_as_pixel(int(end), bits, signed=stored.dtype.kind == "i") for end in ends)
    return np.asarray((stored >= low) & (stored <= high))


def _as_pixel(value: int, bits: int, *, signed: bool) -> int:
    value %= 1 << bits
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value
