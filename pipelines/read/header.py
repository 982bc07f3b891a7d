"""What a file says before its pixels, and where its frames lie.

pydicom takes a millisecond for the header of a CT slice; stepping over its elements and reading the few that matter
takes a tenth of that. Only functional groups, which are nested, are left to pydicom.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from node.domain.encoded import Encoded, Encoding, Malformed, Truncated, elements, encoding_of
from node.domain.errors import InvalidInstance, Refused
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.study import InstanceFile
from pipelines.read.codecs import DEFLATED, NATIVE, ImagePixel, readable
from pipelines.read.contents import inflated
from pipelines.read.groups import Values, functional_groups

# (start, length) in bytes from the start of the data set. A frame is one or, as several fragments, more of them.
Span = tuple[int, int]

_PIXEL_DATA, _PER_FRAME_GROUPS = 0x7FE00010, 0x52009230
_ITEM, _SEQUENCE_DELIMITATION, _ITEM_HEADER = 0xFFFEE000, 0xFFFEE0DD, 8

_TEXT = {
    0x00080008: "ImageType",
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080060: "Modality",
    0x00080068: "PresentationIntentType",
    0x00180010: "ContrastBolusAgent",
    0x00180012: "ContrastBolusAgentSequence",
    0x00180015: "BodyPartExamined",
    0x00180050: "SliceThickness",
    0x00181164: "ImagerPixelSpacing",
    0x00181210: "ConvolutionKernel",
    0x00182010: "NominalScannedPixelSpacing",
    0x00185101: "ViewPosition",
    0x0020000E: "SeriesInstanceUID",
    0x00200011: "SeriesNumber",
    0x00200013: "InstanceNumber",
    0x00200020: "PatientOrientation",
    0x00200032: "ImagePositionPatient",
    0x00200037: "ImageOrientationPatient",
    0x00200052: "FrameOfReferenceUID",
    0x00209161: "ConcatenationUID",
    0x00280004: "PhotometricInterpretation",
    0x00280008: "NumberOfFrames",
    0x00280030: "PixelSpacing",
    0x00280034: "PixelAspectRatio",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
    0x00281054: "RescaleType",
    0x00283000: "ModalityLUTSequence",
    0x00541001: "Units",
}
_SHORTS = {
    0x00209163: "InConcatenationTotalNumber",
    0x00280002: "SamplesPerPixel",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    0x00280103: "PixelRepresentation",
    0x00280120: "PixelPaddingValue",
    0x00280121: "PixelPaddingRangeLimit",
}
_BITS_READ = (8, 16, 32)


@dataclass(frozen=True)
class Fragments:
    """Encapsulated pixel data (PS3.5 A.4): where its fragments lie.

    ``frame_starts`` holds the Basic Offset Table, which may be empty: for each frame the place of its first item, from
    ``origin`` on, the start of the first fragment's item.
    """

    spans: tuple[Span, ...]
    frame_starts: tuple[int, ...]
    origin: int


@dataclass(frozen=True, eq=False)
class Header:
    """An instance without its pixels.

    ``elements`` holds the values of the data elements by keyword, without those that are missing; an empty one has no
    values. ``groups`` has the same for each frame of a multi-frame image, from its functional groups, and is empty for
    an image of one frame. ``head_length`` is that of the file meta information, behind which the data set begins.
    ``inflated`` is the data set of a deflated multi-frame image, so that it is inflated once.
    """

    file: InstanceFile
    head_length: int
    transfer_syntax_uid: str
    elements: Mapping[str, Values]
    groups: tuple[Mapping[str, Values], ...]
    pixel_data: Span | None
    fragments: Fragments | None
    inflated: bytes | None

    @property
    def name(self) -> str:
        """The instance, for a person."""
        return f"instance {self.text('SOPInstanceUID') or '(no SOPInstanceUID)'}"

    def text(self, keyword: str) -> str:
        """The first value as text, empty where there is none."""
        return str(next(iter(self.elements.get(keyword, ())), ""))

    def texts(self, keyword: str) -> tuple[str, ...]:
        """All values in capitals; those of the first frame where the data set itself has none."""
        places = (self.elements, *self.groups[:1])
        found: Values = next((place[keyword] for place in places if keyword in place), ())
        return tuple(str(value).upper() for value in found)

    def shorts(self, keyword: str) -> tuple[int, ...]:
        """The values of an element of VR US, or SS read as US."""
        return tuple(value for value in self.elements.get(keyword, ()) if isinstance(value, int))

    @property
    def frames(self) -> int:
        """How many frames it says to hold: as many as functional groups, else NumberOfFrames.

        Raises:
            Refused: NumberOfFrames is no number.
        """
        return len(self.groups) or (self.number("NumberOfFrames") if self.elements.get("NumberOfFrames") else 1)

    @property
    def shared(self) -> bool:
        """Whether several frames may share its file."""
        return bool(self.groups) or self.frames > 1

    def number(self, keyword: str) -> int:
        """The first value as an integer.

        Raises:
            Refused: it is missing or no integer.
        """
        try:
            return int(self.text(keyword))
        except ValueError:
            raise Refused("missing-geometry", f"{self.name}: {keyword} is missing or no number") from None

    def image_pixel(self) -> ImagePixel:
        """How its samples are stored.

        Raises:
            Refused: they are stored in a way that is not read, or an element makes no sense.
        """
        if not readable(self.transfer_syntax_uid):
            raise Refused(
                "undecodable", f"{self.name} is in the transfer syntax {self.transfer_syntax_uid}, which is not read"
            )
        allocated = self.number("BitsAllocated")
        if allocated not in _BITS_READ:
            raise Refused("undecodable", f"{self.name} has BitsAllocated {allocated}; 8, 16 and 32 are read")
        stored, high_bit = self.number("BitsStored"), self.number("HighBit")
        if not 0 < stored <= high_bit + 1 <= allocated:
            raise Refused(
                "undecodable", f"{self.name}: BitsStored {stored} and HighBit {high_bit} do not fit {allocated} bits"
            )
        return ImagePixel(
            self.transfer_syntax_uid,
            self.number("Rows"),
            self.number("Columns"),
            allocated,
            stored,
            high_bit,
            self.number("PixelRepresentation") == 1,
            self.text("PhotometricInterpretation"),
        )

    def spans(self) -> list[tuple[Span, ...]]:
        """Where the bytes of each frame lie in the data set.

        Raises:
            Refused: there are no pixels, not enough of them, or the frames cannot be told apart.
        """
        frames = self.frames
        if self.pixel_data is None:
            raise Refused("no-pixel-data", f"{self.name} has no PixelData")
        pixel = self.image_pixel()
        if self.transfer_syntax_uid not in NATIVE:
            return self._encapsulated(frames)
        start, held = self.pixel_data
        if held < frames * pixel.frame_bytes:
            raise Refused(
                "truncated-pixel-data",
                f"{self.name} holds {held} bytes of PixelData; {frames} frame(s) of {pixel.rows} × {pixel.columns} "
                f"pixels of {pixel.bits_allocated // 8} byte(s) take {frames * pixel.frame_bytes}",
            )
        return [((start + n * pixel.frame_bytes, pixel.frame_bytes),) for n in range(frames)]

    def _encapsulated(self, frames: int) -> list[tuple[Span, ...]]:
        if self.fragments is None:
            raise Refused("undecodable", f"{self.name} has PixelData that is not encapsulated as its syntax asks for")
        spans, starts = self.fragments.spans, self.fragments.frame_starts
        if frames == 1 and spans:
            return [spans]
        if len(spans) == frames:
            return [(span,) for span in spans]
        if len(starts) != frames:
            raise Refused(
                "undecodable",
                f"{self.name} has {len(spans)} fragments of PixelData for {frames} frames, and no offsets to tell them",
            )
        firsts = [*(self.fragments.origin + start + _ITEM_HEADER for start in starts), sys.maxsize]
        return [
            tuple(span for span in spans if first <= span[0] < following)
            for first, following in itertools.pairwise(firsts)
        ]


def read_header(file: InstanceFile) -> Header:
    """Read the elements of a file and find its frames. Of the pixels nothing is read.

    Raises:
        Refused: the file cannot be read as DICOM, or ends early.
    """
    with file.path.open("rb") as opened:
        descriptor = opened.fileno()
        start = os.pread(descriptor, HEAD_LIMIT, 0)
        try:
            meta = split(start)
        except InvalidInstance as error:
            raise Refused("unreadable", f"{file.path.name} is no readable DICOM file: {error}") from error
        data: Encoded = _DataSet(descriptor, start, meta.offset)
        if meta.transfer_syntax_uid == DEFLATED:
            data = inflated(data[: len(data)], file)
        return _parse(file, meta.offset, meta.transfer_syntax_uid, data)


class _DataSet:
    """The data set of an open file as `Encoded`: its beginning is in memory, the rest is read where it is asked for."""

    def __init__(self, descriptor: int, start: bytes, offset: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._start = start[offset:]
        self._length = max(os.fstat(descriptor).st_size - offset, 0)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice, /) -> bytes:
        start, stop, _ = span.indices(self._length)
        if stop <= len(self._start):
            return self._start[start:stop]
        return os.pread(self._descriptor, stop - start, self._offset + start)


def _parse(file: InstanceFile, head_length: int, syntax: str, data: Encoded) -> Header:
    encoding = encoding_of(syntax)
    found: dict[str, Values] = {}
    pixel_data: Span | None = None
    fragments: Fragments | None = None
    groups: tuple[Mapping[str, Values], ...] = ()
    try:
        for element in elements(data, encoding):
            tag = element.tag
            if keyword := _TEXT.get(tag):
                found[keyword] = _text(data[element.start : element.end])
            elif keyword := _SHORTS.get(tag):
                found[keyword] = _shorts(data[element.start : element.end], encoding)
            elif tag == _PER_FRAME_GROUPS:
                groups = functional_groups(file, (*_TEXT.values(), "FrameType"))
            elif tag == _PIXEL_DATA:
                pixel_data = element.start, element.end - element.start
                fragments = None if syntax in NATIVE else _fragments(data, element.start)
                break
    except Malformed as fault:
        raise _refusal(file, syntax, fault) from fault
    header = Header(file, head_length, syntax, found, groups, pixel_data, fragments, None)
    return replace(header, inflated=data) if isinstance(data, bytes) and header.shared else header


def _refusal(file: InstanceFile, syntax: str, fault: Malformed) -> Refused:
    code = "unreadable"
    if isinstance(fault, Truncated):
        code = "truncated-pixel-data" if syntax in NATIVE else "undecodable"
    return Refused(code, f"instance {file.sop_instance_uid} is not whole: {fault}")


def _text(value: bytes) -> Values:
    text = value.decode("latin-1").strip("\0 ")
    return tuple(part.strip("\0 ") for part in text.split("\\")) if text else ()


def _shorts(value: bytes, encoding: Encoding) -> Values:
    return struct.unpack(f"{'>' if encoding.big_endian else '<'}{len(value) // 2}H", value[: len(value) // 2 * 2])


def _fragments(data: Encoded, start: int) -> Fragments | None:
    """None where no item begins the pixel data."""
    found: list[Span] = []
    position = start
    while True:
        header = data[position : position + _ITEM_HEADER]
        if len(header) < _ITEM_HEADER:
            raise Truncated(f"the pixel data ends inside an item header at byte {position}")
        group, element, length = struct.unpack("<HHI", header)
        tag = group << 16 | element
        if tag == _SEQUENCE_DELIMITATION and found:
            (at, size), *spans = found
            table = data[at : at + size]
            return Fragments(tuple(spans), struct.unpack_from(f"<{len(table) // 4}I", table), at + size)
        if tag != _ITEM:
            return None
        found.append((position + _ITEM_HEADER, length))
        position += _ITEM_HEADER + length
