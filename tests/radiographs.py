"""Images without a place in the patient: radiographs and angiograms, written for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    XRayAngiographicImageStorage,
    generate_uid,
)


def gradient(rows: int = 12, columns: int = 20) -> NDArray[np.uint16]:
    """Pixels of 12 bits, no two alike."""
    return np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns) * 17


def radiograph(path: Path, pixels: NDArray[Any], **header: Any) -> Path:
    """Write an image, of digital radiography unless ``header`` says otherwise; None leaves an element out.

    Args:
        pixels: stored values, (rows, columns), or (frames, rows, columns) for several frames.
    """
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "DX", 1, 1
    dataset.PatientName, dataset.PatientID = "Test^Image", "1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.ImagerPixelSpacing = [0.2, 0.1]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * pixels.dtype.itemsize
    stored = 12 if bits == 16 else bits
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, stored, stored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    for keyword, value in header.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def angiogram(path: Path, frames: int = 4) -> Path:
    """A run of 8 bits and several frames, without any spacing."""
    pixels = np.stack([np.full((6, 10), 10 * (k + 1), np.uint8) for k in range(frames)])
    header: dict[str, Any] = {"SOPClassUID": XRayAngiographicImageStorage, "Modality": "XA"}
    return radiograph(path, pixels, **header, ImagerPixelSpacing=None, ViewPosition=None)
