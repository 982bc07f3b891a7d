"""Small DICOM objects for tests of receiving and sending: encoded data sets, and files of them."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from node.domain.instance import Incoming
from node.domain.part10 import head

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"


def dataset(**elements: Any) -> Dataset:
    """A whole instance of 4×4 pixels; an element given as None is left out."""
    ds = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "PatientID": "P1",
        "Modality": "CT",
        "Rows": 4,
        "Columns": 4,
        "BitsAllocated": 16,
        "PixelRepresentation": 0,
        "PixelData": bytes(range(32)),
    } | elements
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid values are made on purpose
        for keyword, value in values.items():
            if value is not None:
                setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset, transfer_syntax_uid: str = EXPLICIT) -> bytes:
    """The data set alone, without file meta."""
    syntax = UID(transfer_syntax_uid)
    buffer = DicomIO(BytesIO())
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(buffer, ds)
    return bytes(buffer.parent.getvalue())


def incoming(transfer_syntax_uid: str = EXPLICIT, peer: str = "CT1", **elements: Any) -> Incoming:
    """An object as it comes off the wire; the command has the UIDs of the data set."""
    ds = dataset(**elements)
    return Incoming(
        sop_class_uid=str(ds.get("SOPClassUID", CT)),
        sop_instance_uid=str(ds.get("SOPInstanceUID", "1.2.3.4")),
        transfer_syntax_uid=transfer_syntax_uid,
        dataset=encoded(ds, transfer_syntax_uid),
        peer=peer,
    )


def write(path: Path, object_: Incoming) -> Path:
    """The object as a DICOM file."""
    path.write_bytes(head(object_) + object_.dataset)
    return path
