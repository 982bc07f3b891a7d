"""Code streams and samples to stored values, whatever header and code stream say of each other."""

from __future__ import annotations

import struct
from dataclasses import replace

import jpeg_ls
import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from node.domain.errors import Refused
from pipelines.read.codecs import ImagePixel, readable, stored_values
from pipelines.read.slices import padding_range, rescale

PIXEL = ImagePixel(str(JPEGLSLossless), 48, 64, 16, 12, 11, signed=False, photometric_interpretation="MONOCHROME2")
VALUES = np.arange(-1536, 1536, dtype=np.int16).reshape(48, 64)


def _jpeg_ls(values: np.ndarray) -> bytes:
    return bytes(jpeg_ls.encode_array(values))


def _jpeg_2000(values: np.ndarray, bits: int) -> bytes:
    return bytes(encode_array(values, bits_stored=bits, photometric_interpretation=2))


def test_signed_values_in_jpeg_ls_which_knows_no_sign() -> None:
    stream = _jpeg_ls((VALUES & 0x0FFF).astype(np.uint16))
    assert np.array_equal(stored_values(stream, replace(PIXEL, signed=True)), VALUES)


@pytest.mark.parametrize("allocated", [8, 16])
def test_a_code_stream_of_8_bits_in_samples_that_are_said_to_have_more(allocated: int) -> None:
    values = (VALUES & 0xFF).astype(np.uint8)
    pixel = replace(PIXEL, bits_allocated=allocated, bits_stored=8, high_bit=7)
    assert np.array_equal(stored_values(_jpeg_ls(values), pixel), values)


@pytest.mark.parametrize("stream_signed", [False, True])
def test_pixel_representation_decides_where_jpeg_2000_has_another_sign(stream_signed: bool) -> None:
    written = VALUES if stream_signed else (VALUES & 0x0FFF).astype(np.uint16)
    stream = _jpeg_2000(written, 12)
    pixel = replace(PIXEL, transfer_syntax_uid=str(JPEG2000Lossless))
    assert np.array_equal(stored_values(stream, replace(pixel, signed=True)), VALUES)
    assert np.array_equal(stored_values(stream, pixel), VALUES & 0x0FFF)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_samples_that_do_not_begin_at_bit_0(syntax: str) -> None:
    pixel = replace(PIXEL, transfer_syntax_uid=str(syntax), high_bit=13, signed=True)
    raw = ((VALUES & 0x0FFF).astype(np.uint16) << 2) | 0xC003
    frame = raw.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
    assert np.array_equal(stored_values(frame, pixel), VALUES)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless, JPEGLossless])
@pytest.mark.parametrize("frame", [b"", b"\xff\xd8\xff", bytes(200)])
def test_what_is_no_code_stream_is_refused(syntax: str, frame: bytes) -> None:
    with pytest.raises(Refused) as refused:
        stored_values(frame, replace(PIXEL, transfer_syntax_uid=str(syntax)))
    assert refused.value.code == "undecodable"


def test_a_codec_that_panics_refuses_the_frame() -> None:
    """pylibjpeg-rle panics where a run ends behind the segment, with something that is no Exception."""
    segment = bytes([129, 7]) * 40
    frame = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment + segment
    with pytest.raises(Refused) as refused:
        stored_values(frame, replace(PIXEL, transfer_syntax_uid=str(RLELossless)))
    assert refused.value.code == "undecodable"


def test_a_code_stream_of_another_size_is_refused() -> None:
    with pytest.raises(Refused, match=r"\(3, 8\)"):
        stored_values(_jpeg_ls(np.zeros((3, 8), np.uint16)), PIXEL)


def test_video_and_private_syntaxes_are_not_read() -> None:
    assert readable(str(RLELossless))
    assert not readable("1.2.840.10008.1.2.4.102")
    assert not readable("1.2.840.113619.5.2")


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1024.0), (2.0, 3.0), (0.1, 0.0), (1.52587890625e-05, -7.3)])
@pytest.mark.parametrize("dtype", ["<u2", "<i2", ">i2", "u1", "<i4"])
def test_rescale_rounds_once(dtype: str, slope: float, intercept: float) -> None:
    limits = np.iinfo(dtype)
    stored = np.linspace(limits.min, limits.max, 48).astype(dtype).reshape(6, 8)
    out = np.empty(stored.shape, np.float32)
    rescale(stored, slope, intercept, out)
    assert np.array_equal(out, (stored.astype(np.float64) * slope + intercept).astype(np.float32))


def test_padding_is_read_as_the_pixels_are() -> None:
    assert padding_range((63536,), signed=True) == (-2000, -2000)
    assert padding_range((63536,), signed=False) == (63536, 63536)
    assert padding_range((63536, 100), signed=True) == (-2000, 100)
