"""A kept object in another transfer syntax, for a peer that refuses its own; what is kept stays as it is."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.domain.errors import Unavailable
from node.domain.instance import Incoming
from node.domain.part10 import HEAD_LIMIT, head, split

EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
# What every peer takes that takes anything, the better one first (PS3.5 section 10.1).
FALLBACKS = (EXPLICIT, _IMPLICIT)


def transcoded(path: Path, transfer_syntax_uid: str) -> BytesIO:
    """The data set of a file in one of ``FALLBACKS``.

    Colour that was compressed as YBR becomes RGB, as PhotometricInterpretation then says; that an object was
    compressed lossily it keeps saying.

    Raises:
        Unavailable: it cannot be decoded; says why.
    """
    try:
        dataset = dcmread(path)
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            dataset.decompress(generate_instance_uid=False)
        elif not dataset.original_encoding[1]:
            raise Unavailable("big endian is not converted")
        written = DicomBytesIO()
        written.is_little_endian = True
        written.is_implicit_VR = transfer_syntax_uid == _IMPLICIT
        write_dataset(written, dataset)
    except Unavailable:
        raise
    except Exception as error:
        # The decoders raise whatever the bytes lead them to: no list of errors would be complete.
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    return BytesIO(written.getvalue())


def as_file(path: Path, transfer_syntax_uid: str) -> bytes:
    """As ``transcoded``, with preamble and file meta (PS3.10 7.1).

    Raises:
        Unavailable: as there.
    """
    dataset = transcoded(path, transfer_syntax_uid).getvalue()
    with path.open("rb") as file:
        meta = split(file.read(HEAD_LIMIT))
    source = meta.source_ae_title or ""
    return head(Incoming(meta.sop_class_uid, meta.sop_instance_uid, transfer_syntax_uid, b"", source)) + dataset
