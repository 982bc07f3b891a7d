"""Is an object that came again the same one, with another patient or order in its header?

A PACS that corrects a patient, or joins a study to another order, sends what it holds again: same SOPInstanceUIDs, same
pixel data, other identity. Decoded values are compared, as a PACS may also write them in another way.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from threading import Lock
from typing import Any, BinaryIO, cast

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from node.domain.encoded import Element, Encoded, Malformed, elements, encoding_of

# Patient, order and study: what a correction may change. Everything else has to be as it was.
IDENTITY = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "PatientAge",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "PatientComments",
    "EthnicGroup",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyID",
    "StudyDescription",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "RequestingPhysician",
    "RequestingService",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ProcedureCodeSequence",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "RequestAttributesSequence",
    "ReferencedStudySequence",
    "ReferencedPatientSequence",
)
# How it is written, and who wrote it when: whoever sends an object again may change these.
_WRITING = (
    "SpecificCharacterSet",
    "InstanceCoercionDateTime",
    "OriginalAttributesSequence",
    "ModifiedAttributesSequence",
    "InstanceAvailability",
    "RetrieveAETitle",
)
_IDENTITY_TAGS = {Tag(keyword): keyword for keyword in IDENTITY}
_LEFT_OUT = {*_IDENTITY_TAGS, *map(Tag, _WRITING)}

_PIXELS = 0x7FE00000  # group of pixel data; what follows the header is compared as bytes
_PADDING = 0xFFFCFFFC
_CHUNK = 1 << 20
_DEFLATED = "1.2.840.10008.1.2.1.99"
_UNREADABLE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, RecursionError, TypeError),
    *(ValueError, struct.error),
)
_VALIDATION = Lock()  # pydicom's switch, and that of the warnings, are one for the whole process


@dataclass(frozen=True)
class Written:
    """A data set as it lies somewhere, and its transfer syntax."""

    dataset: Encoded
    transfer_syntax_uid: str


def changed_identity(kept: Written, came: Written) -> tuple[str, ...] | None:
    """The keywords of `IDENTITY` whose values differ; None where anything else differs, or where it cannot be told.

    Pixel data are compared as they are encoded: in another compression they count as other pixel data.
    """
    if _DEFLATED in (kept.transfer_syntax_uid, came.transfer_syntax_uid):
        return None
    # pydicom's warnings would name a patient's values, and what is damaged is judged here.
    with _VALIDATION, disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            (ours, our_end), (theirs, their_end) = _header(kept), _header(came)
            if not _same_all(ours, theirs, _LEFT_OUT):
                return None
            if not _same_pixels(kept, our_end, came, their_end):
                return None
            return tuple(keyword for tag, keyword in _IDENTITY_TAGS.items() if not _same(ours, theirs, tag))
        except (*_UNREADABLE, Malformed):
            return None


def _same_all(ours: Dataset, theirs: Dataset, left_out: Collection[BaseTag] = ()) -> bool:
    """Group lengths are left out, too (PS3.5 7.2)."""
    tags = {*ours.keys(), *theirs.keys()}.difference(left_out)
    return all(_same(ours, theirs, tag) for tag in tags if tag.element)


def _same(ours: Dataset, theirs: Dataset, tag: BaseTag) -> bool:
    """What is absent is as good as what is empty."""
    read = [ds.get_item(tag) if tag in ds else None for ds in (ours, theirs)]
    one, other = (ds.get(tag) for ds in (ours, theirs))
    if one is None or other is None or one.is_empty or other.is_empty:
        return all(element is None or element.is_empty for element in (one, other))
    if one.VR == other.VR == "SQ":
        return len(one.value) == len(other.value) and all(map(_same_all, one.value, other.value))
    if one.VR != other.VR:
        # A private element has no VR in implicit VR: then its bytes say whether it is the same.
        encoded = [element.value for element in read if element is not None]
        return isinstance(encoded[0], bytes) and encoded[0] == encoded[1]
    return bool(one.value == other.value)


def _header(written: Written) -> tuple[Dataset, int]:
    """All before the pixel data, and where that ends."""
    syntax = UID(written.transfer_syntax_uid)
    file = cast(BinaryIO, BufferedReader(_File(written.dataset)))
    encoding = encoding_of(syntax)
    header = read_dataset(
        file, encoding.implicit, not encoding.big_endian, stop_when=lambda tag, vr, length: int(tag) >= _PIXELS
    )
    return header, file.tell()


def _same_pixels(kept: Written, our_end: int, came: Written, their_end: int) -> bool:
    syntaxes = {UID(written.transfer_syntax_uid) for written in (kept, came)}
    if len(syntaxes) > 1 and any(s.is_compressed or not s.is_little_endian for s in syntaxes):
        return False
    ours, theirs = list(_after(kept, our_end)), list(_after(came, their_end))
    if [element.tag for element in ours] != [element.tag for element in theirs]:
        return False
    return all(
        one.end - one.start == other.end - other.start
        and all(a == b for a, b in zip(_chunks(kept, one), _chunks(came, other), strict=True))
        for one, other in zip(ours, theirs, strict=True)
    )


def _after(written: Written, offset: int) -> Iterator[Element]:
    found = elements(written.dataset, encoding_of(written.transfer_syntax_uid), offset)
    return (element for element in found if element.tag != _PADDING and element.tag & 0xFFFF)


def _chunks(written: Written, element: Element) -> Iterator[bytes]:
    for start in range(element.start, element.end, _CHUNK):
        yield written.dataset[start : min(start + _CHUNK, element.end)]


class _File(RawIOBase):
    """Encoded bytes as a file, for pydicom."""

    def __init__(self, dataset: Encoded) -> None:
        self._dataset = dataset
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._dataset))[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._dataset[self._at : self._at + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
