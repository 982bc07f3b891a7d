"""Masks that cost nothing: one label of a label map, as an array of truth values made only where it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A number for every voxel, 0 where none of them is: ``labels`` is (slices, rows, columns).

    Thirty masks of a large CT take 2 GB as arrays of truth values; as labels they take 70 MB, and what is counted is
    counted once for all of them.
    """

    labels: Labels

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Voxels of every label on every slice, (slices, labels)."""
        numbers = int(self.labels.max(initial=0)) + 1
        return np.stack([np.bincount(plane.reshape(-1), minlength=numbers) for plane in self.labels])

    def mask(self, number: int) -> LabelMask:
        """Where the label ``number`` is."""
        return LabelMask(self, number)


@dataclass(frozen=True, eq=False)
class LabelMask:
    """Where one label is: indexed, or taken by ``numpy.asarray``, like an array of bool (slices, rows, columns)."""

    of: LabelMap
    number: int

    dtype = np.dtype(np.bool_)
    ndim = 3

    @property
    def shape(self) -> tuple[int, ...]:
        """(slices, rows, columns)."""
        return self.of.labels.shape

    @property
    def areas(self) -> NDArray[np.int64]:
        """Voxels on every slice."""
        areas = self.of.areas
        return areas[:, self.number] if self.number < areas.shape[1] else np.zeros(len(areas), np.int64)

    def any(self) -> bool:
        """Whether there is a voxel."""
        return bool(self.areas.any())

    def __getitem__(self, index: Any) -> Any:
        return self.of.labels[index] == self.number

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a mask of a label map is made anew wherever it is asked for")
        mask = np.asarray(self.of.labels == self.number)
        return mask if dtype is None else mask.astype(dtype, copy=False)


Mask: TypeAlias = NDArray[np.bool_] | LabelMask


def areas(mask: Mask) -> NDArray[np.int64]:
    """Voxels of ``mask`` on every slice."""
    if isinstance(mask, LabelMask):
        return mask.areas
    return np.array([np.count_nonzero(plane) for plane in mask], np.int64)
