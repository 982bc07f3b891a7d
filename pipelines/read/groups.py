"""Functional groups: what a multi-frame image says of each of its frames (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

from node.domain.errors import Refused
from node.domain.study import InstanceFile

Values = tuple[str | int, ...]

# Those that say something about a frame's voxels or the choice of a series (PS3.3 C.7.6.16.2, C.8.13.5, C.8.15.3,
# C.8.19.6.4).
_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "CTImageFrameTypeSequence",
    "CTReconstructionSequence",
    "MRImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "FramePixelDataPropertiesSequence",
)
# What pydicom raises for values that it cannot convert, which it does on first access.
UNREADABLE = (ValueError, TypeError, NotImplementedError, EOFError, BytesLengthException, InvalidDicomError)


def functional_groups(file: InstanceFile, keywords: Collection[str]) -> tuple[Mapping[str, Values], ...]:
    """The elements ``keywords`` of each frame; a macro is per frame or shared, never both (PS3.3 C.7.6.16.1.1).

    Raises:
        Refused: they cannot be read.
    """
    try:
        tags = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
        dataset = dcmread(file.path, stop_before_pixels=True, specific_tags=tags)
        shared, per_frame = (dataset.get(tag) or [] for tag in tags)
        common = _macros(shared[0], keywords) if shared else {}
        return tuple(_flat(common | _macros(frame, keywords)) for frame in per_frame)
    except UNREADABLE as error:
        name = f"instance {file.sop_instance_uid}"
        raise Refused("missing-geometry", f"{name}: the functional groups cannot be read: {error}") from error


def _macros(groups: Any, keywords: Collection[str]) -> dict[str, dict[str, Values]]:
    """The elements of the only item of each macro."""
    return {
        macro: {keyword: _values(item[keyword].value) for keyword in keywords if keyword in item}
        for macro in _MACROS
        if macro in groups
        for item in groups[macro].value[:1]
    }


def _flat(macros: Mapping[str, Mapping[str, Values]]) -> dict[str, Values]:
    return {keyword: values for elements in macros.values() for keyword, values in elements.items()}


def _values(value: Any) -> Values:
    if value is None or value == "":
        return ()
    several = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return tuple(str(each).strip() for each in several)
