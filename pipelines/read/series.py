"""The instances of a series as a stack of frames."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from node.domain.errors import Refused
from node.domain.study import SeriesContent
from pipelines.read.frames import frames_of
from pipelines.read.header import Header, read_header
from pipelines.read.stack import Stack, stack

_FILES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class StackedSeries:
    """The headers of the slices of a series, and the stack that their frames have been proved to make.

    ``localizers`` are scout images to plan by (PS3.3 C.8.2.1.1.1) among them: they are left out, and told.
    """

    headers: tuple[Header, ...]
    stack: Stack
    localizers: tuple[Header, ...]


def read_headers(series: SeriesContent) -> list[Header]:
    """The headers of every instance.

    Raises:
        Refused: a file cannot be read.
    """
    # Python takes the time where files are in memory; on a disk they are waited for together.
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return list(pool.map(read_header, series.instances))


def stacked(headers: Sequence[Header]) -> StackedSeries:
    """Prove that the frames of a series make a stack.

    Raises:
        Refused: they do not, or an instance is none that a volume can be made of; the reason names it.
    """
    if not headers:
        raise Refused("too-few-slices", "the series holds no instance")
    localizers = [header for header in headers if "LOCALIZER" in header.texts("ImageType")]
    if len(localizers) == len(headers):
        raise Refused("localizer", f"{len(headers)} localizer image(s)")
    images = [header for header in headers if header not in localizers]
    frames = [frame for header in images for frame in frames_of(header)]
    distinct = len({header.text("SOPInstanceUID") for header in images})
    if distinct != len(images):
        raise Refused("duplicate-slices", f"{len(images)} instances share {distinct} SOPInstanceUID(s)")
    _complete_concatenations(images)
    units = sorted({frame.unit for frame in frames})
    if len(units) > 1:
        raise Refused("mixed-units", f"the values of the slices are in {', '.join(units)}")
    return StackedSeries(tuple(images), stack(frames), tuple(localizers))


def _complete_concatenations(headers: Sequence[Header]) -> None:
    """A multi-frame image may come in several instances, that say how many they are (PS3.3 C.7.6.16.2.2.4)."""
    parts: dict[str, list[Header]] = {}
    for header in headers:
        if uid := header.text("ConcatenationUID"):
            parts.setdefault(uid, []).append(header)
    for uid, found in parts.items():
        total = max(int(header.text("InConcatenationTotalNumber") or 0) for header in found)
        if len(found) < total:
            raise Refused("missing-slices", f"{len(found)} of the {total} instances of concatenation {uid} are here")
