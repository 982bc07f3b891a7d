"""Series for tests of reading and measuring: small phantoms on disk, and files as a pipeline gets them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from node.domain.part10 import HEAD_LIMIT, split
from node.domain.study import InstanceFile, SeriesContent, StudyContent
from node.domain.volume import SliceSource, Volume
from pipelines.phantom import SeriesOptions, write_series
from pipelines.phantom_anatomy import Phantom, PhantomSpec, make_phantom

TINY = {"shape": (24, 32, 40), "spacing": (12.0, 11.0, 9.0)}


def tiny_phantom(**spec: Any) -> Phantom:
    """24 slices of 32 rows and 40 columns: no two axes are alike."""
    return make_phantom(PhantomSpec(**(TINY | spec)))


def tiny_series(folder: Path, options: SeriesOptions | None = None, **spec: Any) -> list[Path]:
    """A tiny phantom on disk."""
    return write_series(tiny_phantom(**spec), folder, options)


def instance_file(path: Path) -> InstanceFile:
    """A file as a job gets it, with the digest that the receiver would have given it."""
    data = path.read_bytes()
    meta = split(data[:HEAD_LIMIT])
    digest = hashlib.sha256(data[meta.offset :]).hexdigest()
    return InstanceFile(meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax_uid, digest, path)


def series_of(paths: Iterable[Path]) -> SeriesContent:
    """One series; its UID is that of the first file."""
    files = list(paths)
    uid = str(dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)
    return SeriesContent(uid, tuple(instance_file(path) for path in files))


def study_of(*series: Iterable[Path]) -> StudyContent:
    """A study of these series."""
    return StudyContent("1.2.3", 1, tuple(series_of(paths) for paths in series))


def change(path: Path, edit: Callable[[Dataset], None]) -> Path:
    """Edit the data set of a file in place."""
    dataset = dcmread(path)
    edit(dataset)
    dataset.save_as(path)
    return path


def volume_of(phantom: Phantom) -> Volume:
    """A phantom as a Volume, without files between."""
    sources = tuple(SliceSource(f"1.2.{k}", CTImageStorage) for k in range(len(phantom.voxels)))
    return Volume(phantom.voxels.astype(np.float32), phantom.affine, sources, "1.2.3.4", "1.2.3.5")
