"""A sheet as PDF: its words are text that can be searched and copied, in a font that goes with it."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicom_sr.lettering import Colour, font, font_file
from dicom_sr.page import PAPER, Layout, laid_out
from dicom_sr.provenance import MANUFACTURER
from dicom_sr.sheet import Sheet
from dicom_sr.words import Words

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas

_A4 = 1240, 1754  # the units of the layout: 150 to the inch
_POINTS = 72 / 150  # of PDF, in such a unit
_FONT = "DejaVuSansCondensed"
_QUALITY = 90  # of JPEG, for the pictures


def pdf(sheet: Sheet, words: Words, at: datetime) -> bytes:
    """``sheet`` on A4. The same sheet gives the same bytes.

    Args:
        at: the date of the document.
    """
    from reportlab.pdfgen.canvas import Canvas

    layout: Layout = laid_out(sheet, _A4, words, PAPER)
    written = BytesIO()
    _embedded()
    canvas = Canvas(
        written,
        pagesize=(_A4[0] * _POINTS, _A4[1] * _POINTS),
        pageCompression=1,
        invariant=1,
        initialFontName=_FONT,
        lang=words.language.value,
    )
    canvas.setTitle(sheet.title)
    canvas.setAuthor(MANUFACTURER)
    canvas.setCreator(MANUFACTURER)
    canvas.setProducer(MANUFACTURER)
    canvas.setSubject(sheet.banner or "")
    canvas.setViewerPreference("DisplayDocTitle", "true")
    zone = f"{at:%z}" or "+0000"
    canvas.setDateFormatter(lambda *_: f"D:{at:%Y%m%d%H%M%S}{zone[:3]}'{zone[3:5]}'")
    canvas.scale(_POINTS, _POINTS)
    paper = _Paper(canvas)
    layout.draw(paper.next_page)
    canvas.save()
    return written.getvalue()


@cache
def _embedded() -> None:
    """Make the font known to the library, once a process."""
    from reportlab.pdfbase.pdfmetrics import registerFont
    from reportlab.pdfbase.ttfonts import TTFont

    registerFont(TTFont(_FONT, BytesIO(font_file())))


class _Paper:
    """A `page.Surface`: the page that is being written. PDF counts from the bottom."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._begun = False

    def next_page(self) -> _Paper:
        """This, as a new page."""
        if self._begun:
            self._canvas.showPage()
            self._canvas.scale(_POINTS, _POINTS)
        self._begun = True
        return self

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self._canvas.setFillColorRGB(*_shares(colour))
        self._canvas.rect(left, _A4[1] - bottom, right - left, bottom - top, stroke=0, fill=1)

    def text(self, left: float, top: float, text: str, size: int, colour: Colour) -> None:
        """As wide as the layout took it to be: it counts in whole pixels for each letter."""
        if not text:
            return
        face = font(size)
        ascent, _ = face.getmetrics()
        wide = self._canvas.stringWidth(text, _FONT, size)
        words = self._canvas.beginText(left, _A4[1] - top - ascent)
        words.setFont(_FONT, size)
        words.setFillColorRGB(*_shares(colour))
        words.setHorizScale(100 * face.getlength(text) / wide if wide else 100)
        words.textOut(text)
        self._canvas.drawText(words)

    def picture(self, left: float, top: float, size: tuple[int, int], pixels: NDArray[np.uint8]) -> None:
        from reportlab.lib.utils import ImageReader

        width, height = size
        encoded = BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=_QUALITY, subsampling=0)
        encoded.seek(0)
        self._canvas.drawImage(ImageReader(encoded), left, _A4[1] - top - height, width, height)


def _shares(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
