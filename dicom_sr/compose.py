"""Findings to DICOM: the result objects of one job, in sending order, and their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
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
    collector,
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


@collector.held_off()
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
    copies = {id(header): normalised(header, findings.volume) for header in {id(h): h for h in headers}.values()}
    sources = [copies[id(header)] for header in headers]
    number = dict(zip(_SERIES, free_series_numbers(headers, profile.series_number), strict=False))
    who = identity(headers[0] if identified is None else identified, profile.timezone)
    whole = _Composition(provenance, findings, profile, headers, sources, places, number, who)

    # Both spend much of their time in numpy, where one does not hold up the other.
    with ThreadPoolExecutor(1) as pool:
        segmented = pool.submit(whole.segments)
        captures = whole.captures()
        segments = segmented.result()
    results = [*([segments] if segments is not None else []), *captures, *whole.maps(), *whole.documents()]
    if profile.report is not Report.NONE:
        results.append(whole.report(segments, supersedes))
    if profile.reject_earlier:
        numbers = free_series_numbers([*headers, *results], number["rejection"])
        results += whole.rejections(earlier_runs(supersedes, identity(headers[0], profile.timezone)), numbers)
    for dataset in results:
        terms.speak(dataset, profile.language, ohif.LOOKED_UP if profile.ohif_tools else frozenset())
    for dataset in results if profile.character_set != CHARACTER_SET else ():
        keep_text(dataset)
    return results


@dataclass(frozen=True, eq=False)
class _Composition:
    """What the objects of one set are made from, and each kind of them.

    ``headers`` are as received, ``sources`` normalised, ``places`` their planes: each one per slice of the volume.
    ``number`` is the series number of each of ``_SERIES``.
    """

    provenance: Provenance
    findings: Findings
    profile: Profile
    headers: Sequence[Dataset]
    sources: Sequence[Dataset]
    places: Sequence[Plane | None]
    number: Mapping[str, int]
    who: Dataset

    @cached_property
    def at(self) -> datetime:
        """When the analysis began, in the zone of the study."""
        return local(self.provenance.started_at, self.who)

    def finish(self, dataset: Dataset, kind: str, label: str = "") -> None:
        """Complete a result with what all of them carry.

        ``kind`` is that of ``Profile.descriptions``; ``label`` names one of several of a kind.
        """
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

    def segments(self) -> Dataset | None:
        if self.profile.segments is Segments.NONE:
            return None
        segments = segmentation.build(
            self.provenance,
            self.findings,
            self.sources,
            self.places,
            series_number=self.number["segments"],
            profile=self.profile,
        )
        if segments is not None:
            self.finish(segments, "segments")
        return segments

    def captures(self) -> list[Dataset]:
        return list(
            capture.build(
                self.provenance,
                self.findings,
                self.sources,
                self.places,
                profile=self.profile,
                series_number=self.number["captures"],
                at=self.at,
                finish=partial(self.finish, kind="captures"),
            )
        )

    def maps(self) -> list[Dataset]:
        """One series for each map."""
        # The IOD of a map asks for a place in the patient (PS3.3 A.75.3); pictures show those of other images.
        if not (self.profile.maps and self.findings.volume.in_patient):
            return []
        results = []
        numbers = free_series_numbers(self.headers, self.number["maps"])
        for number, (found, series_number) in enumerate(zip(self.findings.maps, numbers, strict=False), 1):
            dataset = parametric_map.build(
                self.provenance,
                self.findings,
                found,
                self.sources,
                self.places,
                number=number,
                series_number=series_number,
                profile=self.profile,
            )
            self.finish(dataset, "map", found.label)
            results.append(dataset)
        return results

    def documents(self) -> list[Dataset]:
        """What else a profile may ask for: presentation states, key images, the report on paper."""
        made: list[tuple[str, Dataset]] = []
        common, profile = (self.provenance, self.findings), self.profile
        if profile.presentation:
            number = self.number["presentation"]
            states = presentation.build(*common, self.headers, profile=profile, series_number=number, at=self.at)
            made += [("presentation", state) for state in states]
        if profile.key_images:
            number = self.number["key_images"]
            made.append(("key_images", key_images.build(*common, self.sources, profile=profile, series_number=number)))
        if profile.document:
            number = self.number["document"]
            page = encapsulated.build(
                *common, self.sources, self.who, profile=profile, series_number=number, at=self.at
            )
            made.append(("document", page))
        for kind, dataset in made:
            self.finish(dataset, kind)
        return [dataset for _, dataset in made]

    def rejections(self, runs: Sequence[Earlier], numbers: Iterator[int]) -> Iterator[Dataset]:
        """A note for each earlier run, with the identity that its objects have."""
        for part, (run, series_number) in enumerate(zip(runs, numbers, strict=False), 1):
            of_whom, reason = run.identity, key_images.Rejected.OTHER_IDENTITY
            if same_identity(of_whom, self.who):
                reason = key_images.Rejected.SUPERSEDED
            yield key_images.reject(
                self.provenance,
                run.targets,
                of_whom,
                reason,
                profile=self.profile,
                series_number=series_number,
                part=part,
            )

    def report(self, segments: Dataset | None, supersedes: Sequence[ResultReference]) -> Dataset:
        """The SR, of the class that the profile names."""
        document = report.build(
            self.provenance,
            self.findings,
            self.sources,
            segments,
            series_number=self.number["report"],
            profile=self.profile,
            supersedes=supersedes,
        )
        self.finish(document, "report")
        if self.profile.report is Report.COMPREHENSIVE_3D:
            return document
        return older.build(self.provenance, document, profile=self.profile)


@collector.held_off()
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

    def __call__(self, dataset: Dataset) -> list[bytes]:
        """In pieces, which follow each other: those of pixel data are long, and nobody copies them."""
        encodings = convert_encodings(dataset.SpecificCharacterSet)
        return [piece for element in dataset for piece in self._pieces(element, dataset, encodings)]

    def _pieces(self, element: DataElement, dataset: Dataset, encodings: list[str]) -> Sequence[bytes]:
        value = element.value
        if not isinstance(value, bytes) or len(value) < _SHARED_BYTES or len(value) % 2:
            return (self._element(element, dataset, dataset, encodings),)
        _certain(element, dataset, dataset)
        return _head(element, len(value)), value

    def _elements(self, dataset: Dataset, root: Dataset, encodings: list[str]) -> bytes:
        return b"".join(self._element(element, dataset, root, encodings) for element in dataset)

    def _element(self, element: DataElement, dataset: Dataset, root: Dataset, encodings: list[str]) -> bytes:
        known = self._known.get(id(element))
        if known is not None:
            return known[1]
        if element.VR == "SQ":
            items = [self._elements(item, root, encodings) for item in element.value]
            body = b"".join(_ITEM + len(item).to_bytes(4, "little") + item for item in items)
            encoded = _head(element, len(body)) + body
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


def _certain(element: DataElement, dataset: Dataset, root: Dataset) -> None:
    """Decide on a VR that depends on other elements, PixelRepresentation for one."""
    if " or " in element.VR:
        correct_ambiguous_vr_element(element, dataset, True, [root])


def _head(element: DataElement, length: int) -> bytes:
    """Tag, VR and length of an element whose length has four bytes (PS3.5 7.1.2)."""
    tag = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little")
    return tag + element.VR.encode() + b"\0\0" + length.to_bytes(4, "little")


def _encoded(element: DataElement, dataset: Dataset, root: Dataset, encodings: list[str]) -> bytes:
    _certain(element, dataset, root)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, encodings)
    encoded: bytes = buffer.getvalue()
    return encoded


def _write(encoded: Sequence[bytes], dataset: Dataset, path: Path) -> ResultFile:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = "AINODE"
    head = DicomBytesIO(b"\0" * 128 + b"DICM")
    head.seek(0, SEEK_END)
    write_file_meta_info(head, meta)
    digest = hashlib.sha256()
    for piece in encoded:
        digest.update(piece)
    with path.open("wb") as file:
        file.write(head.getvalue())
        file.writelines(encoded)
        size = file.tell()
    return ResultFile(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        series_uid=str(dataset.SeriesInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        digest=digest.hexdigest(),
        size=size,
        path=path.resolve(),
        rejects=key_images.is_rejection(dataset),
    )
