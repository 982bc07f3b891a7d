"""Results in another transfer syntax than the one that they are composed in, where a profile wants that."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.domain.job import ResultFile
from node.domain.part10 import HEAD_LIMIT, split

_BYTE = 8


def recoded(result: ResultFile, transfer_syntax_uid: str) -> ResultFile:
    """Write the file of a result anew in a transfer syntax, without loss; what cannot be in it stays as it is.

    A compression is for images of whole bytes a sample: a binary segmentation has one bit, a Parametric Map floats, and
    a report no pixel data. The other transfer syntaxes are for every object.
    """
    syntax = UID(transfer_syntax_uid)
    if syntax == ExplicitVRLittleEndian:
        return result
    with disable_value_validation():
        dataset = dcmread(result.path)
        if syntax.is_compressed and not syntax.is_deflated:
            if not _has_whole_bytes(dataset):
                return result
            # Its UID stays: nobody has seen the object yet, and a job that runs twice has to give the same one.
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(result.path, enforce_file_format=True)
    content = result.path.read_bytes()
    return replace(
        result,
        transfer_syntax_uid=str(syntax),
        digest=hashlib.sha256(memoryview(content)[split(content[:HEAD_LIMIT]).offset :]).hexdigest(),
        size=len(content),
    )


def _has_whole_bytes(dataset: Dataset) -> bool:
    return "PixelData" in dataset and dataset.BitsAllocated % _BYTE == 0
