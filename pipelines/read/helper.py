"""A process that helps to decode: takes slices from a queue and writes them into memory that it shares.

It imports numpy and the codecs that it needs, and no more: it lives for a second or two.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import pickle
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import Permanent
from pipelines.read.slices import Slice

NUMBER_BYTES = 4  # of the number of a slice in the queue


@dataclass(frozen=True)
class Plan:
    """What is to be done: the slices of a volume of ``shape`` (slices, rows, columns)."""

    slices: tuple[Slice, ...]
    shape: tuple[int, int, int]

    @property
    def shared_bytes(self) -> int:
        """Length of the memory that all share: float32 voxels, then a byte for each slice, 1 once it is done."""
        return _voxel_bytes(self) + len(self.slices)


def shared(plan: Plan, memory: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Voxels (slices, rows, columns) and done (slices,) in the memory behind a file descriptor."""
    mapped = mmap.mmap(memory, plan.shared_bytes)
    voxels = np.frombuffer(mapped, np.float32, int(np.prod(plan.shape))).reshape(plan.shape)
    return voxels, np.frombuffer(mapped, np.uint8, len(plan.slices), _voxel_bytes(plan))


def taken_from(queue: int) -> Iterator[int]:
    """Numbers of slices that nobody else has taken, until none is left."""
    while True:
        # All processes share the position of this file. Linux makes a read and its step one for files that have a
        # name; for those in memory alone two processes may read the same number.
        fcntl.lockf(queue, fcntl.LOCK_EX)
        number = os.read(queue, NUMBER_BYTES)
        fcntl.lockf(queue, fcntl.LOCK_UN)
        if not number:
            return
        yield int.from_bytes(number, "little")


def work(plan: Plan, voxels: NDArray[np.float32], done: NDArray[np.uint8], numbers: Iterable[int]) -> None:
    """Fill the slices of these numbers.

    Raises:
        Refused, InvalidInstance: as of `Slice.fill`.
    """
    for n in numbers:
        plan.slices[n].fill(voxels[n])
        done[n] = 1


def main(orders: int, memory: int, queue: int) -> None:
    """Help until the queue is empty. A slice that cannot be read is left undone: the parent meets its error itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its helpers
    parent = os.getppid()
    plan: Plan = pickle.loads(os.pread(orders, os.fstat(orders).st_size, 0))  # noqa: S301  (from the parent's memory)
    voxels, done = shared(plan, memory)
    with suppress(Permanent):
        work(plan, voxels, done, itertools.takewhile(lambda _: os.getppid() == parent, taken_from(queue)))


def _voxel_bytes(plan: Plan) -> int:
    return int(np.prod(plan.shape)) * np.dtype(np.float32).itemsize
