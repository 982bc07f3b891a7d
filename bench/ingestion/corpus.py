"""What is sent: synthetic objects full of noise, the same bytes and UIDs whenever they are made.

Each corpus is one study. Its geometry is that of a complete scan, so that a receiver that looks for completeness
finds it.
"""

from __future__ import annotations

import os
import shutil
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, MRImageStorage

_NAMESPACE = uuid.UUID("0c8cf6f2-9d4f-5a3e-8c6b-3f1b1d5a7e40")
_SERIES_LENGTH = 500
_CHUNK = 4 << 20
_READ = 1 << 20

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Corpus:
    """``objects`` instances of one SOP class: ``frames`` frames each of ``size`` × ``size`` pixels of 16 bits."""

    name: str
    title: str
    sop_class_uid: UID
    modality: str
    size: int
    objects: int
    frames: int = 1

    @property
    def pixel_bytes(self) -> int:
        """The length of PixelData of one object, in bytes."""
        return 2 * self.size * self.size * self.frames

    @property
    def folder(self) -> str:
        """The name of the cached files; another content has another name."""
        return f"{self.name}-{self.objects}x{self.frames}x{self.size}"

    def associations(self, wanted: Sequence[int]) -> list[int]:
        """Of the wanted numbers of associations, those that have an object each to send."""
        return [number for number in wanted if number <= self.objects]


CORPORA = (
    Corpus("ct", "CT, 512 KiB", CTImageStorage, "CT", 512, 500),
    Corpus("mr", "MR, 128 KiB", MRImageStorage, "MR", 256, 2000),
    Corpus("multiframe", "Enhanced CT, 512 MiB", EnhancedCTImageStorage, "CT", 512, 1, frames=1024),
)


def quick(corpus: Corpus) -> Corpus:
    """The same in small: at most 50 objects of at most 64 frames."""
    title = corpus.title if corpus.frames == 1 else "Enhanced CT, 32 MiB"
    return replace(corpus, objects=min(corpus.objects, 50), frames=min(corpus.frames, 64), title=title)


def make(corpus: Corpus, cache: Path) -> list[Path]:
    """The files of a corpus, in order; written if ``cache`` does not hold them."""
    folder = cache / corpus.folder
    if not folder.is_dir():
        partial = cache / f"{corpus.folder}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for index in range(corpus.objects):
            with (partial / f"{index:05d}.dcm").open("wb") as file:
                _write(corpus, index, file)
        partial.rename(folder)
    return sorted(folder.glob("*.dcm"))


def split(items: Sequence[_Item], shares: int) -> list[list[_Item]]:
    """Deal items out evenly: share k gets the items k, k + shares, k + 2 × shares, …"""
    return [list(items[number::shares]) for number in range(shares)]


def share(files: Sequence[Path], associations: int, folder: Path) -> list[Path]:
    """One directory for each association, with hard links to its share of the files."""
    shutil.rmtree(folder, ignore_errors=True)
    directories = []
    for number, mine in enumerate(split(files, associations)):
        directory = folder / str(number)
        directory.mkdir(parents=True)
        for path in mine:
            (directory / path.name).hardlink_to(path)
        directories.append(directory)
    return directories


def warm(files: Sequence[Path]) -> None:
    """Read the files, so that every sender finds them in the page cache."""
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            while file.read(_READ):
                pass


def _write(corpus: Corpus, index: int, file: BinaryIO) -> None:
    """One Part 10 file; the pixels are streamed, since the largest object is not to pass through memory as a whole."""
    dcmwrite(file, _dataset(corpus, index), enforce_file_format=True)
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, corpus.pixel_bytes))
    for chunk in _noise(corpus, index):
        file.write(chunk)


def _noise(corpus: Corpus, index: int) -> Iterator[bytes]:
    """Pixels that no file system and no codec makes smaller."""
    generator = np.random.default_rng([*corpus.folder.encode(), index])
    for start in range(0, corpus.pixel_bytes, _CHUNK):
        yield generator.bytes(min(_CHUNK, corpus.pixel_bytes - start))


def _uid(corpus: Corpus, *parts: object) -> UID:
    name = "/".join(map(str, (corpus.folder, *parts)))
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


def _dataset(corpus: Corpus, index: int) -> Dataset:
    """Everything but PixelData."""
    series, position = divmod(index, _SERIES_LENGTH)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = corpus.sop_class_uid
    dataset.SOPInstanceUID = _uid(corpus, "instance", index)
    dataset.StudyInstanceUID = _uid(corpus, "study")
    dataset.SeriesInstanceUID = _uid(corpus, "series", series)
    dataset.FrameOfReferenceUID = _uid(corpus, "frame of reference")
    dataset.PatientName, dataset.PatientID = "Bench^Ingest", "BENCH"
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20260101", "120000", "1", ""
    dataset.ReferringPhysicianName, dataset.Manufacturer = "", ""
    dataset.Modality, dataset.ImageType = corpus.modality, ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesNumber, dataset.InstanceNumber = series + 1, position + 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = corpus.size
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    if corpus.frames > 1:
        _add_functional_groups(dataset, corpus.frames)
    else:
        _add_plane(dataset, position)
    return dataset


def _add_plane(dataset: Dataset, position: int) -> None:
    dataset.ImagePositionPatient = [0, 0, position]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024


def _add_functional_groups(dataset: Dataset, frames: int) -> None:
    """Plane position for each frame, the rest shared (PS3.3 C.7.6.16)."""
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 1
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.NumberOfFrames = frames
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(number) for number in range(frames)]


def _frame(number: int) -> Dataset:
    position, frame = Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, number]
    frame.PlanePositionSequence = [position]
    return frame
