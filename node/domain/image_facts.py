"""What the header of an encoded data set says of the place of its instance in the series."""

from __future__ import annotations

from collections.abc import Mapping

from node.domain.completeness import ImageFacts
from node.domain.encoded import Encoded, encoding_of, values

_SOP_CLASS, _IMAGE_TYPE, _MODALITY = 0x00080016, 0x00080008, 0x00080060
_POSITION, _ORIENTATION = 0x00200032, 0x00200037
_INSTANCE_NUMBER, _ACQUISITION_NUMBER, _IMAGES_IN_ACQUISITION = 0x00200013, 0x00200012, 0x00201002
_CONCATENATION, _PARTS, _FRAMES = 0x00209161, 0x00209163, 0x00280008
_TAGS = frozenset(
    (
        *(_SOP_CLASS, _IMAGE_TYPE, _MODALITY, _POSITION, _ORIENTATION),
        *(_INSTANCE_NUMBER, _ACQUISITION_NUMBER, _IMAGES_IN_ACQUISITION),
        *(_CONCATENATION, _PARTS, _FRAMES),
    )
)


def facts_of(dataset: Encoded, transfer_syntax_uid: str) -> ImageFacts:
    """Read what is there and makes sense; nothing behind the last element of interest is looked at."""
    found, _ = values(dataset, transfer_syntax_uid, _TAGS, whole=False)
    text = {tag: value.decode("latin-1").strip("\0 ") for tag, value in found.items()}
    parts = found.get(_PARTS, b"")  # US; all others are text
    return ImageFacts(
        sop_class_uid=text.get(_SOP_CLASS, ""),
        modality=text.get(_MODALITY, ""),
        image_type=tuple(value.strip().upper() for value in text.get(_IMAGE_TYPE, "").split("\\") if value),
        position=_numbers(text, _POSITION, 3),
        orientation=_numbers(text, _ORIENTATION, 6),
        instance_number=_number(text, _INSTANCE_NUMBER),
        acquisition_number=_number(text, _ACQUISITION_NUMBER),
        images_in_acquisition=_number(text, _IMAGES_IN_ACQUISITION),
        frames=_number(text, _FRAMES),
        in_concatenation=bool(text.get(_CONCATENATION)),
        parts=int.from_bytes(parts, "big" if encoding_of(transfer_syntax_uid).big_endian else "little") or None,
    )


def _numbers(text: Mapping[int, str], tag: int, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(map(float, text.get(tag, "").split("\\")))
    except ValueError:
        return None
    return numbers if len(numbers) == count else None


def _number(text: Mapping[int, str], tag: int) -> int | None:
    try:
        return int(text.get(tag, ""))
    except ValueError:
        return None
