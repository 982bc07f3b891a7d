"""The Modality LUT: stored values to values of the modality by a table (PS3.3 C.11.1.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from node.domain.errors import Refused
from pipelines.read.groups import UNREADABLE
from pipelines.read.header import Header


def modality_lut(header: Header, *, inverted: bool) -> tuple[int, NDArray[np.float32]]:
    """The stored value of the first entry, and all entries; below the first and above the last these two hold.

    Args:
        inverted: turn the entries over within their range.

    Raises:
        Refused: the table cannot be read, or is not as long as it says.
    """
    try:
        dataset = dcmread(header.file.path, specific_tags=["ModalityLUTSequence", "PixelRepresentation"])
        (item,) = dataset.ModalityLUTSequence
        length, first, bits = (int(value) for value in item.LUTDescriptor)
        raw = item.LUTData
    except (*UNREADABLE, AttributeError) as error:
        raise Refused("modality-lut", f"{header.name}: the ModalityLUTSequence cannot be read: {error}") from error
    # 0 stands for the 65536 that 16 bits cannot hold; writers mix up US and SS in the second value.
    length, signed = length or 1 << 16, header.text("PixelRepresentation") == "1"
    first = first - (1 << 16) if signed and first >= 1 << 15 else first
    if isinstance(raw, bytes):
        order = "<" if dataset.original_encoding[1] else ">"
        raw = np.frombuffer(raw, f"{order}u2" if len(raw) >= 2 * length else "u1")
    entries = np.asarray(raw, np.float32).reshape(-1)[:length]
    if len(entries) != length or not 0 < bits <= 16:
        raise Refused(
            "modality-lut", f"{header.name}: LUTData has {len(entries)} entries of {length}, {bits} bits each"
        )
    return first, np.float32((1 << bits) - 1) - entries if inverted else entries
