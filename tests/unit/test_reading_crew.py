"""Several processes fill one volume: each slice once, all slices, and errors as if there were one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

from node.domain.errors import InvalidInstance, Refused
from pipelines.phantom import SeriesOptions, write_series
from pipelines.read.crew import fill_volume
from pipelines.read.helper import NUMBER_BYTES, taken_from
from pipelines.read.series import read_headers, stacked
from pipelines.read.slices import Slice
from pipelines.read.volume import slice_of
from tests.builders import change, series_of, tiny_phantom


def _slices(paths: list[Path]) -> list[Slice]:
    found = stacked(read_headers(series_of(paths)))
    headers = {header.text("SOPInstanceUID"): header for header in found.headers}
    slices = []
    for frame in found.stack.frames:
        header = headers[frame.source.sop_instance_uid]
        slices.append(slice_of(header, frame, header.spans()[frame.index]))
    return slices


@pytest.mark.parametrize("multiframe", [False, True])
@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_every_number_of_helpers_gives_the_same_volume(tmp_path: Path, helpers: int, multiframe: bool) -> None:
    phantom = tiny_phantom()
    options = SeriesOptions(transfer_syntax_uid=str(JPEGLSLossless), multiframe=multiframe)
    assert np.array_equal(
        fill_volume(_slices(write_series(phantom, tmp_path, options)), helpers=helpers), phantom.voxels
    )


@pytest.mark.parametrize("helpers", [0, 2])
def test_a_slice_that_no_process_can_decode_is_named(tmp_path: Path, helpers: int) -> None:
    paths = write_series(tiny_phantom(), tmp_path, SeriesOptions(transfer_syntax_uid=str(JPEGLSLossless)))

    def spoil(ds: Dataset) -> None:
        ds.PixelData = ds.PixelData[:60] + bytes(len(ds.PixelData) - 68) + ds.PixelData[-8:]

    change(paths[5], spoil)
    slices = _slices(paths)
    with pytest.raises(Refused, match=slices[5].source.sop_instance_uid) as refused:
        fill_volume(slices, helpers=helpers)
    assert refused.value.code == "undecodable"


@pytest.mark.parametrize("helpers", [0, 2])
def test_a_damaged_file_is_told_from_any_process(tmp_path: Path, helpers: int) -> None:
    paths = write_series(tiny_phantom(), tmp_path, SeriesOptions(transfer_syntax_uid=str(JPEGLSLossless)))
    slices = _slices(paths)
    data = bytearray(paths[20].read_bytes())
    data[-20] ^= 1
    paths[20].write_bytes(data)
    with pytest.raises(InvalidInstance, match="damaged"):
        fill_volume(slices, helpers=helpers)


def test_each_number_is_taken_once(tmp_path: Path) -> None:
    count = 20_000
    queue = os.memfd_create("queue")
    os.write(queue, b"".join(n.to_bytes(NUMBER_BYTES, "little") for n in range(count)))
    os.lseek(queue, 0, os.SEEK_SET)
    call = f"import sys; sys.path[:] = {sys.path!r}; from pipelines.read.helper import taken_from; "
    call += f"print(*taken_from({queue}))"
    others = [
        subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE, pass_fds=[queue]) for _ in range(3)
    ]
    taken = [int(n) for process in others for n in process.communicate()[0].split()]
    taken += taken_from(queue)
    os.close(queue)
    assert sorted(taken) == list(range(count))
