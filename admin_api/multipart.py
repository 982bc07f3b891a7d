"""A multipart body (RFC 2046 section 5.1) taken apart as it comes; the parser is that of python-multipart."""

from __future__ import annotations

from typing import Protocol

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser


class Sink(Protocol):
    """Takes one part after the other."""

    def begin(self) -> None: ...
    def write(self, fragment: memoryview) -> None: ...
    def end(self) -> None: ...


class Malformed(ValueError):
    """The body is not in the form of RFC 2046."""


class Parts:
    """Hands the bodies of the parts to ``sink``, copying nothing; their headers are passed over.

    Args:
        boundary: the parameter of the Content-Type.
        sink: what it raises comes out of ``feed``.
    """

    def __init__(self, boundary: bytes, sink: Sink) -> None:
        self.complete = False
        self._sink = sink
        self._in_preamble = True
        callbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        # The parser wants the first boundary at once; RFC 2046 lets a preamble precede it. So it is given a part of
        # ours to begin with, of which the preamble is the body.
        self._parser.write(b"--" + boundary + b"\r\n\r\n\r\n")

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            Malformed: a boundary or the headers of a part are.
        """
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise Malformed("A boundary or the headers of a part are malformed") from error

    def _begin(self) -> None:
        if not self._in_preamble:
            self._sink.begin()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_preamble:
            self._sink.write(memoryview(data)[start:end])

    def _end(self) -> None:
        if self._in_preamble:
            self._in_preamble = False
        else:
            self._sink.end()

    def _complete(self) -> None:
        self.complete = True
