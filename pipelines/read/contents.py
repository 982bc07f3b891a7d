"""The bytes of a kept file, held against its digest before any of them is believed."""

from __future__ import annotations

import hashlib
import os
import zlib

from node.domain.encoded import INFLATED_LIMIT
from node.domain.errors import InvalidInstance, Refused
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.study import InstanceFile

_CHUNK = 8 << 20


def whole(file: InstanceFile, head_length: int) -> memoryview:
    """The data set of a file, that begins behind its file meta information.

    Raises:
        InvalidInstance: the file is damaged: its bytes are not those that were acknowledged.
    """
    # The bytes are needed anyway, and SHA-256 in hardware takes less time than what is done with them.
    data = memoryview(file.path.read_bytes())[head_length:]
    _compare(hashlib.sha256(data).hexdigest(), file)
    return data


def check(file: InstanceFile) -> None:
    """Hold a file of any size against its digest.

    Raises:
        InvalidInstance: as of `whole`.
    """
    digest = hashlib.sha256()
    with file.path.open("rb", buffering=0) as opened:
        opened.seek(split(opened.read(HEAD_LIMIT)).offset)
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    _compare(digest.hexdigest(), file)


def part(file: InstanceFile, start: int, length: int) -> bytes:
    """Some bytes of a file, from its own start."""
    with file.path.open("rb", buffering=0) as opened:
        return os.pread(opened.fileno(), length, start)


def inflated(deflated: bytes | memoryview, file: InstanceFile) -> bytes:
    """Undo the deflate (PS3.5 A.5) of the data set of a file.

    Raises:
        Refused: the bytes cannot be inflated, or come to more than `INFLATED_LIMIT`.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(deflated, INFLATED_LIMIT)
    except zlib.error as error:
        raise Refused("unreadable", f"instance {file.sop_instance_uid} cannot be inflated: {error}") from error
    if not inflater.eof:
        raise Refused("unreadable", f"instance {file.sop_instance_uid}, deflated, ends early or is too large")
    return data


def _compare(found: str, file: InstanceFile) -> None:
    if found != file.digest:
        raise InvalidInstance(
            "SOPInstanceUID",
            f"the stored file of {file.sop_instance_uid} is damaged: its digest is not {file.digest[:12]}…",
            "Send the instance again, or restore the file from a backup",
        )
