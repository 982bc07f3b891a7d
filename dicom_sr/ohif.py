"""What OHIF needs to take a finding over as a measurement of its own: the name of its tool, where it looks for one.

The adapters of OHIF 3.13 (@cornerstonejs/adapters 5.6) find the tool of a measurement group by the beginning of its
Tracking Identifier, and its label in a comment. What follows the name of the tool they leave alone, so the label of
the finding stands there too, for other readers.
"""

from __future__ import annotations

import numpy as np
from highdicom import sr
from highdicom.sr.enum import RelationshipTypeValues as Relationship
from pydicom.dataset import Dataset

from dicom_sr import codes
from node.domain.finding import Code, Mark, Measurement, Region, Shape
from node.domain.volume import Volume

_TAG = "Cornerstone3DTools@^0.1.0"
_PARTS = 2  # of a tracking identifier, before the label
# By these meanings, not by their codes, the adapters find the groups: they stay English in every language.
LOOKED_UP = frozenset({("DCM", "126010"), ("DCM", "125007"), ("DCM", "112039"), ("DCM", "112040")})
_SQUARE = 1e-3  # share of the spacing
_ENDS = 2  # of a line
_LENGTH, _AREA = Code("410668003", "SCT", "Length"), Code("42798000", "SCT", "Area")
# Length, width, diameter; long and short, major and minor axis (PS3.16 CID 7470).
_LENGTHS = frozenset(
    ("SCT", value)
    for value in ("410668003", "103355008", "81827009", "103339001", "103340004", "131187009", "131188004")
)


def takes_over(volume: Volume) -> bool:
    """Whether OHIF measures rightly what it takes over: it swaps the two spacings of pixels that are not square."""
    _, y, x = volume.spacing
    return abs(y - x) <= _SQUARE * x


def tool(found: Region | Mark, volume: Volume) -> str:
    """The tool of OHIF that draws what ``found`` is."""
    if isinstance(found, Region) or found.shape is Shape.BOX:
        return "RectangleROI"
    if found.shape is Shape.POINT:
        return "ArrowAnnotate"
    is_line = found.shape is Shape.POLYLINE and size(found, volume) is not None
    return "Length" if is_line else "PlanarFreehandROI"


def size(mark: Mark, volume: Volume) -> Measurement | None:
    """How long a line between two points is, or how large an outline: OHIF takes over neither without that number.

    It is the one that the pipeline says, else that of the points themselves. None for every other mark, and for a line
    on an image without spacing.
    """
    if mark.shape is Shape.POLYGON:
        said = (m for m in mark.measurements if (m.name.scheme, m.name.value) == (_AREA.scheme, _AREA.value))
        return next(said, None) or _area(mark, volume)
    if mark.shape is not Shape.POLYLINE or len(mark.points) != _ENDS:
        return None
    lengths = (m for m in mark.measurements if m.unit.value == "mm" and (m.name.scheme, m.name.value) in _LENGTHS)
    return next(lengths, None) or _length(mark, volume)


def _area(mark: Mark, volume: Volume) -> Measurement:
    _, y, x = volume.spacing
    rows, columns = mark.points[:, 1], mark.points[:, 2]
    pixels = abs(float(np.dot(rows, np.roll(columns, 1)) - np.dot(columns, np.roll(rows, 1)))) / 2
    if not volume.in_mm:
        return Measurement("area", _AREA, pixels, Code("{pixels}", "UCUM", "pixels"))
    return Measurement("area", _AREA, pixels * x * y, Code("mm2", "UCUM", "square millimeter"))


def _length(mark: Mark, volume: Volume) -> Measurement | None:
    if not volume.in_mm:
        return None
    _, y, x = volume.spacing
    _, rows, columns = mark.points[1] - mark.points[0]
    return Measurement("length", _LENGTH, float(np.hypot(rows * y, columns * x)), Code("mm", "UCUM", "millimeter"))


def identifier(found: Region | Mark, volume: Volume) -> str:
    """Tracking Identifier (112039, DCM)."""
    return f"{_TAG}:{tool(found, volume)}:{found.label}"


def label_of(identifier: str) -> str:
    """What `identifier` named, or a label as it is."""
    return identifier.split(":", _PARTS)[-1] if identifier.startswith(f"{_TAG}:") else identifier


def name(group: Dataset, found: Region | Mark) -> None:
    """Write the label of ``found`` into its measurement group as the comment that OHIF shows."""
    text = found.label
    group.ContentSequence.append(
        sr.TextContentItem(codes.concept(codes.COMMENT), text, relationship_type=Relationship.CONTAINS)
    )
