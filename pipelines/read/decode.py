"""Bytes to stored pixel values, in every transfer syntax that a CT comes in."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, JPEGExtended12Bit

from node.domain.errors import InvalidInstance, Refused
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.study import InstanceFile

Stored = NDArray[Any]  # of a signed or unsigned integer type

# Extended, and the retired spectral selection and full progression (PS3.5 table 10-1 of 2001): old archives hold them.
_DCT_JPEG = (JPEGExtended12Bit, UID("1.2.840.10008.1.2.4.53"), UID("1.2.840.10008.1.2.4.55"))


def read_header(path: Path) -> Dataset:
    """The elements before the pixel data.

    Raises:
        Refused: the file cannot be read as DICOM.
    """
    try:
        return dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, EOFError) as error:
        raise Refused("unreadable", f"{path.name} is no readable DICOM file: {error}") from error


def read_instance(file: InstanceFile) -> Dataset:
    """The whole data set of a kept instance, after its bytes have been held against its digest.

    Raises:
        InvalidInstance: the file is damaged: its bytes are not those that were acknowledged.
        Refused: the bytes are as they came, but no readable DICOM.
    """
    data = file.path.read_bytes()
    offset = split(data[:HEAD_LIMIT]).offset
    # The bytes are in memory anyway, and SHA-256 in hardware takes a fifth of the time that decoding takes.
    if hashlib.sha256(memoryview(data)[offset:]).hexdigest() != file.digest:
        raise InvalidInstance(
            "SOPInstanceUID",
            f"the stored file of {file.sop_instance_uid} is damaged: its digest is not {file.digest[:12]}…",
            "Send the instance again, or restore the file from a backup",
        )
    try:
        return dcmread(BytesIO(data))
    except (InvalidDicomError, EOFError) as error:
        raise Refused("unreadable", f"instance {file.sop_instance_uid} is no readable DICOM: {error}") from error


def stored_frame(dataset: Dataset, index: int) -> Stored:
    """Stored pixel values (PS3.3 C.7.6.3.1.4) of frame ``index`` (from 0): (rows, columns), integer.

    Bits outside BitsStored (overlay planes of old writers) are removed, and signed values are sign-extended.

    Raises:
        Refused: pixel data missing, truncated, or in a form that cannot be decoded; names the instance.
    """
    name = f"instance {dataset.SOPInstanceUID}"
    if "PixelData" not in dataset:
        raise Refused("no-pixel-data", f"{name} has no PixelData")
    if dataset.BitsAllocated not in (8, 16, 32):
        raise Refused("undecodable", f"{name} has BitsAllocated {dataset.BitsAllocated}; 8, 16 and 32 are read")
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return _significant(_native(dataset, index, name), dataset)
    try:
        if syntax in _DCT_JPEG and dataset.BitsStored > 8:
            pixels: Stored = _dct_jpeg_12_bit(dataset, index)
        else:
            pixels, _ = get_decoder(syntax).as_array(dataset, index=index, raw=True)
    except (RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
        raise Refused("undecodable", f"{name}, frame {index + 1}, {syntax.name}: {error}") from error
    return _significant(pixels, dataset)


def _native(dataset: Dataset, index: int, name: str) -> Stored:
    order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    kind = "i" if dataset.PixelRepresentation else "u"
    dtype = np.dtype(f"{order}{kind}{dataset.BitsAllocated // 8}")
    size = dataset.Rows * dataset.Columns
    frames = int(dataset.get("NumberOfFrames", 1))
    held = len(dataset.PixelData)
    if held < frames * size * dtype.itemsize:
        raise Refused(
            "truncated-pixel-data",
            f"{name} holds {held} bytes of PixelData; {frames} frame(s) of {dataset.Rows} × {dataset.Columns} pixels "
            f"of {dtype.itemsize} byte(s) take {frames * size * dtype.itemsize}",
        )
    pixels = np.frombuffer(dataset.PixelData, dtype, size, index * size * dtype.itemsize)
    return pixels.reshape(dataset.Rows, dataset.Columns)


def _dct_jpeg_12_bit(dataset: Dataset, index: int) -> Stored:
    """Lossy JPEG of more than 8 bits, by GDCM: pydicom declines it, but GDCM gives what DCMTK gives, bit for bit."""
    import gdcm  # large, and hardly ever needed

    frames = int(dataset.get("NumberOfFrames", 1))
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(get_frame(dataset.PixelData, index, number_of_frames=frames))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    interpretation = gdcm.PhotometricInterpretation.GetPIType(dataset.PhotometricInterpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(interpretation))
    syntax = gdcm.TransferSyntax.GetTSType(str.__str__(dataset.file_meta.TransferSyntaxUID))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    signed = int(dataset.PixelRepresentation)
    image.SetPixelFormat(gdcm.PixelFormat(1, dataset.BitsAllocated, dataset.BitsStored, dataset.BitsStored - 1, signed))
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    pixels = np.frombuffer(buffer, "<i2" if signed else "<u2")
    return pixels.reshape(dataset.Rows, dataset.Columns)


def _significant(pixels: Stored, dataset: Dataset) -> Stored:
    above = dataset.BitsAllocated - dataset.HighBit - 1
    below = dataset.HighBit + 1 - dataset.BitsStored
    if above == 0 and below == 0:
        return pixels
    # Shifting up pushes foreign bits out; shifting a signed type down again extends the sign.
    native = pixels.astype(pixels.dtype.newbyteorder("="))
    return np.asarray((native << above) >> (above + below))
