"""Parts are found wherever the pieces of a body begin and end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from admin_api.multipart import Malformed, Parts

BOUNDARY = b"x-y"
# Pieces that a parser takes for a delimiter when it looks at too little, or at too much.
TRAPS = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b"--",
        b"\r\n--",
        b"\r\n--x",
        b"\r\n--x-",
        b"--x-y",
        b"--x-y--",
        b"\r\n--x-z",
        b"\r\n\r\n",
        b"x-y",
    ]
)
BYTES = st.lists(TRAPS | st.binary(max_size=20), max_size=8).map(b"".join)
PARTS = st.lists(BYTES.filter(lambda part: b"\r\n--x-y" not in b"\r\n" + part + b"\r\n"), max_size=4)
HEADERS = st.sampled_from(
    [
        b"",
        b"Content-Type: application/dicom\r\n",
        b"Content-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50\r\nContent-Length: 7\r\n",
        b"content-type:application/dicom\r\nContent-Location: studies/1.2.3\r\nMIME-Version: 1.0\r\n",
    ]
)
PREAMBLES = st.sampled_from([b"", b"\r\n", b"This is a multipart message.\r\n", b"\r\n--x-\r\n", b"--x-z\r\n"])
EPILOGUES = st.sampled_from([b"", b"\r\n", b"\r\n--x-y\r\n\r\nno part any more"])


class Gather:
    """Keeps the parts."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.open: bytearray | None = None

    def begin(self) -> None:
        assert self.open is None
        self.open = bytearray()

    def write(self, fragment: memoryview) -> None:
        assert self.open is not None
        self.open += fragment

    def end(self) -> None:
        assert self.open is not None
        self.parts.append(bytes(self.open))
        self.open = None


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, *(cut % (len(body) + 1) for cut in cuts), len(body)})
    return [body[a:b] for a, b in pairwise(at)]


def taken(chunks: list[bytes]) -> tuple[Gather, bool]:
    gather = Gather()
    parts = Parts(BOUNDARY, gather)
    for chunk in chunks:
        parts.feed(chunk)
    return gather, parts.complete


@given(PREAMBLES, PARTS, HEADERS, EPILOGUES, st.lists(st.integers(min_value=0, max_value=1 << 16), max_size=12))
@example(b"", [b"\r\n--x-"], b"", b"", list(range(100)))
def test_any_pieces_of_a_body_give_the_same_parts(
    preamble: bytes, parts: list[bytes], headers: bytes, epilogue: bytes, cuts: list[int]
) -> None:
    delimited = b"".join(b"--x-y\r\n" + headers + b"\r\n" + part + b"\r\n" for part in parts)
    gather, complete = taken(pieces(preamble + delimited + b"--x-y--" + epilogue, cuts))
    assert gather.parts == parts
    assert gather.open is None
    assert complete


@given(PARTS, st.integers(min_value=1, max_value=1 << 16))
def test_a_body_that_breaks_off_is_not_complete(parts: list[bytes], missing: int) -> None:
    body = b"".join(b"--x-y\r\n\r\n" + part + b"\r\n" for part in parts) + b"--x-y--"
    gather, complete = taken([body[: max(0, len(body) - missing)]])
    assert not complete
    assert gather.parts == parts[: len(gather.parts)]


@pytest.mark.parametrize("headers", [b"no colon\r\n", b": nothing\r\n", b"A: 1\r\n folded\r\n", b"\xff: 1\r\n"])
def test_broken_headers_are_told(headers: bytes) -> None:
    with pytest.raises(Malformed):
        taken([b"--x-y\r\n" + headers + b"\r\nbody\r\n--x-y--"])


def test_headers_without_an_end_take_no_memory() -> None:
    with pytest.raises(Malformed):
        taken([b"--x-y\r\nA: ", *([b"b" * 65536] * 4)])
