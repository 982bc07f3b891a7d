"""Walking encoded data sets: every encoding, every nesting, and proof that nothing ends early."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.domain import encoded
from node.domain.encoded import Malformed, Truncated, values
from node.domain.part10 import HEAD_LIMIT, split
from tests import objects

STUDY, PIXELS = 0x0020000D, 0x7FE00010
SYNTAXES = [objects.IMPLICIT, objects.EXPLICIT, objects.BIG_ENDIAN]


def nested(*, undefined: bool) -> Dataset:
    """A data set with sequences in sequences before StudyInstanceUID."""
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.9"
    inner.StudyInstanceUID = "9.9.9"  # within an item: not that of the data set
    outer = Dataset()
    outer.ReferencedImageSequence = Sequence([inner, inner])
    ds = objects.dataset(ReferencedStudySequence=Sequence([outer]))
    if undefined:
        for sequence in (ds["ReferencedStudySequence"], outer["ReferencedImageSequence"]):
            sequence.is_undefined_length = True
        for item in (outer, inner):
            item.is_undefined_length_sequence_item = True
    return ds


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_elements_are_found_behind_nested_sequences(syntax: str, undefined: bool) -> None:
    found, fault = values(objects.encoded(nested(undefined=undefined), syntax), syntax, {STUDY})
    assert fault is None
    assert found == {STUDY: b"1.2.3\0"}


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_cut_anywhere_but_between_elements_is_noticed(syntax: str, undefined: bool) -> None:
    data = objects.encoded(nested(undefined=undefined), syntax)
    whole = {element.end for element in encoded.elements(data, encoded.encoding_of(syntax))}
    for length in range(1, len(data)):
        _, fault = values(data[:length], syntax, ())
        # What is left of a header may be zeros only, which is padding.
        if length not in whole and data[max(end for end in whole | {0} if end <= length) : length].strip(b"\0"):
            assert isinstance(fault, Truncated), length


def test_encapsulated_pixel_data_is_passed_by_its_fragments() -> None:
    fragment = b"\xfe\xff\xdd\xe0" * 4  # looks like the delimiter, but is within a fragment
    data = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    data += struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    data += struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)) + fragment
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert values(data + end, "1.2.840.10008.1.2.4.50", {PIXELS})[1] is None
    assert isinstance(values(data, "1.2.840.10008.1.2.4.50", ())[1], Truncated)
    assert isinstance(values(data + b"ABCDEFGH", "1.2.840.10008.1.2.4.50", ())[1], Malformed)


def test_un_of_undefined_length_holds_implicit_vr() -> None:
    item = objects.encoded(objects.dataset(), objects.IMPLICIT)
    data = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF)
    data += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    data += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data += objects.encoded(objects.dataset())[-44:]  # PixelData: 12 bytes of header, 32 of value
    found, fault = values(data, objects.EXPLICIT, {PIXELS})
    assert fault is None
    assert found[PIXELS] == bytes(range(32))


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    opening = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    assert isinstance(values(opening * 20000, objects.EXPLICIT, ())[1], Truncated)


def test_deflated_data_sets_are_inflated_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = deflater.compress(objects.encoded(objects.dataset())) + deflater.flush()
    assert values(data, objects.DEFLATED, {STUDY}) == ({STUDY: b"1.2.3\0"}, None)
    assert isinstance(values(data[:-20], objects.DEFLATED, ())[1], Truncated)
    assert isinstance(values(b"no deflate stream", objects.DEFLATED, ())[1], Malformed)
    monkeypatch.setattr(encoded, "INFLATED_LIMIT", 64)
    assert "more than" in str(values(data, objects.DEFLATED, ())[1])


@pytest.mark.parametrize("window", [12, 13, 64])
@pytest.mark.parametrize("syntax", [*SYNTAXES, objects.DEFLATED])
def test_what_is_read_at_once_makes_no_difference(monkeypatch: pytest.MonkeyPatch, syntax: str, window: int) -> None:
    data = objects.encoded(nested(undefined=True), objects.EXPLICIT if syntax == objects.DEFLATED else syntax)
    if syntax == objects.DEFLATED:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflater.compress(data) + deflater.flush()
    expected = values(data, syntax, {STUDY})
    assert expected == ({STUDY: b"1.2.3\0"}, None)
    monkeypatch.setattr(encoded, "_WINDOW", window)
    assert values(data, syntax, {STUDY}) == expected
    _, fault = values(data[:-3], syntax, {STUDY})
    assert isinstance(fault, Truncated)


def test_zeros_behind_the_last_element_are_padding() -> None:
    assert values(objects.encoded(objects.dataset()) + bytes(7), objects.EXPLICIT, ())[1] is None
    assert isinstance(values(bytes(8) + b"x", objects.EXPLICIT, ())[1], Malformed)


@given(st.binary(max_size=400), st.sampled_from([*SYNTAXES, objects.DEFLATED, "1.2.3.4.5"]))
def test_any_bytes_give_an_answer(data: bytes, syntax: str) -> None:
    values(data, syntax, {STUDY})


def test_real_objects_are_whole_in_every_transfer_syntax(shared_data: Path) -> None:
    seen = set()
    for path in sorted((shared_data / "syntaxes").rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if content[128:132] == b"DICM":
            meta = split(content[:HEAD_LIMIT])
            found, fault = values(content[meta.offset :], meta.transfer_syntax_uid, {STUDY})
            assert fault is None, path.name
            assert found[STUDY], path.name
            seen.add(meta.transfer_syntax_uid)
    assert len(seen) >= 15
