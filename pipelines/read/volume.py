"""A series of CT, MR or PET instances to a `Volume`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from node.domain.errors import Refused
from node.domain.study import InstanceFile, SeriesContent
from node.domain.volume import Volume
from pipelines.read.contents import check
from pipelines.read.crew import fill_volume
from pipelines.read.frames import Frame
from pipelines.read.header import Header, Span
from pipelines.read.series import StackedSeries, read_headers, stacked
from pipelines.read.slices import PADDING_HU, Slice, padding_range


def read_volume(series: SeriesContent) -> Volume:
    """Read, check, order and rescale a series.

    Every instance behind a slice is held against its digest; each slice is rescaled with its own slope and intercept
    (PS3.3 C.11.1.1.2). PixelPaddingValue and its range become `PADDING_HU`, and 0 where the unit is not HU. Localizer
    images among the slices are left out. Memory grows by the volume, and by little more while it is read.

    Raises:
        Refused: the series makes no volume; the reason names the instance, the element or the place.
        InvalidInstance: a stored file is damaged.
    """
    try:
        found = stacked(read_headers(series))
        slices, checks = _slices(found)
    except Refused:
        # A damaged file may look like anything: that it is damaged is then the better answer.
        for instance in series.instances:
            check(instance)
        raise
    voxels = fill_volume(slices, checks)
    first = found.stack.frames[0]
    return Volume(
        voxels=voxels,
        affine=found.stack.affine,
        sources=tuple(frame.source for frame in found.stack.frames),
        series_uid=first.series_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        unit=first.unit,
    )


def _slices(found: StackedSeries) -> tuple[list[Slice], list[Callable[[], None]]]:
    """What is to be read, in order, and the checks of files that hold several frames."""
    headers = {header.text("SOPInstanceUID"): header for header in found.headers}
    spans = {uid: header.spans() for uid, header in headers.items()}
    slices = []
    for frame in found.stack.frames:
        uid = frame.source.sop_instance_uid
        slices.append(slice_of(headers[uid], frame, spans[uid][frame.index]))
    shared: list[InstanceFile] = [header.file for header in found.headers if header.shared]
    return slices, [partial(check, file) for file in shared]


def slice_of(header: Header, frame: Frame, spans: tuple[Span, ...]) -> Slice:
    """How one frame of an instance is read."""
    pixel = header.image_pixel()
    padding = header.shorts("PixelPaddingValue") + header.shorts("PixelPaddingRangeLimit")
    return Slice(
        source=frame.source,
        file=header.file,
        head_length=header.head_length,
        shares_file=header.shared,
        spans=spans,
        pixel=pixel,
        slope=frame.slope,
        intercept=frame.intercept,
        padding=padding_range(padding, signed=pixel.signed) if header.shorts("PixelPaddingValue") else None,
        padding_as=PADDING_HU if frame.unit == "HU" else 0.0,
        inflated=header.inflated,
    )
