"""Findings to DICOM: the result objects of one job, in sending order, and their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from os import SEEK_END
from pathlib import Path

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_sr import (
    capture,
    encapsulated,
    key_images,
    ohif,
    older,
    parametric_map,
    presentation,
    report,
    segmentation,
    terms,
)
from dicom_sr.earlier import Earlier, earlier_runs, same_identity
from dicom_sr.header import (
    CHARACTER_SET,
    Plane,
    free_series_numbers,
    identity,
    local,
    normalised,
    planes,
    stamp,
)
from dicom_sr.text import keep_text
from dicom_sr.vet import vetted
from dicom_sr.words import words
from node.domain.finding import Findings
from node.domain.ids import derived_uid
from node.domain.job import Provenance, ResultFile, ResultReference
from node.domain.profile import FULL, Profile, Report, Segments

IMPLEMENTATION_CLASS_UID = UID(derived_uid("implementation class"))
# In the order of their series numbers; there may be several maps, so they come last.
_SERIES = ("segments", "captures", "report", "presentation", "key_images", "document", "rejection", "maps")
# What each kind of object is called, by the name of a word; SeriesDescription is that and the title of the findings.
_CALLED = {
    "segments": "segments",
    "captures": "overlay",
    "map": "map",
    "report": "report",
    "presentation": "marks",
    "key_images": "key_images",
    "document": "document",
}
_ITEM = b"\xfe\xff\x00\xe0"
_TEXT = frozenset(("CS", "LO", "SH", "UI", "UT"))
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
    """The result objects of a job for one profile, in sending order: what others refer to first, then the SR, and last
    the notes that reject what these replace: by then all that is new is there.

    Every UID derives from the job and the name of the profile, so a job that runs twice gives the same objects;
    Tracking UIDs derive from the job alone, so what is tracked is the same in every profile.

    Args:
        headers: ``headers[k]`` is the data set, without pixel data, of the instance behind
            ``findings.volume.sources[k]``; for a multi-frame instance several k share one.
        profile: which objects, and how they are written.
        supersedes: the results that these replace, in the order in which they were sent.
        identified: whose patient and study the results carry; None is the first of ``headers``.

    Raises:
        InvalidInput: the headers do not fit the volume, or a finding cannot be encoded; names the field.
    """
    findings = terms.localised(vetted(findings), profile.language)
    places = planes(findings.volume, list(headers))
    provenance = replace(provenance, qualification=profile.qualification or provenance.qualification)
    copies: dict[int, Dataset] = {}
    for header in headers:
        if id(header) not in copies:
            copies[id(header)] = normalised(header, findings.volume)
    sources = [copies[id(header)] for header in headers]
    number = dict(zip(_SERIES, free_series_numbers(headers, profile.series_number), strict=False))
    who = identity(headers[0] if identified is None else identified, profile.timezone)
    finish = _Finish(provenance, findings, profile, who)

    # Both spend much of their time in numpy, where one does not hold up the other.
    with ThreadPoolExecutor(1) as pool:
        segmented = pool.submit(_segments, provenance, findings, sources, places, profile, number["segments"], finish)
        captures = _captures(provenance, findings, sources, places, profile, number["captures"], finish)
        segments = segmented.result()
    results = [*([segments] if segments is not None else []), *captures]
    # The IOD of a map asks for a place in the patient (PS3.3 A.75.3); pictures show those of other images.
    if profile.maps and findings.volume.in_patient:
        results += _maps(provenance, findings, sources, places, profile, number["maps"], headers, finish)
    results += _documents(provenance, findings, headers, sources, profile, number, finish)
    if profile.report is not Report.NONE:
        results.append(_report(provenance, findings, sources, segments, profile, number["report"], supersedes, finish))
    if profile.reject_earlier:
        numbers = free_series_numbers([*headers, *results], number["rejection"])
        first = identity(headers[0], profile.timezone)
        results += _rejections(provenance, earlier_runs(supersedes, first), who, numbers, profile)
    for dataset in results:
        terms.speak(dataset, profile.language, ohif.LOOKED_UP if profile.ohif_tools else frozenset())
    for dataset in results if profile.character_set != CHARACTER_SET else ():
        keep_text(dataset)
    return results


@dataclass(frozen=True)
class _Finish:
    """Completes a result with what all of them carry."""

    provenance: Provenance
    findings: Findings
    profile: Profile
    who: Dataset

    def __call__(self, dataset: Dataset, kind: str, label: str = "") -> None:
        """``kind`` is that of ``Profile.descriptions``; ``label`` names one of several of a kind."""
        what = self.findings.title or self.provenance.model.title or self.provenance.model.name
        called = f"{getattr(words(self.profile.language), _CALLED[kind])} {{what}}"
        text = self.profile.descriptions.get(kind, called).replace("{what}", what)
        stamp(
            dataset,
            self.who,
            self.provenance,
            what=f"{text} {label}".rstrip(),
            character_set=self.profile.character_set,
        )


def _segments(
    provenance: Provenance,
    findings: Findings,
    sources: Sequence[Dataset],
    places: Sequence[Plane | None],
    profile: Profile,
    series_number: int,
    finish: _Finish,
) -> Dataset | None:
    if profile.segments is Segments.NONE:
        return None
    segments = segmentation.build(provenance, findings, sources, places, series_number=series_number, profile=profile)
    if segments is not None:
        finish(segments, "segments")
    return segments


def _captures(
    provenance: Provenance,
    findings: Findings,
    sources: Sequence[Dataset],
    places: Sequence[Plane | None],
    profile: Profile,
    series_number: int,
    finish: _Finish,
) -> list[Dataset]:
    return list(
        capture.build(
            provenance,
            findings,
            sources,
            places,
            profile=profile,
            series_number=series_number,
            at=local(provenance.started_at, finish.who),
            finish=partial(finish, kind="captures"),
        )
    )


def _maps(
    provenance: Provenance,
    findings: Findings,
    sources: Sequence[Dataset],
    places: Sequence[Plane | None],
    profile: Profile,
    first: int,
    headers: Sequence[Dataset],
    finish: _Finish,
) -> list[Dataset]:
    """One series for each map."""
    results = []
    for number, (found, series_number) in enumerate(
        zip(findings.maps, free_series_numbers(headers, first), strict=False), 1
    ):
        dataset = parametric_map.build(
            provenance,
            findings,
            found,
            sources,
            places,
            number=number,
            series_number=series_number,
            profile=profile,
        )
        finish(dataset, "map", found.label)
        results.append(dataset)
    return results


def _documents(
    provenance: Provenance,
    findings: Findings,
    headers: Sequence[Dataset],
    sources: Sequence[Dataset],
    profile: Profile,
    number: Mapping[str, int],
    finish: _Finish,
) -> list[Dataset]:
    """What else a profile may ask for: presentation states, key images, the report on paper."""
    at = local(provenance.started_at, finish.who)
    made: list[tuple[str, Dataset]] = []
    if profile.presentation:
        states = presentation.build(
            provenance, findings, headers, profile=profile, series_number=number["presentation"], at=at
        )
        made += [("presentation", state) for state in states]
    if profile.key_images:
        note = key_images.build(provenance, findings, sources, profile=profile, series_number=number["key_images"])
        made.append(("key_images", note))
    if profile.document:
        page = encapsulated.build(
            provenance, findings, sources, finish.who, profile=profile, series_number=number["document"], at=at
        )
        made.append(("document", page))
    for kind, dataset in made:
        finish(dataset, kind)
    return [dataset for _, dataset in made]


def _rejections(
    provenance: Provenance,
    runs: Sequence[Earlier],
    who: Dataset,
    numbers: Iterator[int],
    profile: Profile,
) -> Iterator[Dataset]:
    """A note for each earlier run, with the identity that its objects have."""
    for part, (run, series_number) in enumerate(zip(runs, numbers, strict=False), 1):
        of_whom = run.identity
        reason = key_images.Rejected.SUPERSEDED if same_identity(of_whom, who) else key_images.Rejected.OTHER_IDENTITY
        yield key_images.reject(
            provenance, run.targets, of_whom, reason, profile=profile, series_number=series_number, part=part
        )


def _report(
    provenance: Provenance,
    findings: Findings,
    sources: Sequence[Dataset],
    segments: Dataset | None,
    profile: Profile,
    series_number: int,
    supersedes: Sequence[ResultReference],
    finish: _Finish,
) -> Dataset:
    """The SR, of the class that the profile names."""
    document = report.build(
        provenance, findings, sources, segments, series_number=series_number, profile=profile, supersedes=supersedes
    )
    finish(document, "report")
    if profile.report is Report.COMPREHENSIVE_3D:
        return document
    return older.build(provenance, document, profile=profile)


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
    """Encodes data sets, Explicit VR Little Endian. What several have in common, as captures do, it encodes once.

    So do the frames of one data set: sequences are taken apart here.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[DataElement, bytes]] = {}
        self._texts: dict[tuple[int, str, str], bytes] = {}

    def __call__(self, dataset: Dataset) -> bytes:
        return self._elements(dataset, dataset, convert_encodings(dataset.SpecificCharacterSet))

    def _elements(self, dataset: Dataset, root: Dataset, encodings: list[str]) -> bytes:
        return b"".join(self._element(element, dataset, root, encodings) for element in dataset)

    def _element(self, element: DataElement, dataset: Dataset, root: Dataset, encodings: list[str]) -> bytes:
        known = self._known.get(id(element))
        if known is not None:
            return known[1]
        if element.VR == "SQ":
            items = [self._elements(item, root, encodings) for item in element.value]
            body = b"".join(_ITEM + len(item).to_bytes(4, "little") + item for item in items)
            tag = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little")
            encoded = tag + b"SQ\0\0" + len(body).to_bytes(4, "little") + body
        elif element.VR in _TEXT and isinstance(element.value, str):
            # The same code stands in a report hundreds of times.
            text = int(element.tag), element.value, encodings[0]
            if text not in self._texts:
                self._texts[text] = _encoded(element, dataset, root, encodings)
            return self._texts[text]
        else:
            encoded = _encoded(element, dataset, root, encodings)
        if len(encoded) < _SHARED_BYTES:
            # Kept together with the element: an identity is that of another object once its owner is gone.
            self._known[id(element)] = element, encoded
        return encoded


def _encoded(element: DataElement, dataset: Dataset, root: Dataset, encodings: list[str]) -> bytes:
    if " or " in element.VR:  # depends on other elements, PixelRepresentation for one
        correct_ambiguous_vr_element(element, dataset, True, [root])
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, encodings)
    encoded: bytes = buffer.getvalue()
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
        rejects=key_images.is_rejection(dataset),
    )
