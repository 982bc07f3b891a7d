"""Result objects as they are read back from disk, for the rules that they are held to.

The captures of a set are hundreds of objects that have most of their elements alike, byte for byte. Such an element is
decoded once, and what is true of it alone is found once; what counts are the bytes that lie in each file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from pydicom import dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_sr.segmentation import LABEL_MAP_STORAGE

_FRAME_CONTENT = Tag("FrameContentSequence")
_INDEX_HEAD = b"\x20\x00\x57\x91UL"  # of DimensionIndexValues, behind the eight bytes of an item's head
_LONG = 1 << 16  # bytes; what is longer is pixel data, which no two objects have alike


class Kind(StrEnum):
    """What kind of result an object is."""

    SEG = "SEG"
    PM = "PM"
    SC = "SC"
    MULTIFRAME_SC = "multi-frame SC"
    PR = "PR"
    KO = "KO"
    DOC = "DOC"
    OLDER_SR = "older SR"
    SR = "SR"


_KINDS = {
    SegmentationStorage: Kind.SEG,
    LABEL_MAP_STORAGE: Kind.SEG,
    ParametricMapStorage: Kind.PM,
    SecondaryCaptureImageStorage: Kind.SC,
    MultiFrameTrueColorSecondaryCaptureImageStorage: Kind.MULTIFRAME_SC,
    GrayscaleSoftcopyPresentationStateStorage: Kind.PR,
    KeyObjectSelectionDocumentStorage: Kind.KO,
    EncapsulatedPDFStorage: Kind.DOC,
    BasicTextSRStorage: Kind.OLDER_SR,
    EnhancedSRStorage: Kind.OLDER_SR,
    ComprehensiveSRStorage: Kind.OLDER_SR,
    Comprehensive3DSRStorage: Kind.SR,
}
SR_KINDS = frozenset({Kind.SR, Kind.OLDER_SR})

Judge: TypeAlias = "Callable[[Part], Iterable[str]]"


@dataclass(frozen=True, eq=False)
class Part:
    """An element of a data set, with all below it; objects that encode it alike have it in common.

    ``elements`` are it and those below it, of every depth; a sequence that is encoded like one before it, as the frames
    of a segmentation have hundreds, is looked into once, and is one object from then on.
    """

    element: DataElement
    elements: Sequence[DataElement]
    _said: dict[Judge, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, element: DataElement) -> Part:
        """Decodes all of it."""
        return cls(element, [element, *(_below(element, {}) if element.VR == "SQ" else ())])

    @cached_property
    def items(self) -> Sequence[Dataset]:
        """Every sequence item, of every depth."""
        return [item for element in self.elements if element.VR == "SQ" for item in element.value]

    @cached_property
    def references(self) -> Sequence[Dataset]:
        """The items that refer to an instance."""
        return [item for item in self.items if "ReferencedSOPInstanceUID" in item]

    @cached_property
    def series(self) -> Sequence[Dataset]:
        """The items that list instances of a series."""
        return [item for item in self.items if "SeriesInstanceUID" in item and "ReferencedInstanceSequence" in item]

    @cached_property
    def invalid_uids(self) -> Sequence[tuple[str, str]]:
        """Keyword and value of every UID that is none (PS3.5 9.1)."""
        found = [element for element in self.elements if element.VR == "UI" and not element.is_empty]
        values = [(e.keyword, uid) for e in found for uid in (e.value if e.VM > 1 else [e.value])]
        return [(keyword, str(uid)) for keyword, uid in values if not uid.is_valid]

    def said(self, judge: Judge) -> list[str]:
        """What ``judge`` finds wrong with it, looked at once."""
        if judge not in self._said:
            self._said[judge] = list(judge(self))
        return self._said[judge]


def _below(sequence: DataElement, known: dict[tuple[int, bytes], DataElement]) -> Iterator[DataElement]:
    for item in sequence.value:
        for tag in list(item.keys()):
            raw = item.get_item(tag)
            key = None
            if isinstance(raw, RawDataElement) and raw.VR == "SQ" and raw.value:
                key = int(tag), _without_indices(raw)
                if key in known:
                    if key[1] is raw.value:
                        item[tag] = known[key]
                    continue
            element = item[tag]
            if key is not None:
                known[key] = element
            yield element
            if element.VR == "SQ":
                yield from _below(element, known)


def _without_indices(raw: RawDataElement) -> bytes:
    """The encoded sequence; of the frame content that holds the dimension indices of a frame alone, all but those.

    They are numbers that no rule looks at, and other ones for each of thousands of frames.
    """
    encoded: bytes = raw.value or b""
    alone = raw.tag == _FRAME_CONTENT and encoded[8:14] == _INDEX_HEAD
    return encoded[:16] if alone and len(encoded) == 16 + int.from_bytes(encoded[14:16], "little") else encoded


@dataclass(frozen=True, eq=False)
class Result:
    """One result object as it was read back; its parts in the order that they lie in."""

    kind: Kind
    dataset: Dataset
    parts: Sequence[Part]

    @cached_property
    def content(self) -> Sequence[Dataset]:
        """The content items of a document, of every depth, parents first."""
        return list(content(self.dataset))


def content(item: Dataset) -> Iterator[Dataset]:
    """Content items below ``item``, of every depth, parents first."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from content(child)


class Reader:
    """Reads the results of one set."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Part] = {}

    def read(self, path: Path) -> Result:
        """The object at ``path``, every element decoded.

        Raises:
            InvalidDicomError: it is no DICOM file.
            OSError: it cannot be read, or ends within a sequence.
            ValueError: a value cannot be decoded, or its SOP class is no result of ours.
        """
        dataset = dcmread(path)
        kind = _KINDS.get(dataset.get("SOPClassUID"))
        if kind is None:
            raise ValueError("not a SOP class of a result")
        character_set = str(dataset.original_character_set)
        return Result(kind, dataset, [self._part(dataset, tag, character_set) for tag in list(dataset.keys())])

    def _part(self, dataset: Dataset, tag: BaseTag, character_set: str) -> Part:
        raw = dataset.get_item(tag)
        # Without a VR of its own, and where it is private, what an element means hangs on others.
        if not isinstance(raw, RawDataElement) or raw.VR is None or tag.is_private or len(raw.value or b"") > _LONG:
            return Part.of(dataset[tag])
        key = int(tag), raw.VR, raw.value, raw.is_little_endian, character_set
        if key not in self._known:
            self._known[key] = Part.of(dataset[tag])
        dataset[tag] = self._known[key].element
        return self._known[key]
