"""The layout of a sheet on pages: a heading, a table in one or two columns, sentences, key images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dicom_sr.lettering import Colour, fitted, font, line_height, wrapped
from dicom_sr.sheet import Block, Figure, Sheet
from dicom_sr.words import Words

_LEAST_FIGURES = 0.22  # of the height, kept for pictures on the first page


@dataclass(frozen=True)
class Theme:
    """Colours of a page, and its letters: a share of the shorter side, from the largest that fits to the smallest."""

    ground: Colour
    letters: Colour
    faint: Colour
    warning: Colour
    warning_ground: Colour
    largest: float
    smallest: float
    margin: float  # as many letters wide


SCREEN = Theme((0, 0, 0), (240, 240, 240), (160, 165, 170), (255, 220, 90), (70, 55, 0), 1 / 32, 1 / 44, 1.0)
PAPER = Theme((255, 255, 255), (20, 25, 30), (95, 100, 105), (110, 70, 0), (255, 243, 205), 1 / 62, 1 / 78, 3.0)


class Surface(Protocol):
    """What a page is drawn on. Places are in pixels from its upper left corner."""

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Filled; ``right`` and ``bottom`` are the first that lie outside."""

    def text(self, left: float, top: float, text: str, size: int, colour: Colour) -> None:
        """On one line, in `lettering.font`."""

    def picture(self, left: float, top: float, size: tuple[int, int], pixels: NDArray[np.uint8]) -> None:
        """(rows, columns, 3), scaled to ``size``, width and height."""


_Drawn = TypeVar("_Drawn", bound=Surface)


@dataclass(frozen=True)
class _Line:
    """A line of the table: what stands left and right of it, and the colour of the square before it."""

    left: str
    right: str = ""
    swatch: Colour | None = None
    heading: bool = False


@dataclass
class _Page:
    """One page: lines of the table in columns, then sentences across the page."""

    columns: list[list[_Line]]
    sentences: list[str] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many lines high the table is."""
        return max(map(len, self.columns), default=0)


def pages(sheet: Sheet, size: tuple[int, int], words: Words, theme: Theme = SCREEN) -> list[Image.Image]:
    """``sheet`` as RGB pictures of ``size`` (columns, rows), as many as it takes; most take one."""
    return [page.image for page in laid_out(sheet, size, words, theme).draw(lambda: _Picture(size, theme.ground))]


def laid_out(sheet: Sheet, size: tuple[int, int], words: Words, theme: Theme) -> Layout:
    """Where everything stands on pages of ``size`` (columns, rows).

    Letters are as large as lets everything stand on one page, and never smaller than an eleventh pixel at 512².
    """
    shorter = min(size)
    sizes = range(round(shorter * theme.largest), round(shorter * theme.smallest) - 1, -1)
    for letters in sizes:
        layout = Layout(sheet, size, words, theme, letters)
        if len(layout.pages) == 1:
            break
    return layout


class _Picture:
    """A page as an RGB picture."""

    def __init__(self, size: tuple[int, int], ground: Colour) -> None:
        self.image = Image.new("RGB", size, ground)
        self._draw = ImageDraw.Draw(self.image)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self._draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)

    def text(self, left: float, top: float, text: str, size: int, colour: Colour) -> None:
        self._draw.text((left, top), text, font=font(size), fill=colour)

    def picture(self, left: float, top: float, size: tuple[int, int], pixels: NDArray[np.uint8]) -> None:
        self.image.paste(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), (round(left), round(top)))


class Layout:
    """Where everything stands, with letters of one size."""

    def __init__(self, sheet: Sheet, size: tuple[int, int], words: Words, theme: Theme, letters: int) -> None:
        self._sheet, self._words, self._theme, self._size = sheet, words, theme, letters
        self._width, self._height = size
        self._step, self._margin = line_height(letters), round(letters * theme.margin)
        self._head = self._heading()
        top = self._margin + sum(self._step_of(line) for line in self._head)
        self._top = round(top + self._step * 0.4)
        bottom = self._height - self._step - self._margin // 2
        kept = round(self._height * _LEAST_FIGURES) if sheet.figures else 0
        first, others = ((bottom - kept - self._top) // self._step, (bottom - 2 * self._step) // self._step)
        whole, half = self._lines(self._inner), self._lines(self._column_width(2))
        self._across = 1 if len(whole) <= first else 2
        columns = _columns(whole if self._across == 1 else half, first, others, self._across)
        self.pages = [_Page(columns[n : n + self._across]) for n in range(0, len(columns), self._across)]
        self._add_sentences(first, others)
        self._bottom = bottom

    @property
    def _inner(self) -> int:
        return self._width - 2 * self._margin

    def _column_width(self, columns: int) -> int:
        return (self._inner - (columns - 1) * self._margin) // columns

    def _heading(self) -> list[tuple[str, int]]:
        """Text and size of the lines above the table, the banner not among them."""
        big = round(self._size * 1.4)
        lines = [(text, big) for text in wrapped(self._sheet.title, big, self._inner)]
        facts: list[str] = []
        for name, value in self._sheet.facts:
            together = f"{facts[-1]}   {name}: {value}" if facts else ""
            if facts and font(self._size).getlength(together) <= self._inner:
                facts[-1] = together
            else:
                facts.append(fitted(f"{name}: {value}", self._size, self._inner))
        lines += [(text, self._size) for text in facts]
        banner = len(wrapped(self._sheet.banner or "", self._size, self._inner))
        return [("", self._size)] * banner + lines

    def _step_of(self, line: tuple[str, int]) -> int:
        return line_height(line[1])

    def _lines(self, width: int) -> list[_Line]:
        return [line for block in self._sheet.blocks for line in self._block(block, width)]

    def _add_sentences(self, first: int, others: int) -> None:
        """After the table, each whole, on pages of their own where there is no room."""
        for sentence in self._sheet.sentences:
            lines = wrapped(sentence, self._size, self._inner)
            page = self.pages[-1]
            room = (first if len(self.pages) == 1 else others) - page.steps - len(page.sentences)
            if len(lines) > room and (page.steps or page.sentences):
                self.pages.append(_Page([]))
            self.pages[-1].sentences += lines

    def _block(self, block: Block, width: int) -> list[_Line]:
        face = font(self._size)
        room = width - 1.6 * self._size
        if len(block.rows) == 1:
            ((name, value),) = block.rows
            together = f"{name} {value}".strip()
            if face.getlength(block.heading) + face.getlength(together) <= room:
                return [_Line(block.heading, together, block.colour, heading=True)]
        lines = [_Line(block.heading, "", block.colour, heading=True)]
        for name, value in block.rows:
            if face.getlength(name) + face.getlength(value) <= room:
                lines.append(_Line(name, value))
            else:
                *before, last = wrapped(name, self._size, room)
                lines += [_Line(part) for part in before]
                if face.getlength(last) + face.getlength(value) <= room:
                    lines.append(_Line(last, value))
                else:
                    lines += [_Line(last), *(_Line("", part) for part in wrapped(value, self._size, room))]
        return lines

    def draw(self, new_page: Callable[[], _Drawn]) -> list[_Drawn]:
        """The pages, in their order, each on a new one."""
        drawn = []
        for number, content in enumerate(self.pages, 1):
            page = new_page()
            self._draw_banner(page)
            y = self._draw_heading(page) if number == 1 else self._margin + 2 * self._step
            width = self._column_width(self._across)
            for n, lines in enumerate(content.columns):
                self._draw_column(page, lines, self._margin + n * (width + self._margin), y, width)
            y += content.steps * self._step + (self._margin // 4 if content.sentences else 0)
            said = self._theme.faint if self._sheet.blocks else self._theme.letters
            for sentence in content.sentences:
                page.text(self._margin, y, sentence, self._size, said)
                y += self._step
            if number == 1 and self._sheet.figures:
                self._draw_figures(page, y + self._margin // 2)
            self._draw_foot(page, number, len(self.pages))
            drawn.append(page)
        return drawn

    def _draw_banner(self, page: Surface) -> None:
        lines = wrapped(self._sheet.banner or "", self._size, self._inner)
        if lines:
            height = self._margin // 2 + self._step * len(lines)
            page.rectangle(0, 0, self._width, height, self._theme.warning_ground)
        for n, line in enumerate(lines):
            y = self._margin // 4 + n * self._step
            page.text(self._margin, y, line, self._size, self._theme.warning)

    def _draw_heading(self, page: Surface) -> int:
        y = self._margin
        for text, size in self._head:
            page.text(self._margin, y, text, size, self._theme.letters if size > self._size else self._theme.faint)
            y += line_height(size)
        return self._top

    def _draw_column(self, page: Surface, lines: Sequence[_Line], left: int, top: int, width: int) -> None:
        face, size, theme = font(self._size), self._size, self._theme
        for n, line in enumerate(lines):
            y = top + n * self._step
            if line.heading:
                page.rectangle(left, y, left + width, y + max(1, size // 16), theme.faint)
            if line.swatch is not None:
                page.rectangle(left, y + size * 0.3, left + size * 0.75, y + size * 1.05, line.swatch)
            indent = round(size * 1.2)
            colour = theme.letters if line.heading else theme.faint
            page.text(left + indent, y, fitted(line.left, size, width - indent), size, colour)
            page.text(left + width - face.getlength(line.right), y, line.right, size, theme.letters)

    def _draw_figures(self, page: Surface, top: int) -> None:
        """As large as they go below ``top``, in one row or two."""
        figures = self._sheet.figures
        side, rows = 0, 1
        for count in (1, 2):
            across = -(-len(figures) // count)
            wide = (self._inner - (across - 1) * self._margin) // across
            high = (self._bottom - top) // count - self._step
            if min(wide, high) > side:
                side, rows = min(wide, high), count
        across = -(-len(figures) // rows)
        for n, figure in enumerate(figures):
            x = self._margin + (n % across) * (side + self._margin)
            y = top + (n // across) * (side + self._step)
            size = _within(figure, side)
            page.picture(x, y, size, figure.picture)
            caption = fitted(figure.caption, self._size, side)
            page.text(x, y + size[1], caption, self._size, self._theme.faint)

    def _draw_foot(self, page: Surface, number: int, count: int) -> None:
        if count > 1:
            text = self._words.page.format(page=number, pages=count)
            right = self._width - self._margin - font(self._size).getlength(text)
            page.text(right, self._height - self._step, text, self._size, self._theme.faint)


def _columns(lines: Sequence[_Line], first: int, others: int, per_page: int) -> list[list[_Line]]:
    """``lines`` in columns of at most that many: on the first page ``first``, on those after it ``others``.

    A finding goes to the next column as a whole where it is not longer than that. Two columns that are all there is
    are about equally long.
    """
    groups = _groups(lines)
    if per_page == 2:
        for even in range(-(-len(lines) // 2), first + 1):
            columns = _filled(groups, even, even, per_page)
            if len(columns) <= per_page:
                return columns
    return _filled(groups, first, others, per_page)


def _filled(groups: Sequence[Sequence[_Line]], first: int, others: int, per_page: int) -> list[list[_Line]]:
    columns: list[list[_Line]] = [[]]
    for group in groups:
        for n, line in enumerate(group):
            room = max(first if len(columns) <= per_page else others, 1)
            left = room - len(columns[-1])
            if columns[-1] and (left < 1 or (n == 0 and left < len(group) <= room)):
                columns.append([])
            columns[-1].append(line)
    return columns


def _groups(lines: Sequence[_Line]) -> list[list[_Line]]:
    """``lines`` by finding."""
    groups: list[list[_Line]] = []
    for line in lines:
        if line.heading or not groups:
            groups.append([])
        groups[-1].append(line)
    return groups


def _within(figure: Figure, side: int) -> tuple[int, int]:
    """Width and height of the picture of ``figure`` within a square, its pixels as wide as high."""
    rows, columns = figure.picture.shape[:2]
    height, width = rows * figure.aspect, float(columns)
    share = side / max(height, width)
    return max(1, round(width * share)), max(1, round(height * share))
