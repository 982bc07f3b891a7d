"""Findings to DICOM: the result objects of one job, in sending order, and their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import SEEK_END
from pathlib import Path

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_sr import capture, report, segmentation
from dicom_sr.header import identity, local, normalised, planes, stamp
from dicom_sr.terms import localised
from node.domain.finding import Findings
from node.domain.ids import derived_uid
from node.domain.job import Provenance, ResultFile, ResultReference
from node.domain.profile import FULL, Profile

IMPLEMENTATION_CLASS_UID = UID(derived_uid("implementation class"))
_FIRST_SERIES_NUMBER = 900
_SHARED_BYTES = 1 << 16  # a longer element is pixel data, which belongs to one object


def compose(
    provenance: Provenance,
    findings: Findings,
    headers: Sequence[Dataset],
    profile: Profile = FULL,
    *,
    supersedes: Sequence[ResultReference] = (),
    identified: Dataset | None = None,
) -> list[Dataset]:
    """The result objects of a job, in sending order: SEG, secondary captures, SR last.

    Every UID derives from the job, so a job that runs twice gives the same objects.

    Args:
        headers: ``headers[k]`` is the data set, without pixel data, of the instance behind
            ``findings.volume.sources[k]``; for a multi-frame instance several k share one.
        profile: which objects, and how they are written.
        supersedes: the results that these replace, the earlier SR last.
        identified: whose patient and study the results carry; None is the first of ``headers``.

    Raises:
        InvalidInput: the headers do not fit the volume, or a finding cannot be encoded; names the field.
    """
    findings = localised(findings, profile.language)
    volume = findings.volume
    places = planes(volume, list(headers)) if volume.in_patient else [None] * len(headers)
    who = identity(headers[0] if identified is None else identified)
    copies: dict[int, Dataset] = {}
    for header in headers:
        if id(header) not in copies:
            copies[id(header)] = normalised(header, volume)
    sources = [copies[id(header)] for header in headers]
    numbers = _series_numbers(headers)
    what = findings.title or provenance.model.title or provenance.model.name

    finish = partial(stamp, who=who, provenance=provenance, what=f"Overlay {what}")
    # Both spend much of their time in numpy, where one does not hold up the other.
    with ThreadPoolExecutor(1) as pool:
        segmented = pool.submit(segmentation.build, provenance, findings, sources, series_number=next(numbers))
        captures = capture.build(
            provenance,
            findings,
            sources,
            places,
            profile=profile,
            series_number=next(numbers),
            at=local(provenance.started_at, who),
            finish=finish,
        )
        results = list(captures)
        segments = segmented.result()
    if segments is not None:
        stamp(segments, who, provenance, what=f"Segments {what}")
        results.insert(0, segments)
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
    encode = _Encoder()
    # The next one is encoded while the digest of this one is made and its bytes are written.
    with ThreadPoolExecutor(1) as pool:
        written = [
            pool.submit(_write, encode(dataset), dataset, out_dir / f"{n:04d}.dcm")
            for n, dataset in enumerate(datasets)
        ]
        return [result.result() for result in written]


class _Encoder:
    """Encodes data sets, Explicit VR Little Endian. What several have in common, as captures do, it encodes once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[DataElement, bytes]] = {}

    def __call__(self, dataset: Dataset) -> bytes:
        correct_ambiguous_vr(dataset, is_little_endian=True)
        encodings = convert_encodings(dataset.SpecificCharacterSet)
        return b"".join(self._element(element, encodings) for element in dataset)

    def _element(self, element: DataElement, encodings: list[str]) -> bytes:
        known = self._known.get(id(element))
        if known is not None:
            return known[1]
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_data_element(buffer, element, encodings)
        encoded: bytes = buffer.getvalue()
        if len(encoded) < _SHARED_BYTES:
            # Kept together with the element: an identity is that of another object once its owner is gone.
            self._known[id(element)] = element, encoded
        return encoded


def _write(encoded: bytes, dataset: Dataset, path: Path) -> ResultFile:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = "AINODE"
    head = DicomBytesIO(b"\0" * 128 + b"DICM")
    head.seek(0, SEEK_END)
    write_file_meta_info(head, meta)
    with path.open("wb") as file:
        size = file.write(head.getvalue()) + file.write(encoded)
    return ResultFile(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        series_uid=str(dataset.SeriesInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        digest=hashlib.sha256(encoded).hexdigest(),
        size=size,
        path=path.resolve(),
    )
