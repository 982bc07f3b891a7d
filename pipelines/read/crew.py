"""All slices of a volume into one array, on every core.

Reading, digests and arithmetic let other threads run, so threads share them. Codecs do not: they hold the interpreter
lock for milliseconds a frame. There other processes help (`pipelines.read.helper`), that write into the same memory and
take their work from the same queue. This process does its share from the first moment, so that waiting for the start of
a helper costs nothing; and what a helper leaves undone, whatever happened to it, is done here.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray

from pipelines.read.codecs import locked_seconds
from pipelines.read.helper import NUMBER_BYTES, Plan, shared, taken_from, work
from pipelines.read.slices import Slice

_CORES = min(8, len(os.sched_getaffinity(0)))

# Decoding that takes less is not worth a helper, whose start takes 0.15 s of a core.
_WORTH_HELP_SECONDS = 0.5
# Longer than any one slice takes; a codec that hangs is not waited for.
_LAST_SLICE_SECONDS = 60.0


def fill_volume(
    slices: Sequence[Slice], checks: Sequence[Callable[[], None]] = (), helpers: int | None = None
) -> NDArray[np.float32]:
    """Read ``slices``, all of one shape, into a new array (slices, rows, columns), and run ``checks`` beside.

    Args:
        helpers: processes that help to decode; by default one for each further core, where it is worth their start.

    Raises:
        Refused, InvalidInstance: as of `Slice.fill` and of the checks.
    """
    first = slices[0].pixel
    plan = Plan(tuple(slices), (len(slices), first.rows, first.columns))
    if helpers is None:
        helped = sum(locked_seconds(each.pixel) for each in slices) > _WORTH_HELP_SECONDS
        helpers = _CORES - 1 if helped else 0
    with ThreadPoolExecutor(_CORES) as pool:
        checked = [pool.submit(check) for check in checks]
        voxels = _with_helpers(plan, helpers) if helpers else _with_threads(plan, pool)
        for each in checked:
            each.result()
    return voxels


def _with_threads(plan: Plan, pool: ThreadPoolExecutor) -> NDArray[np.float32]:
    voxels = np.empty(plan.shape, np.float32)
    # list() brings an error of any slice back into this thread.
    list(pool.map(Slice.fill, plan.slices, voxels))
    return voxels


def _with_helpers(plan: Plan, helpers: int) -> NDArray[np.float32]:
    with ExitStack() as stack:
        memory = stack.enter_context(_memory(plan.shared_bytes))
        orders = stack.enter_context(_memory())
        queue = stack.enter_context(_memory())
        with open(orders, "wb", closefd=False) as file:
            pickle.dump(plan, file)
        with open(queue, "wb", closefd=False) as file:
            file.write(b"".join(n.to_bytes(NUMBER_BYTES, "little") for n in range(len(plan.slices))))
        os.lseek(queue, 0, os.SEEK_SET)
        for _ in range(helpers):
            stack.enter_context(_helper(orders, memory, queue))
        voxels, done = shared(plan, memory)
        work(plan, voxels, done, taken_from(queue))
    for n in np.flatnonzero(done == 0):
        plan.slices[n].fill(voxels[n])
    return voxels


@contextmanager
def _memory(size: int = 0) -> Iterator[int]:
    """A file that is nowhere but in memory, and shared with the processes that it is passed on to."""
    descriptor = os.memfd_create("ainode")
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _helper(*descriptors: int) -> Iterator[None]:
    """A helper for as long as the block runs and it has something to finish; ended at once if the block fails."""
    # Not multiprocessing: it would import the program's main module again, and a job's process may have no children.
    call = f"import sys; sys.path[:] = {sys.path!r}; from pipelines.read.helper import main; main{descriptors}"
    process = subprocess.Popen([sys.executable, "-c", call], stdin=subprocess.DEVNULL, pass_fds=descriptors)  # noqa: S603
    try:
        yield
        process.wait(_LAST_SLICE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()
