"""The head of a file, against pydicom's reading of it."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pydicom
import pytest

from node.domain.errors import InvalidInstance
from node.domain.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, head, split
from tests import objects


def test_pydicom_reads_the_file_meta_that_was_written() -> None:
    sent = objects.incoming(objects.IMPLICIT, peer="CT1")
    file = pydicom.dcmread(BytesIO(head(sent) + sent.dataset))
    meta = file.file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPClassUID == sent.sop_class_uid
    assert meta.MediaStorageSOPInstanceUID == sent.sop_instance_uid
    assert meta.TransferSyntaxUID == objects.IMPLICIT
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert meta.FileMetaInformationGroupLength == len(head(sent)) - 132 - 12
    assert file.PixelData == bytes(range(32))


@pytest.mark.parametrize("uid", ["1.2.3.4", "1.2.3.45"])
def test_split_finds_the_data_set_after_odd_and_even_uids(uid: str) -> None:
    sent = objects.incoming(SOPInstanceUID=uid)
    start = head(sent)
    meta = split(start + sent.dataset)
    assert meta.offset == len(start)
    assert meta.sop_instance_uid == uid
    assert meta.source_ae_title == "CT1"


def test_split_stops_at_a_data_set_that_it_cannot_read() -> None:
    sent = replace(objects.incoming(), dataset=b"\xff" * 9)
    assert split(head(sent) + sent.dataset).offset == len(head(sent))


def test_invalid_uids_of_a_command_are_written_as_they_are() -> None:
    sent = replace(objects.incoming(), sop_instance_uid="../../x")
    assert split(head(sent)).sop_instance_uid == "../../x"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"plain text" * 100, "DICM"),
        (b"", "DICM"),
        (bytes(128) + b"DICM", "MediaStorageSOPClassUID"),
        (head(replace(objects.incoming(), transfer_syntax_uid="")), "TransferSyntaxUID"),
    ],
)
def test_split_names_what_is_missing(content: bytes, field: str) -> None:
    with pytest.raises(InvalidInstance) as caught:
        split(content)
    assert caught.value.field == field
