"""The encoded data set (PS3.5 section 7): find elements and prove that none ends early, without decoding a value.

A receiver has to know four UIDs and whether the object is whole. Walking the element headers answers both in well under
a millisecond, takes every transfer syntax that exists or will exist, and never touches pixel data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

_IMPLICIT_LITTLE_ENDIAN_UID = "1.2.840.10008.1.2"
_EXPLICIT_BIG_ENDIAN_UID = "1.2.840.10008.1.2.2"
_DEFLATED_UIDS = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95")  # deflated; JPIP referenced deflate

_ITEM, _ITEM_DELIMITATION, _SEQUENCE_DELIMITATION = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
# PS3.5 table 7.1-1: two reserved bytes and a length of 32 bits follow these.
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))

# A deflated data set of a few kilobytes can inflate to gigabytes; beyond this the receiver would risk its memory.
INFLATED_LIMIT = 1 << 30


# What is read of the encoded bytes at once; a wanted value that is longer is cut to it (a UID has 64 bytes).
_WINDOW = 1 << 14
_HEADER = 12  # bytes of the longest element header


class Encoded(Protocol):
    """Encoded bytes that lie somewhere: in memory (``bytes`` is one), or in a file that need not fit into it."""

    def __len__(self) -> int: ...
    def __getitem__(self, span: slice, /) -> bytes: ...


class Malformed(ValueError):
    """The bytes are no data set in this encoding."""


class Truncated(Malformed):
    """An element, a sequence or the deflated stream has no end within the bytes."""


@dataclass(frozen=True)
class Encoding:
    """How element headers are written: implicit or explicit VR, and the byte order."""

    implicit: bool
    big_endian: bool


EXPLICIT_LITTLE_ENDIAN = Encoding(implicit=False, big_endian=False)


class Element(NamedTuple):
    """A top-level element; its value is ``data[start:end]``. ``tag`` is group << 16 | element.

    ``value`` is the beginning of the value, at most 16 KiB, for the tags that were asked for.
    """

    tag: int
    start: int
    end: int
    value: bytes | None = None


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """The encoding of a transfer syntax. All but three, and all private ones we know, are explicit VR little endian."""
    return Encoding(
        implicit=transfer_syntax_uid == _IMPLICIT_LITTLE_ENDIAN_UID,
        big_endian=transfer_syntax_uid == _EXPLICIT_BIG_ENDIAN_UID,
    )


def values(
    dataset: Encoded, transfer_syntax_uid: str, tags: Collection[int], *, whole: bool = True
) -> tuple[dict[int, bytes], Malformed | None]:
    """The raw values of the top-level elements ``tags``, and what is wrong with the structure, if anything is.

    Values found before the fault are returned with it: whether a fault matters is for the caller to say. Memory does
    not grow with the data set.

    Args:
        whole: whether to walk to the end; without it what comes after the last of ``tags`` is not looked at.
    """
    last = max(tags, default=0)
    found: dict[int, bytes] = {}
    stretch = _Inflated(dataset) if transfer_syntax_uid in _DEFLATED_UIDS else _Plain(dataset)
    try:
        for element in _Walk(stretch, encoding_of(transfer_syntax_uid)).elements(0, tags):
            if element.value is not None:
                found.setdefault(element.tag, element.value)
            if element.tag >= last and not whole:
                break
    except Malformed as fault:
        return found, fault
    return found, None


def elements(data: Encoded, encoding: Encoding, offset: int = 0) -> Iterator[Element]:
    """Walk the top-level elements from ``offset`` to the end.

    Raises:
        Truncated: an element, an item or a sequence has no end within ``data``.
        Malformed: something other than an item stands where an item has to.
    """
    return _Walk(_Plain(data), encoding).elements(offset, ())


class _Stretch(Protocol):
    """Bytes that are read forwards."""

    def read(self, position: int, count: int = _HEADER) -> bytes:
        """Up to a window of bytes from ``position`` on, at least ``count`` unless they end; none at the end."""
        ...

    def missing(self, end: int) -> int:
        """How many bytes before ``end`` there are not."""
        ...


class _Plain:
    def __init__(self, data: Encoded) -> None:
        self._data = data

    def read(self, position: int, count: int = _HEADER) -> bytes:
        return self._data[position : position + _WINDOW]

    def missing(self, end: int) -> int:
        return max(0, end - len(self._data))


class _Inflated:
    """Undoes the deflate of PS3.5 A.5 (RFC 1951, no zlib header), window by window."""

    def __init__(self, deflated: Encoded) -> None:
        self._deflated = deflated
        self._taken = 0
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._start = 0
        self._held = b""

    def read(self, position: int, count: int = _HEADER) -> bytes:
        while self._start + len(self._held) < position + count and (more := self._more()):
            skipped = min(max(0, position - self._start), len(self._held))
            self._held = self._held[skipped:] + more
            self._start += skipped
        return self._held[max(0, position - self._start) :]

    def missing(self, end: int) -> int:
        self.read(end)
        return max(0, end - self._start - len(self._held))

    def _more(self) -> bytes:
        """The next inflated bytes, none at the end of the stream."""
        inflater = self._inflater
        while not inflater.eof:
            if not (deflated := inflater.unconsumed_tail):
                deflated = self._deflated[self._taken : self._taken + _WINDOW]
                self._taken += len(deflated)
            try:
                more = inflater.decompress(deflated, _WINDOW)
            except zlib.error as error:
                raise Truncated(f"the data set cannot be inflated: {error}") from None
            if self._start + len(self._held) + len(more) > INFLATED_LIMIT:
                raise Truncated(f"the data set inflates to more than {INFLATED_LIMIT >> 20} MiB")
            if more:
                return more
            if not deflated and not inflater.eof:
                raise Truncated("the deflated data set ends early")
        return b""


class _Walk:
    """Steps over encoded elements. Nesting is followed with a list, so that deep nesting cannot exhaust the stack."""

    def __init__(self, stretch: _Stretch, encoding: Encoding) -> None:
        order = ">" if encoding.big_endian else "<"
        self._stretch = stretch
        self._implicit = encoding.implicit
        self._base = 0
        self._window = b""
        self._tag_and_length = struct.Struct(f"{order}HHI")
        self._short = struct.Struct(f"{order}H")
        self._long = struct.Struct(f"{order}I")

    def elements(self, position: int, tags: Collection[int]) -> Iterator[Element]:
        """Every top-level element from ``position`` on."""
        while (at := self._at(position)) < len(self._window):
            if self._window[at : at + 4].strip(b"\0") == b"":
                self._only_zeros(position)
                return  # padding behind the last element: some senders fill up with zeros
            tag, vr, length, start = self.header(position, self._implicit)
            value = self._value(start, length) if tag in tags else None
            if length == _UNDEFINED:
                # An UN of undefined length holds a sequence in implicit VR little endian (PS3.5 6.2.2 note 4).
                position = self.past_sequence(start, self._implicit or vr == b"UN")
            else:
                position = self.past(start, length)
            yield Element(tag, start, position, value)

    def _at(self, position: int) -> int:
        """Where in the window ``position`` is, with a whole header behind it unless the bytes end."""
        at = position - self._base
        if at + _HEADER > len(self._window):
            self._window, self._base, at = self._stretch.read(position), position, 0
        return at

    def _value(self, start: int, length: int) -> bytes:
        length = min(length, _WINDOW)
        at = start - self._base
        if at + length > len(self._window):
            self._window, self._base, at = self._stretch.read(start, length), start, 0
        return self._window[at : at + length]

    def _only_zeros(self, position: int) -> None:
        end = position
        while rest := self._stretch.read(end):
            if rest.strip(b"\0"):
                raise Malformed(f"a null tag stands at byte {position}")
            end += len(rest)

    def header(self, position: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty where there is none), value length and start of the value."""
        at = self._at(position)
        window = self._window
        try:
            group, element, length = self._tag_and_length.unpack_from(window, at)
            tag = group << 16 | element
            vr = window[at + 4 : at + 6]
            # Bytes that cannot be a VR: writers that fall back to implicit VR for one element exist.
            if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
                return tag, b"", length, position + 8
            if vr in _LONG_VRS:
                return tag, vr, self._long.unpack_from(window, at + 8)[0], position + 12
            return tag, vr, self._short.unpack_from(window, at + 6)[0], position + 8
        except struct.error:
            raise Truncated(f"the data set ends inside an element header at byte {position}") from None

    def past(self, start: int, length: int) -> int:
        end = start + length
        if end - self._base > len(self._window) and (missing := self._stretch.missing(end)):
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
