"""What a pipeline selected, read as it asked for."""

from __future__ import annotations

from node.domain.volume import Volume
from pipelines.contract import Selection
from pipelines.read.images import read_images
from pipelines.read.volume import read_volume


def read(selection: Selection) -> tuple[Volume, ...]:
    """The volumes of a selection, what findings lie on first; for a planar one every image by itself.

    Raises:
        Refused: what was selected is no volume, or no image.
        InvalidInstance: a stored file is damaged.
    """
    series = (selection.series, *selection.more)
    if selection.planar:
        return tuple(image for each in series for image in read_images(each))
    return tuple(map(read_volume, series))
