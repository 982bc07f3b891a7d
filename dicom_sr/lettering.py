"""Letters in pictures: one font that has the glyphs of every language of results, and text that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SMALLEST = 11  # pixels; below, letters of a 256² image run together
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
YELLOW: Colour = (255, 220, 90)


@cache
def font_file() -> bytes:
    """The font of all pictures and documents, TrueType."""
    # Pillow's own font has no umlaut, accent or ligature; DejaVu has Latin, Greek and Cyrillic.
    return (files("dicom_sr") / "fonts" / "DejaVuSansCondensed.ttf").read_bytes()


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, ``size`` pixels high."""
    return ImageFont.truetype(BytesIO(font_file()), size, layout_engine=ImageFont.Layout.BASIC)


def size_for(rows: int, columns: int) -> int:
    """Letters for a picture of that many pixels: 14 pixels high at 512², legible where it is shown half as large."""
    return max(SMALLEST, round(min(rows, columns) / 36))


def fitted(text: str, size: int, width: float) -> str:
    """``text`` on one line, cut with … where it is wider than ``width`` pixels."""
    face = font(size)
    text = " ".join(text.split())
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, size: int, width: float) -> list[str]:
    """``text`` in lines of at most ``width`` pixels, broken between words."""
    face = font(size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fitted(word, size, width))
    return lines


@dataclass(frozen=True, eq=False)
class Stamp:
    """A small picture that is laid over others, made once: colour times opacity, and how much shows through.

    ``ink`` and ``clear``: (rows, columns, 3), uint16, 0 to 255 and 0 to 256.
    """

    ink: NDArray[np.uint16]
    clear: NDArray[np.uint16]

    @classmethod
    def of(cls, picture: Image.Image) -> Stamp:
        """From an RGBA picture."""
        rgba = np.asarray(picture, np.uint16)
        opacity = rgba[..., 3:]
        clear = np.repeat(256 - opacity - (opacity >> 7), 3, axis=-1).astype(np.uint16)
        return cls(rgba[..., :3] * opacity // 255, clear)

    @property
    def rows(self) -> int:
        return int(self.ink.shape[0])

    @property
    def columns(self) -> int:
        return int(self.ink.shape[1])

    def press(self, picture: NDArray[np.uint8], row: int, column: int) -> None:
        """Lay it over ``picture`` (rows, columns, 3) with its upper left corner there; what lies outside is lost."""
        top, left = max(row, 0), max(column, 0)
        below = picture[top : row + self.rows, left : column + self.columns]
        if not below.size:
            return
        here = slice(top - row, top - row + below.shape[0]), slice(left - column, left - column + below.shape[1])
        below[...] = ((below * self.clear[here]) >> 8) + self.ink[here]


def label(text: str, size: int, *, width: float, colour: Colour = WHITE, swatch: Colour | None = None) -> Stamp:
    """A line of text with a dark rim, after a square of colour where ``swatch`` is given; at most ``width`` wide."""
    indent = size + 3 if swatch is not None else 0
    text = fitted(text, size, width - indent - 2)
    picture = Image.new("RGBA", (int(indent + font(size).getlength(text)) + 3, line_height(size)))
    draw = ImageDraw.Draw(picture)
    if swatch is not None:
        draw.rectangle((1, 3, size - 3, size - 1), fill=(*swatch, 255), outline=(0, 0, 0, 255))
    draw.text((indent + 1, 0), text, font=font(size), fill=(*colour, 255), stroke_width=1, stroke_fill=(0, 0, 0, 255))
    return Stamp.of(picture)


def strip(lines: Sequence[str], size: int, width: int, *, veil: float, colour: Colour = YELLOW) -> Stamp:
    """A bar across a picture ``width`` pixels wide with ``lines``, wrapped, on a ground of opacity ``veil``."""
    text = [part for line in lines for part in wrapped(line, size, width - 8)]
    picture = Image.new("RGBA", (width, line_height(size) * len(text) + 4), (0, 0, 0, round(255 * veil)))
    draw = ImageDraw.Draw(picture)
    for n, line in enumerate(text):
        draw.text((4, 2 + n * line_height(size)), line, font=font(size), fill=(*colour, 255))
    return Stamp.of(picture)


def line_height(size: int) -> int:
    """Distance between two lines of letters ``size`` pixels high."""
    return round(size * 1.35)
