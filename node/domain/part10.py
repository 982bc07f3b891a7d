"""The head of a DICOM file: preamble, prefix and file meta information (PS3.10 section 7.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from node.domain.encoded import EXPLICIT_LITTLE_ENDIAN, Malformed, elements
from node.domain.errors import InvalidInstance
from node.domain.instance import Incoming, StoreRequest

IMPLEMENTATION_CLASS_UID = "2.25.114910255078573836594195959411937060471"
IMPLEMENTATION_VERSION_NAME = "AINODE_0_1"

# What has to be read of a file to be sure to hold its file meta information; ours takes less than 1 KiB.
HEAD_LIMIT = 1 << 16

_PREAMBLE = bytes(128) + b"DICM"
_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX, _SOURCE_AE = 0x00020002, 0x00020003, 0x00020010, 0x00020016


@dataclass(frozen=True)
class FileMeta:
    """What a file says of its data set, which begins ``offset`` bytes after the start of the file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae_title: str | None
    offset: int


def head(incoming: StoreRequest | Incoming) -> bytes:
    """Preamble, prefix and file meta for an object from the wire; head plus data set is the file.

    The UIDs are those of the request and are written as they are, because an object that is kept aside may
    have invalid ones.
    """
    meta = b"".join(
        (
            _element(0x0001, b"OB", b"\0\1"),
            _element(0x0002, b"UI", _text(incoming.sop_class_uid)),
            _element(0x0003, b"UI", _text(incoming.sop_instance_uid)),
            _element(0x0010, b"UI", _text(incoming.transfer_syntax_uid)),
            _element(0x0012, b"UI", _text(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", _text(IMPLEMENTATION_VERSION_NAME)),
            _element(0x0016, b"AE", _text(incoming.peer)),
        )
    )
    return _PREAMBLE + _element(0x0000, b"UL", struct.pack("<I", len(meta))) + meta


def split(start: bytes) -> FileMeta:
    """Read the file meta information from the first ``HEAD_LIMIT`` bytes of a file.

    Raises:
        InvalidInstance: not a DICOM file, or its file meta lacks one of the UIDs that say what it holds.
    """
    if start[128:132] != b"DICM":
        raise InvalidInstance("DICM", "is not there: this is no DICOM file", "Send files with preamble and file meta")
    values: dict[int, str] = {}
    offset = len(_PREAMBLE)
    try:
        for element in elements(start, EXPLICIT_LITTLE_ENDIAN, offset):
            if element.tag >> 16 != 0x0002:
                break
            values[element.tag] = _value(start[element.start : element.end])
            offset = element.end
    except Malformed:
        # The data set that follows may be in any encoding and cut at the limit; what counts is what was found before.
        pass
    for tag, keyword in (
        (_SOP_CLASS, "MediaStorageSOPClassUID"),
        (_SOP_INSTANCE, "MediaStorageSOPInstanceUID"),
        (_TRANSFER_SYNTAX, "TransferSyntaxUID"),
    ):
        if not values.get(tag):
            raise InvalidInstance(keyword, "is missing or empty", "Write the file with complete file meta (PS3.10 7.1)")
    return FileMeta(
        sop_class_uid=values[_SOP_CLASS],
        sop_instance_uid=values[_SOP_INSTANCE],
        transfer_syntax_uid=values[_TRANSFER_SYNTAX],
        source_ae_title=values.get(_SOURCE_AE) or None,
        offset=offset,
    )


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """One element of group 0002, explicit VR little endian (PS3.5 7.1.2), padded to even length."""
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    if vr == b"OB":
        return struct.pack("<HH2sHI", 0x0002, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _text(value: str) -> bytes:
    return value.encode("ascii", "replace")


def _value(raw: bytes) -> str:
    return raw.decode("latin-1").rstrip("\0 ")
