"""Who reads: each as its documentation shows, from a folder of files to an array of HU.

    python bench/reading/readers.py READER FOLDER

reads when it gets a line on standard input, after a first read of a few slices that loads what is loaded late. It
answers with the seconds that the read took and what came out, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BENCH = Path(__file__).resolve().parents[1]
_CLEAR_PEAK = "5"  # proc(5): resets the peak of the resident set

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Reader:
    """``start`` imports what the reader needs and returns its function from a folder to an array, and its version."""

    key: str
    title: str
    start: Callable[[], tuple[Read, str]]


def _ainode() -> tuple[Read, str]:
    from node import __version__
    from node.offline import study_of
    from pipelines.read.volume import read_volume

    # What a job is given: the files with the digests of the receiver. Reading checks them.
    known = {folder: study_of(folder).series[0] for folder in _folders()}
    return lambda folder: read_volume(known[folder]).voxels, __version__


def _simpleitk() -> tuple[Read, str]:
    import SimpleITK

    def read(folder: Path) -> Any:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        return SimpleITK.GetArrayFromImage(reader.Execute())

    return read, SimpleITK.Version.VersionString()


def _monai() -> tuple[Read, str]:
    import monai
    from monai.data import PydicomReader

    def read(folder: Path) -> Any:
        reader = PydicomReader()
        return reader.get_data(reader.read(folder))[0]

    return read, monai.__version__


def _plain_pydicom() -> tuple[Read, str]:
    import numpy as np
    import pydicom

    def read(folder: Path) -> Any:
        found = [pydicom.dcmread(path) for path in folder.iterdir()]
        found.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
        hu = [ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in found]
        return np.stack(hu).astype(np.float32)

    return read, pydicom.__version__


READERS = {
    reader.key: reader
    for reader in (
        Reader("ainode", "ainode", _ainode),
        Reader("simpleitk", "SimpleITK ImageSeriesReader", _simpleitk),
        Reader("monai", "MONAI PydicomReader", _monai),
        Reader("pydicom", "a loop over pydicom and numpy", _plain_pydicom),
    )
}


def warm_folder(folder: Path) -> Path:
    """Beside a corpus: its first slices, for the first read."""
    return folder.with_name(f"{folder.name}.warm")


def _folders() -> tuple[Path, Path]:
    folder = Path(sys.argv[2])
    return warm_folder(folder), folder


def main() -> None:
    """Read once, when told to."""
    read, version = READERS[sys.argv[1]].start()
    warm, folder = _folders()
    read(warm)
    Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
    print(json.dumps({"version": version}), flush=True)
    sys.stdin.readline()
    start, cpu = time.perf_counter(), sum(os.times()[:4])
    array = read(folder)
    seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - cpu
    values = {"voxels": int(array.size), "sum": float(array.sum(dtype="f8")), "dtype": str(array.dtype)}
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, **values}), flush=True)


if __name__ == "__main__":
    sys.path[0] = str(_BENCH.parent)
    main()
