"""The encoded data set (PS3.5 section 7): find elements and prove that none ends early, without decoding a value.

A receiver has to know four UIDs and whether the object is whole. Walking the element headers answers both in well under
a millisecond, takes every transfer syntax that exists or will exist, and never touches pixel data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_IMPLICIT_LITTLE_ENDIAN_UID = "1.2.840.10008.1.2"
_EXPLICIT_BIG_ENDIAN_UID = "1.2.840.10008.1.2.2"
_DEFLATED_UIDS = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95")  # deflated; JPIP referenced deflate

_ITEM, _ITEM_DELIMITATION, _SEQUENCE_DELIMITATION = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
# PS3.5 table 7.1-1: two reserved bytes and a length of 32 bits follow these.
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))

# A deflated data set of a few kilobytes can inflate to gigabytes; beyond this the receiver would risk its memory.
INFLATED_LIMIT = 1 << 30


class Malformed(ValueError):
    """The bytes are no data set in this encoding."""


class Truncated(Malformed):
    """An element or a sequence ends after the end of the bytes."""


@dataclass(frozen=True)
class Encoding:
    """How element headers are written: implicit or explicit VR, and the byte order."""

    implicit: bool
    big_endian: bool


EXPLICIT_LITTLE_ENDIAN = Encoding(implicit=False, big_endian=False)


@dataclass(frozen=True)
class Element:
    """A top-level element; its value is ``data[start:end]``. ``tag`` is group << 16 | element."""

    tag: int
    start: int
    end: int


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """The encoding of a transfer syntax. All but three, and all private ones we know, are explicit VR little endian."""
    return Encoding(
        implicit=transfer_syntax_uid == _IMPLICIT_LITTLE_ENDIAN_UID,
        big_endian=transfer_syntax_uid == _EXPLICIT_BIG_ENDIAN_UID,
    )


def values(
    dataset: bytes, transfer_syntax_uid: str, tags: Collection[int]
) -> tuple[dict[int, bytes], Malformed | None]:
    """The raw values of the top-level elements ``tags``, and what is wrong with the structure, if anything is.

    Values found before the fault are returned with it: whether a fault matters is for the caller to say.
    """
    found: dict[int, bytes] = {}
    try:
        data = _inflate(dataset) if transfer_syntax_uid in _DEFLATED_UIDS else dataset
        for element in elements(data, encoding_of(transfer_syntax_uid)):
            if element.tag in tags:
                found.setdefault(element.tag, data[element.start : element.end])
    except Malformed as fault:
        return found, fault
    return found, None


def elements(data: bytes, encoding: Encoding, offset: int = 0) -> Iterator[Element]:
    """Walk the top-level elements from ``offset`` to the end.

    Raises:
        Truncated: an element, an item or a sequence has no end within ``data``.
        Malformed: something other than an item stands where an item has to.
    """
    walk = _Walk(data, encoding)
    position = offset
    while position < len(data):
        if bytes(4).startswith(data[position : position + 4]):
            if data.count(0, position) == len(data) - position:
                return  # padding behind the last element: some senders fill up with zeros
            raise Malformed(f"a null tag stands at byte {position}")
        tag, vr, length, start = walk.header(position, encoding.implicit)
        if length == _UNDEFINED:
            # An UN of undefined length holds a sequence in implicit VR little endian (PS3.5 6.2.2 note 4).
            position = walk.past_sequence(start, encoding.implicit or vr == b"UN")
        else:
            position = walk.past(start, length)
        yield Element(tag, start, position)


class _Walk:
    """Steps over encoded elements. Nesting is followed with a list, so that deep nesting cannot exhaust the stack."""

    def __init__(self, data: bytes, encoding: Encoding) -> None:
        order = ">" if encoding.big_endian else "<"
        self._data = data
        self._tag_and_length = struct.Struct(f"{order}HHI")
        self._short = struct.Struct(f"{order}H")
        self._long = struct.Struct(f"{order}I")

    def header(self, position: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty where there is none), value length and start of the value."""
        try:
            group, element, length = self._tag_and_length.unpack_from(self._data, position)
            tag = group << 16 | element
            vr = self._data[position + 4 : position + 6]
            # Bytes that cannot be a VR: writers that fall back to implicit VR for one element exist.
            if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
                return tag, b"", length, position + 8
            if vr in _LONG_VRS:
                return tag, vr, self._long.unpack_from(self._data, position + 8)[0], position + 12
            return tag, vr, self._short.unpack_from(self._data, position + 6)[0], position + 8
        except struct.error:
            raise Truncated(f"the data set ends inside an element header at byte {position}") from None

    def past(self, start: int, length: int) -> int:
        end = start + length
        if end > len(self._data):
            missing = end - len(self._data)
            raise Truncated(f"the element at byte {start} ends {missing} bytes after the end of the data set")
        return end

    def past_sequence(self, start: int, implicit: bool) -> int:
        """The position behind the delimiter that closes a sequence or encapsulated pixel data begun at ``start``."""
        position = start
        nesting = [(True, implicit)]  # (are we between items?, are the elements implicit VR?)
        while nesting:
            between_items, implicit = nesting[-1]
            tag, vr, length, position = self.header(position, implicit)
            if tag == (_SEQUENCE_DELIMITATION if between_items else _ITEM_DELIMITATION):
                nesting.pop()
            elif between_items and tag != _ITEM:
                raise Malformed(f"no item begins at byte {position - 8}")
            elif length == _UNDEFINED:
                nesting.append((not between_items, implicit or vr == b"UN"))
            else:
                position = self.past(position, length)
        return position


def _inflate(dataset: bytes) -> bytes:
    """Undo the deflate of PS3.5 A.5 (RFC 1951, no zlib header)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(dataset, INFLATED_LIMIT)
    except zlib.error as error:
        raise Malformed(f"the data set cannot be inflated: {error}") from None
    if not inflater.eof:
        if len(data) >= INFLATED_LIMIT:
            raise Malformed(f"the data set inflates to more than {INFLATED_LIMIT >> 20} MiB")
        raise Truncated("the deflated data set ends early")
    return data
