"""One encoded frame to stored pixel values, in every transfer syntax that a series of slices comes in.

Numpy and the codecs are all that is imported, each codec when it is first needed: the processes that help to decode
have to start quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import Refused

Stored = NDArray[Any]  # of a signed or unsigned integer type

DEFLATED = "1.2.840.10008.1.2.1.99"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
# Implicit VR, explicit VR, explicit VR big endian, deflated: a frame is its samples, one after the other.
NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _BIG_ENDIAN, DEFLATED))

# Baseline, extended, the retired spectral selection and full progression (PS3.5 table 10-1 of 2001), lossless.
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70))
_JPEG_LS = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))

# For a megapixel of CT, on one core of 2026.
_LOCKED_SECONDS = dict.fromkeys(_JPEG, 0.016) | dict.fromkeys(_JPEG_LS, 0.018) | dict.fromkeys(_JPEG_2000, 0.11)


@dataclass(frozen=True)
class ImagePixel:
    """How the samples of a monochrome frame are stored: the Image Pixel module (PS3.3 C.7.6.3) and the syntax."""

    transfer_syntax_uid: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric_interpretation: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a sample as it is allocated, in the byte order of the transfer syntax."""
        order = ">" if self.transfer_syntax_uid == _BIG_ENDIAN else "<"
        return np.dtype(f"{order}{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Of one frame that is not compressed."""
        return self.rows * self.columns * self.bits_allocated // 8


def readable(transfer_syntax_uid: str) -> bool:
    """Whether frames in this transfer syntax can be decoded; private ones and video cannot."""
    return transfer_syntax_uid in NATIVE or transfer_syntax_uid in _DECODERS


def locked_seconds(pixel: ImagePixel) -> float:
    """About how long decoding a frame lets no other thread of this process run, so that only processes can share it.

    No codec releases the interpreter lock. RLE is so quick that it counts as nothing.
    """
    megapixels = pixel.rows * pixel.columns / (1 << 20)
    return _LOCKED_SECONDS.get(pixel.transfer_syntax_uid, 0.0) * megapixels


def stored_values(frame: bytes | memoryview, pixel: ImagePixel) -> Stored:
    """Stored pixel values (PS3.3 C.7.6.3.1.4) of one frame: (rows, columns), integer.

    Bits outside BitsStored (overlay planes of old writers) are removed, and signed values are sign-extended.

    Raises:
        Refused: the frame cannot be decoded, or is not what its header says; the caller adds which one it is.
    """
    try:
        if pixel.transfer_syntax_uid in NATIVE:
            values = _native(frame, pixel)
        else:
            values = _DECODERS[pixel.transfer_syntax_uid](bytes(frame), pixel)
    except (RuntimeError, ValueError, ArithmeticError, OSError) as error:
        raise Refused("undecodable", str(error)) from error
    if values.shape != (pixel.rows, pixel.columns):
        raise Refused("undecodable", f"the frame has {values.shape} rows and columns, its header says otherwise")
    return values


def _native(frame: bytes | bytearray | memoryview, pixel: ImagePixel) -> Stored:
    values = np.frombuffer(frame, pixel.dtype, pixel.rows * pixel.columns).reshape(pixel.rows, pixel.columns)
    return _significant(values, above=pixel.bits_allocated - pixel.high_bit - 1, bits=pixel.bits_stored)


def _rle(frame: bytes, pixel: ImagePixel) -> Stored:
    from rle.utils import decode_pixel_data

    try:
        decoded = decode_pixel_data(
            frame, version=2, rows=pixel.rows, columns=pixel.columns, bits_allocated=pixel.bits_allocated
        )
    except BaseException as error:
        # A panic of the codec, on damaged bytes, is no Exception and would end the process; it has no importable name.
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from error
    assert isinstance(decoded, bytearray), "as version 2 of this interface says"
    return _native(decoded, pixel)


def _jpeg_ls(frame: bytes, pixel: ImagePixel) -> Stored:
    import jpeg_ls

    decoded, info = jpeg_ls.decode_pixel_data(frame)
    if info["components"] != 1:
        raise ValueError(f"the code stream has {info['components']} components")
    precision = info["bits_per_sample"]
    values = np.frombuffer(decoded, "<u1" if precision <= 8 else "<u2")
    return _of_code_stream(values.reshape(info["height"], info["width"]), precision, pixel)


def _jpeg_2000(frame: bytes, pixel: ImagePixel) -> Stored:
    from openjpeg.utils import decode, get_parameters

    return _of_code_stream(decode(frame), int(get_parameters(frame)["precision"]), pixel)


def _jpeg(frame: bytes, pixel: ImagePixel) -> Stored:
    """By GDCM: it decodes lossless and the 12 bits that pydicom declines, and gives what DCMTK gives, bit for bit."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((pixel.columns, pixel.rows, 1))
    image.SetDataElement(element)
    interpretation = gdcm.PhotometricInterpretation.GetPIType(pixel.photometric_interpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(interpretation))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(pixel.transfer_syntax_uid)))
    bits = pixel.bits_stored
    image.SetPixelFormat(gdcm.PixelFormat(1, pixel.bits_allocated, bits, bits - 1, int(pixel.signed)))
    decoded = image.GetBuffer()
    if decoded is None:
        raise ValueError("the JPEG code stream is damaged or ends early")
    # GDCM's wrapper makes text of the samples.
    values = np.frombuffer(decoded.encode("utf-8", "surrogateescape"), pixel.dtype)
    return _of_code_stream(values.reshape(pixel.rows, pixel.columns), bits, pixel)


_DECODERS: dict[str, Callable[[bytes, ImagePixel], Stored]] = {
    _ENCAPSULATED_UNCOMPRESSED: _native,
    RLE_LOSSLESS: _rle,
    **dict.fromkeys(_JPEG, _jpeg),
    **dict.fromkeys(_JPEG_LS, _jpeg_ls),
    **dict.fromkeys(_JPEG_2000, _jpeg_2000),
}


def _of_code_stream(values: Stored, precision: int, pixel: ImagePixel) -> Stored:
    """Samples of a code stream, that counts bits from 0 whatever HighBit says (PS3.5 8.2).

    JPEG-LS knows no sign, and JPEG 2000 often has the wrong one: PixelRepresentation decides (PS3.5 8.2.3, 8.2.4).
    """
    bits = 8 * values.dtype.itemsize
    signed = values.view(f"{'i' if pixel.signed else 'u'}{values.dtype.itemsize}")
    significant = min(precision, pixel.bits_stored)
    return _significant(signed, above=bits - significant, bits=significant)


def _significant(values: Stored, *, above: int, bits: int) -> Stored:
    below = 8 * values.dtype.itemsize - above - bits
    if above == 0 and below == 0:
        return values
    # Shifting up pushes foreign bits out; shifting a signed type down again extends the sign.
    native = values.astype(values.dtype.newbyteorder("="))
    native <<= above
    native >>= above + below
    return native
