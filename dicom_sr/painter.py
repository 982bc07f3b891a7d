"""Slices as people see them: windowed, with regions, marks and heat maps. Every picture of a result is painted here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dicom_sr.keys import areas, shown_share, slices_of
from dicom_sr.lettering import Colour, Stamp, font, label, line_height, size_for, strip
from dicom_sr.words import Words
from node.domain.finding import Findings, Map, Mark, Region, Shape

Picture = NDArray[np.uint8]  # (rows, columns, 3), RGB

_FILL = 0.35  # opacity of a region that is painted rather than outlined
_HEAT = 0.55  # opacity of the highest value of a heat map
_VEIL = 0.65  # opacity of the ground behind burned-in text
_PIXELS_PER_LINE = 640  # a line is one pixel wide for every so many of the picture
_LEGEND_SHARE = 0.5  # of the height
# Ramps of heat maps, by the place of the map among the findings: dark to bright, so that they read in grey too.
_RAMPS: Sequence[Sequence[Colour]] = (
    ((80, 0, 60), (200, 30, 40), (255, 140, 0), (255, 240, 120)),
    ((0, 40, 90), (0, 120, 170), (60, 200, 190), (220, 255, 220)),
)


class Painter:
    """Paints the slices of the volume of ``findings``.

    Indices are those of the volume; the centre of pixel 0 lies at 0. What has no value on a slice is not drawn there.
    """

    def __init__(self, findings: Findings, banner: Sequence[str], words: Words) -> None:
        self.findings = findings
        self.area = areas(findings)
        self._words = words
        self._banner = banner
        _, self.rows, self.columns = findings.volume.shape
        self.size = size_for(self.rows, self.columns)
        centre, width = findings.window
        self._low, self._scale = np.float32(centre - width / 2), np.float32(255 / width)
        self._grey = np.empty((self.rows, self.columns), np.float32)
        regions = [(n, region) for n, region in enumerate(findings.regions) if region.in_segmentation]
        # What is painted lies under what is outlined.
        self._regions = sorted(regions, key=lambda found: outlined(found[1]))
        self._marks: dict[int, list[Mark]] = {}
        for mark in findings.marks:
            for k in slices_of(mark, findings.volume.shape[0]):
                self._marks.setdefault(k, []).append(mark)

    def paint(self, k: int, line: int | None = None) -> Picture:
        """Slice ``k`` without a word: window, heat maps, regions, marks; lines are ``line`` pixels wide."""
        line = line or max(1, round(min(self.rows, self.columns) / _PIXELS_PER_LINE))
        picture = self._window(k)
        for n, heat in enumerate(self.findings.maps):
            _blend(picture, heat, heat.values[k], _ramp(n))
        for n, region in self._regions:
            if self.area[n, k]:
                _draw_region(picture, region, region.mask[k], line)
        if k in self._marks:
            picture = self._draw_marks(picture, self._marks[k], line)
        return picture

    def capture(self, k: int) -> Picture:
        """Slice ``k`` with everything: the banner, the names of marks, the legend and the bars of heat maps."""
        picture = self.paint(k)
        taken: list[tuple[int, int, int, int]] = []
        for mark in self._marks.get(k, ()):
            _name_mark(picture, mark, self._names[mark.key], taken)
        self._top.press(picture, 0, 0)
        bottom = self.rows - 3
        for bar in self._bars:
            bottom -= bar.rows
            bar.press(picture, bottom, self.columns - bar.columns - 3)
        self._legend(picture, k)
        return picture

    def _window(self, k: int) -> Picture:
        grey = self._grey
        np.subtract(self.findings.volume.voxels[k], self._low, out=grey)
        np.multiply(grey, self._scale, out=grey)
        np.clip(grey, 0, 255, out=grey)
        return np.array(Image.fromarray(grey.astype(np.uint8)).convert("RGB"))

    def _draw_marks(self, picture: Picture, marks: Sequence[Mark], line: int) -> Picture:
        canvas = Image.fromarray(picture)
        draw = ImageDraw.Draw(canvas)
        for mark in marks:
            _draw_mark(draw, mark, line, self.size)
        return np.array(canvas)

    def _legend(self, picture: Picture, k: int) -> None:
        """Names of the regions on slice ``k``, the larger ones where there are too many for the lower left corner."""
        present = [n for n, _ in self._regions if self.area[n, k]]
        room = max(1, int(self.rows * _LEGEND_SHARE) // line_height(self.size))
        left_out = len(present) - room
        if left_out > 0:
            present = sorted(present, key=lambda n: -self.area[n, k])[: room - 1]
        lines = [self._entries[n] for n in sorted(present)]
        if left_out > 0:
            lines.append(self._entry(self._words.more.format(count=left_out + 1)))
        top = self.rows - 3 - line_height(self.size) * len(lines)
        for n, entry in enumerate(lines):
            entry.press(picture, top + n * line_height(self.size), 3)

    def _entry(self, text: str, swatch: Colour | None = None) -> Stamp:
        # Beside the bars of heat maps, which take up to half the width.
        share = 0.47 if self.findings.maps else 0.6
        return label(text, self.size, width=self.columns * share, swatch=swatch)

    @cached_property
    def _top(self) -> Stamp:
        return strip(self._banner, self.size, self.columns, veil=_VEIL)

    @cached_property
    def _entries(self) -> dict[int, Stamp]:
        return {n: self._entry(region.label, region.colour) for n, region in self._regions}

    @cached_property
    def _names(self) -> dict[str, Stamp]:
        """Label and confidence of each mark, by its key."""
        return {
            mark.key: label(named(mark, self._words), self.size, width=self.columns * 0.5, colour=mark.colour)
            for mark in self.findings.marks
        }

    @cached_property
    def _bars(self) -> list[Stamp]:
        return [_bar(heat, _ramp(n), self.size, self.columns, self._words) for n, heat in enumerate(self.findings.maps)]


def outlined(region: Region) -> bool:
    """Whether ``region`` is drawn as an outline. What is no anatomical structure is scattered: it is painted."""
    return region.type.value == region.site.value


def named(mark: Mark, words: Words) -> str:
    """The label of a mark with its confidence in percent."""
    if mark.confidence is None:
        return mark.label
    return f"{mark.label} {words.number(100 * mark.confidence, 0)} %"


def _draw_region(picture: Picture, region: Region, mask: NDArray[np.bool_], line: int) -> None:
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = rows[0], rows[-1] + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    box = slice(top, bottom), slice(columns[0], columns[-1] + 1)
    below, inside = picture[box], mask[box]
    if outlined(region):
        below[_edge(inside, line)] = region.colour
    else:
        colour = (np.array(region.colour, np.uint16) * round(256 * _FILL)).astype(np.uint16)
        below[inside] = (below[inside] * np.uint16(256 - round(256 * _FILL)) + colour) >> 8


def _edge(mask: NDArray[np.bool_], line: int) -> NDArray[np.bool_]:
    """The outermost ``line`` pixels of ``mask`` (rows, columns), so that the outer side of a line is exact."""
    inner = mask
    for _ in range(line):
        before, inner = inner, np.zeros_like(mask)
        inner[1:-1, 1:-1] = (
            before[1:-1, 1:-1] & before[:-2, 1:-1] & before[2:, 1:-1] & before[1:-1, :-2] & before[1:-1, 2:]
        )
    return mask & ~inner


def _ramp(n: int) -> NDArray[np.uint8]:
    """256 colours."""
    anchors = np.array(_RAMPS[n % len(_RAMPS)], np.float64)
    at = np.linspace(0, 255, len(anchors))
    return np.stack([np.interp(np.arange(256), at, channel) for channel in anchors.T], axis=-1).astype(np.uint8)


def _blend(picture: Picture, heat: Map, values: NDArray[np.float32], ramp: NDArray[np.uint8]) -> None:
    """Lay a heat map over ``picture``: the higher a value, the less shows through; at and below the lower end all."""
    level = shown_share(heat, values)
    np.multiply(level, 255, out=level)
    level = level.astype(np.uint8)
    rows = np.flatnonzero(level.any(axis=1))
    if not rows.size:
        return
    top, bottom = rows[0], rows[-1] + 1
    columns = np.flatnonzero(level[top:bottom].any(axis=0))
    box = slice(top, bottom), slice(columns[0], columns[-1] + 1)
    opacity = np.rint(np.arange(256) * (_HEAT * 256 / 255)).astype(np.uint16)[:, None]
    ink, clear = ramp * opacity, np.repeat(256 - opacity, 3, axis=-1)
    level = level[box]
    picture[box] = (picture[box] * clear[level] + ink[level]) >> 8


def _pixels(mark: Mark) -> list[tuple[int, int]]:
    """(column, row) of the pixels that the points of ``mark`` lie in."""
    return [(int(np.floor(c + 0.5)), int(np.floor(r + 0.5))) for _, r, c in mark.points]


def _box(mark: Mark) -> tuple[int, int, int, int]:
    """Left, top, right, bottom: the outermost pixels that ``mark`` has a part of."""
    low, high = mark.points.min(axis=0), mark.points.max(axis=0)
    if mark.shape is not Shape.BOX:
        low, high = np.floor(low + 0.5), np.floor(high + 0.5)
    top, left = np.floor(low[1:] + 0.5).astype(int)
    bottom, right = np.maximum(np.ceil(high[1:] - 0.5).astype(int), (top, left))
    return int(left), int(top), int(right), int(bottom)


def _draw_mark(draw: ImageDraw.ImageDraw, mark: Mark, line: int, size: int) -> None:
    if mark.shape is Shape.BOX:
        draw.rectangle(_box(mark), outline=mark.colour, width=line)
    elif mark.shape is Shape.POINT:
        ((x, y),) = _pixels(mark)
        inner, outer = max(2, size // 4), max(4, size * 3 // 4)
        # A cross with an open centre: what it points at stays visible.
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            ends = (x + dx * inner, y + dy * inner, x + dx * outer, y + dy * outer)
            draw.line(ends, fill=mark.colour, width=line)
    else:
        points = _pixels(mark)
        if mark.shape is Shape.POLYGON:
            points.append(points[0])
        draw.line(points, fill=mark.colour, width=line)


def _name_mark(picture: Picture, mark: Mark, name: Stamp, taken: list[tuple[int, int, int, int]]) -> None:
    """Write the name right of the mark, or left where there is no room, below other names."""
    left, top, right, _ = _box(mark)
    gap = name.rows // 2
    column = right + gap if right + gap + name.columns <= picture.shape[1] else max(0, left - gap - name.columns)
    row = min(max(top - gap, 0), picture.shape[0] - name.rows)
    while any(row < b and row + name.rows > t and column < r and column + name.columns > x for x, t, r, b in taken):
        row += name.rows
    taken.append((column, row, column + name.columns, row + name.rows))
    name.press(picture, row, column)


def _bar(heat: Map, ramp: NDArray[np.uint8], size: int, columns: int, words: Words) -> Stamp:
    """The colours of a heat map with the values at their ends, under its label."""
    height = line_height(size)
    width = round(min(max(columns * 0.3, font(size).getlength(heat.label) + 12), columns * 0.5))
    bar = Image.new("RGB", (width, 3 * height))
    colours = Image.fromarray(np.broadcast_to(ramp[None], (1, 256, 3)).copy())
    bar.paste(colours.resize((width - 8, height - 4)), (4, height + 2))
    unit = "" if heat.unit.value in ("1", "{ratio}") else f" {heat.unit.value}"
    ends = [f"{words.number(value, 0 if float(value).is_integer() else 2)}{unit}" for value in heat.shown]
    picture = np.array(bar)
    label(heat.label, size, width=width - 6).press(picture, 0, 3)
    left, right = (label(text, size, width=width / 2 - 4) for text in ends)
    left.press(picture, 2 * height, 3)
    right.press(picture, 2 * height, width - right.columns - 3)
    return Stamp.of(Image.fromarray(picture).convert("RGBA"))
