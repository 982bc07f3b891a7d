"""One slice of a volume: from the bytes of its frame to values in the unit of its modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import Refused
from node.domain.study import InstanceFile
from node.domain.volume import SliceSource
from pipelines.read.codecs import DEFLATED, NATIVE, ImagePixel, Stored, stored_values
from pipelines.read.contents import inflated, part, whole

# What lies outside the reconstruction circle has no CT number; it is given that of the emptiest scale, below air.
PADDING_HU = -1024.0

# Integers up to here are exact in float32.
_EXACT = 1 << 24


@dataclass(frozen=True)
class Slice:
    """All that it takes to read one frame, small enough to be handed to another process.

    ``spans`` are (start, length) in the data set, which begins ``head_length`` bytes after the start of the file. The
    digest of a file that is read whole is checked with it; that of one which holds several frames (``shares_file``) has
    to be checked apart, once. ``padding`` are the lowest and the highest stored value that are no measurement, and
    ``padding_as`` what they become, in the unit of the others. ``inflated`` is the data set of a deflated file with
    several frames. ``padding_as`` None makes padding as dark as the darkest measurement. A Modality LUT, ``lut``, is
    taken instead of slope and intercept: the stored value of its first entry, and all entries.
    """

    source: SliceSource
    file: InstanceFile
    head_length: int
    shares_file: bool
    spans: tuple[tuple[int, int], ...]
    pixel: ImagePixel
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    padding_as: float | None
    inflated: bytes | None = None
    lut: tuple[int, NDArray[np.float32]] | None = None

    def fill(self, out: NDArray[np.float32]) -> None:
        """Read, decode and rescale into ``out`` (rows, columns).

        Raises:
            Refused: the frame cannot be decoded; names it.
            InvalidInstance: the file is damaged.
        """
        try:
            stored = stored_values(self._frame(), self.pixel)
        except Refused as refusal:
            raise Refused(refusal.code, f"{self._name()}: {refusal.reason}") from refusal
        if self.lut is None:
            rescale(stored, self.slope, self.intercept, out)
        else:
            first, table = self.lut
            np.take(table, stored.astype(np.int64) - first, out=out, mode="clip")
        if self.padding is not None:
            outside = _padded(stored, *self.padding)
            if outside.any():
                darkest = 0.0 if outside.all() else float(out[~outside].min())
                out[outside] = darkest if self.padding_as is None else self.padding_as

    def _frame(self) -> bytes | memoryview:
        if self.inflated is not None:
            data = memoryview(self.inflated)
        elif self.shares_file:
            return b"".join(part(self.file, self.head_length + start, length) for start, length in self.spans)
        else:
            data = whole(self.file, self.head_length)
            if self.pixel.transfer_syntax_uid == DEFLATED:
                data = memoryview(inflated(data, self.file))
        if self.pixel.transfer_syntax_uid in NATIVE:
            ((start, length),) = self.spans
            return data[start : start + length]
        return b"".join(data[start : start + length] for start, length in self.spans)

    def _name(self) -> str:
        frame = "" if self.source.frame_number is None else f", frame {self.source.frame_number}"
        return f"instance {self.source.sop_instance_uid}{frame}, transfer syntax {self.pixel.transfer_syntax_uid}"


def rescale(stored: Stored, slope: float, intercept: float, out: NDArray[np.float32]) -> None:
    """``stored * slope + intercept`` (PS3.3 C.11.1.1.2), rounded once, to float32."""
    largest = 2.0 ** (8 * stored.dtype.itemsize) * abs(slope) + abs(intercept)
    if slope.is_integer() and intercept.is_integer() and largest <= _EXACT:
        # Nothing is rounded on the way: the same result as below in a quarter of the time.
        np.multiply(stored, np.float32(slope), out=out, casting="unsafe")
        out += np.float32(intercept)
    else:
        out[...] = stored * np.float64(slope) + np.float64(intercept)


def padding_range(values: tuple[int, ...], *, signed: bool) -> tuple[int, int]:
    """PixelPaddingValue and PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2) in order; writers mix up US and SS here."""
    ends = [value - (1 << 16) if signed and value >= 1 << 15 else value for value in values]
    return min(ends), max(ends)


def _padded(stored: Stored, low: int, high: int) -> NDArray[np.bool_]:
    limits = np.iinfo(stored.dtype)
    if high < limits.min or low > limits.max:
        return np.zeros(stored.shape, np.bool_)
    low, high = max(low, int(limits.min)), min(high, int(limits.max))
    return np.asarray(stored == low if low == high else (stored >= low) & (stored <= high))
