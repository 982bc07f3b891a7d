"""The series to read: one CT, as it is and in every compression that a PACS sends."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom

# DCMTK's, not the program of the same name that a Python package may put before it.
_DCMCJPEG = Path("/usr/bin/dcmcjpeg")
_QUICK_SLICES = 40


@dataclass(frozen=True)
class Corpus:
    """One transfer syntax; ``problem`` says why it cannot be made here, if it cannot."""

    name: str
    title: str
    encode: Callable[[Path, Path], None]
    problem: str | None = None


def _pydicom(syntax: UID) -> Callable[[Path, Path], None]:
    def encode(source: Path, target: Path) -> None:
        dataset = dcmread(source)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(target)

    return encode


def _jpeg_lossless(source: Path, target: Path) -> None:
    subprocess.run([_DCMCJPEG, "+e1", source, target], check=True)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus("uncompressed", "uncompressed", _copy),
        Corpus("jpeg-ls", "JPEG-LS lossless", _pydicom(JPEGLSLossless)),
        Corpus("jpeg-2000", "JPEG 2000 lossless", _pydicom(JPEG2000Lossless)),
        Corpus("rle", "RLE lossless", _pydicom(RLELossless)),
        Corpus(
            "jpeg-lossless",
            "JPEG lossless, selection value 1",
            _jpeg_lossless,
            None if _DCMCJPEG.exists() else "DCMTK's dcmcjpeg is not installed",
        ),
    )
}


def series(study: Path | None, quick: bool, cache: Path) -> list[Path]:
    """The files of the series in their order in space; without ``study`` a phantom's, written if ``cache`` has none."""
    if study is None:
        study = cache / "phantom"
        if not study.is_dir():
            shape, spacing = (275, 512, 512), (1.1, 0.7, 0.7)
            write_series(make_phantom(PhantomSpec(shape=shape, spacing=spacing)), cache / "phantom.partial")
            (cache / "phantom.partial").rename(study)
    files = sorted((path for path in study.rglob("*") if path.is_file()), key=_height)
    return files[:_QUICK_SLICES] if quick else files


def make(corpus: Corpus, files: Sequence[Path], folder: Path) -> Path:
    """The folder with the files in a corpus's syntax, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        corpus.encode(file, folder / f"{number:05d}.dcm")
    return folder


def _height(file: Path) -> float:
    return float(dcmread(file, specific_tags=["ImagePositionPatient"]).ImagePositionPatient[2])
