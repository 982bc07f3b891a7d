"""Findings to DICOM: the result objects of one job, in sending order, and their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_sr import capture, report, segmentation
from dicom_sr.header import identity, normalised, planes, stamp
from node.domain.finding import Findings
from node.domain.ids import derived_uid
from node.domain.job import Provenance, ResultFile

IMPLEMENTATION_CLASS_UID = UID(derived_uid("implementation class"))
_FIRST_SERIES_NUMBER = 900


def compose(provenance: Provenance, findings: Findings, headers: Sequence[Dataset]) -> list[Dataset]:
    """The result objects of a job, in sending order: SEG, secondary captures, SR last.

    Every UID derives from the job, so a job that runs twice gives the same objects.

    Args:
        headers: ``headers[k]`` is the data set, without pixel data, of the instance behind
            ``findings.volume.sources[k]``; for a multi-frame instance several k share one.

    Raises:
        InvalidInput: the headers do not fit the volume, or a finding cannot be encoded; names the field.
    """
    volume = findings.volume
    places = planes(volume, list(headers))
    who = identity(headers[0])
    copies: dict[int, Dataset] = {}
    for header in headers:
        if id(header) not in copies:
            copies[id(header)] = normalised(header, volume)
    sources = [copies[id(header)] for header in headers]
    numbers = _series_numbers(headers)
    what = findings.title or provenance.model.title or provenance.model.name

    results: list[Dataset] = []
    segments = segmentation.build(provenance, findings, sources, series_number=next(numbers))
    if segments is not None:
        stamp(segments, who, provenance, what=f"Segments {what}")
        results.append(segments)
    for picture in capture.build(provenance, findings, sources, places, series_number=next(numbers)):
        stamp(picture, who, provenance, what=f"Overlay {what}")
        results.append(picture)
    document = report.build(provenance, findings, sources, segments, series_number=next(numbers))
    stamp(document, who, provenance, what=f"Report {what}")
    return [*results, document]


def _series_numbers(headers: Sequence[Dataset]) -> Iterator[int]:
    """Series numbers from 900 on that the source does not use."""
    taken = {int(header.SeriesNumber) for header in headers if header.get("SeriesNumber") is not None}
    number = _FIRST_SERIES_NUMBER
    while True:
        number += 1
        if number not in taken:
            yield number


def write(datasets: Sequence[Dataset], out_dir: Path) -> list[ResultFile]:
    """Write PS3.10 files, in order, with a meta that is ours, into ``out_dir``.

    The digest of a result is the SHA-256, in hex, of its encoded data set alone, as for every Instance.
    """
    return [_write(dataset, out_dir / f"{n:04d}.dcm") for n, dataset in enumerate(datasets)]


def _write(dataset: Dataset, path: Path) -> ResultFile:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = "AINODE"
    dataset.file_meta = meta
    dcmwrite(path, dataset, enforce_file_format=True)
    encoded = path.read_bytes()
    # Preamble 128, prefix 4, then the group length element of 12, whose value counts what follows it (PS3.10 7.1).
    start = 144 + int.from_bytes(encoded[140:144], "little")
    return ResultFile(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        series_uid=str(dataset.SeriesInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        digest=hashlib.sha256(memoryview(encoded)[start:]).hexdigest(),
        size=len(encoded),
        path=path.resolve(),
    )
