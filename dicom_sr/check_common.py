"""The rules that every result object is held to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_sr import codes
from dicom_sr.check_read import Judge, Part, Result
from dicom_sr.earlier import earlier_runs
from dicom_sr.header import CHARACTER_SET, IDENTITY, IDENTITY_TYPE_2, identity
from dicom_sr.key_images import is_rejection
from dicom_sr.vet import RETIRED_SCHEMES
from node.domain.finding import Findings
from node.domain.job import ResultReference
from node.domain.model import Qualification
from node.domain.profile import FULL, Profile

_TEXT = frozenset(("PN", "LO", "SH", "LT", "ST", "UT", "UC"))


@dataclass(frozen=True, eq=False)
class Set:
    """All results of a job for one profile, and what they were made from."""

    results: Sequence[Result]
    headers: Sequence[Dataset]
    findings: Findings | None
    profile: Profile = FULL
    supersedes: Sequence[ResultReference] = ()
    identified: Dataset | None = None

    @cached_property
    def source(self) -> Dataset:
        """Patient and study as the results must carry them."""
        who = self.headers[0] if self.identified is None else self.identified
        return identity(who, self.profile.timezone)

    @cached_property
    def sent_before(self) -> dict[str, Dataset]:
        """Patient and study of each result that these replace, by SOPInstanceUID: as that result itself has them."""
        runs = earlier_runs(self.supersedes, identity(self.headers[0], self.profile.timezone))
        return {target.sop_instance_uid: run.identity for run in runs for target in run.targets}

    @cached_property
    def in_patient(self) -> bool:
        """Whether the source images have a place in the patient."""
        if self.findings is not None:
            return self.findings.volume.in_patient
        header = self.headers[0]
        return "ImageOrientationPatient" in header or "PerFrameFunctionalGroupsSequence" in header

    @cached_property
    def sources(self) -> dict[str, Dataset]:
        """Source headers by SOPInstanceUID."""
        return {str(header.SOPInstanceUID): header for header in self.headers}

    @cached_property
    def known(self) -> dict[str, Dataset]:
        """Every instance that a result may refer to, by SOPInstanceUID."""
        return self.sources | {str(result.dataset.SOPInstanceUID): result.dataset for result in self.results}

    @cached_property
    def replaced(self) -> dict[str, ResultReference]:
        """The results that these replace, by SOPInstanceUID."""
        return {earlier.sop_instance_uid: earlier for earlier in self.supersedes}

    @cached_property
    def series_of(self) -> dict[str, set[tuple[str, str]]]:
        """(SeriesInstanceUID, Modality) of the results, by series number."""
        found: dict[str, set[tuple[str, str]]] = {}
        for result in self.results:
            number = str(result.dataset.get("SeriesNumber"))
            uid, modality = result.dataset.get("SeriesInstanceUID"), result.dataset.get("Modality")
            found.setdefault(number, set()).add((str(uid), str(modality)))
        return found

    @cached_property
    def source_series(self) -> dict[str, int | None]:
        """SeriesNumber of every source series, by SeriesInstanceUID."""
        return {str(header.SeriesInstanceUID): header.get("SeriesNumber") for header in self.headers}

    @cached_property
    def source_uids(self) -> set[str]:
        """UIDs that results take over; some have a leading zero, against PS3.5 9.1, and are no fault of ours."""
        keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
        return {str(header.get(keyword)) for header in self.headers for keyword in keywords}

    @cached_property
    def uses(self) -> Counter[str]:
        """How many results have a SOPInstanceUID."""
        return Counter(str(result.dataset.SOPInstanceUID) for result in self.results)


class Rule(NamedTuple):
    """A rule: its name, and what breaks it."""

    name: str
    broken: Callable[[Result, Set], Iterable[str]]


def _in_parts(judge: Judge) -> Callable[[Result, Set], Iterator[str]]:
    """What breaks a rule that looks at nothing but each part."""

    def broken(result: Result, _: Set) -> Iterator[str]:
        for part in result.parts:
            yield from part.said(judge)

    return broken


def _identity(result: Result, everything: Set) -> Iterator[str]:
    if not is_rejection(result.dataset):
        yield from _differs(result.dataset, everything.source, "the source")
        return
    # A note has the identity under which was sent what it rejects.
    rejected = {str(item.ReferencedSOPInstanceUID) for part in result.parts for item in part.references}
    if not rejected:
        yield "it rejects nothing"
    runs = {id(who): who for uid, who in everything.sent_before.items() if uid in rejected}
    for who in runs.values():
        yield from _differs(result.dataset, who, "what it rejects")


def _differs(dataset: Dataset, source: Dataset, called: str) -> Iterator[str]:
    for keyword in IDENTITY:
        if str(dataset.get(keyword) or "") != str(source.get(keyword) or ""):
            yield f"{keyword} differs from {called}"
        elif keyword in IDENTITY_TYPE_2 and keyword not in dataset:
            yield f"{keyword} is missing"


def _uids_valid(result: Result, everything: Set) -> Iterator[str]:
    for part in result.parts:
        for keyword, uid in part.invalid_uids:
            if uid not in everything.source_uids:
                yield f"{keyword} is no valid UID"


def _uids_new(result: Result, everything: Set) -> Iterator[str]:
    if result.dataset.SOPInstanceUID in everything.sources:
        yield "SOPInstanceUID is that of a source"
    if result.dataset.SeriesInstanceUID in everything.source_series:
        yield "SeriesInstanceUID is that of a source"
    if everything.uses[str(result.dataset.SOPInstanceUID)] > 1:
        yield "SOPInstanceUID is used twice"
    if str(result.dataset.SOPInstanceUID) in everything.replaced:
        yield "SOPInstanceUID is that of a result that it replaces"


def _file_meta(result: Result, everything: Set) -> Iterator[str]:
    meta, dataset = result.dataset.file_meta, result.dataset
    if meta.MediaStorageSOPInstanceUID != dataset.SOPInstanceUID:
        yield "MediaStorageSOPInstanceUID differs from the data set"
    if meta.MediaStorageSOPClassUID != dataset.SOPClassUID:
        yield "MediaStorageSOPClassUID differs from the data set"
    if meta.TransferSyntaxUID not in (ExplicitVRLittleEndian, everything.profile.transfer_syntax):
        yield f"TransferSyntaxUID is {meta.TransferSyntaxUID}"
    if not meta.get("ImplementationClassUID"):
        yield "ImplementationClassUID is missing"


def _series(result: Result, everything: Set) -> Iterator[str]:
    dataset = result.dataset
    number = dataset.get("SeriesNumber")
    if number is None or number < everything.profile.series_number:
        yield f"SeriesNumber {number} is below {everything.profile.series_number}"
    if number in everything.source_series.values():
        yield f"SeriesNumber {number} is that of a source"
    if len(everything.series_of[str(number)]) > 1:
        yield f"SeriesNumber {number} is that of another series"
    if dataset.get("InstanceNumber") is None:
        yield "InstanceNumber is missing"
    text = str(dataset.get("SeriesDescription", ""))
    if not text.startswith("AI ") or len(text) > 64:
        yield "SeriesDescription does not start with AI, or is longer than 64 characters"
    if dataset.get("ContentQualification") != Qualification.PRODUCT and str(dataset.ContentQualification) not in text:
        yield f"SeriesDescription does not say {dataset.ContentQualification}"


def _qualification(result: Result, everything: Set) -> Iterator[str]:
    value = result.dataset.get("ContentQualification")
    wanted = everything.profile.qualification
    if value not in list(Qualification) or wanted not in (None, value):
        yield f"ContentQualification is {value}"


def _equipment(result: Result, _: Set) -> Iterator[str]:
    for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions"):
        if not result.dataset.get(keyword):
            yield f"{keyword} is missing"


def _contributing_equipment(result: Result, _: Set) -> Iterator[str]:
    needed = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID")
    for item in result.dataset.get("ContributingEquipmentSequence", []):
        purposes = [purpose.CodeValue for purpose in item.get("PurposeOfReferenceCodeSequence", [])]
        if codes.PROCESSING_ALGORITHM.value in purposes and all(item.get(keyword) for keyword in needed):
            return
    yield "no item names the processing algorithm with its version and DeviceUID (IHE AIR)"


def _character_set(result: Result, everything: Set) -> Iterator[str]:
    declared = result.dataset.get("SpecificCharacterSet") or ""
    text = declared if isinstance(declared, str) else "\\".join(declared)
    # Unicode also where the profile has another one, for a name that is not in it.
    if text not in (CHARACTER_SET, everything.profile.character_set):
        yield f"SpecificCharacterSet is {text or 'missing'}"
    for part in result.parts:
        yield from part.said(_undecoded)


def _undecoded(part: Part) -> Iterator[str]:
    for element in part.elements:
        if element.VR in _TEXT and "\N{REPLACEMENT CHARACTER}" in str(element.value):
            yield f"{element.keyword} does not decode"


def _times(result: Result, _: Set) -> Iterator[str]:
    for keyword in ("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime"):
        if not result.dataset.get(keyword):
            yield f"{keyword} is missing"


def _private(part: Part) -> Iterator[str]:
    for element in part.elements:
        if element.tag.is_private:
            yield f"private element {element.tag}"


def _references(result: Result, everything: Set) -> Iterator[str]:
    for item in (item for part in result.parts for item in part.references):
        uid = str(item.ReferencedSOPInstanceUID)
        target, replaced = everything.known.get(uid), everything.replaced.get(uid)
        if target is None and replaced is None:
            yield f"{uid} is neither a source nor a result"
            continue
        class_uid = target.SOPClassUID if target is not None else replaced.sop_class_uid  # type: ignore[union-attr]
        if class_uid != item.ReferencedSOPClassUID:
            yield f"{uid} has another SOP class"
        if target is not None:
            yield from _parts(uid, item, target)


def _parts(uid: str, item: Dataset, target: Dataset) -> Iterator[str]:
    """The frames and segments that ``item`` names are in ``target``."""
    frames = item.get("ReferencedFrameNumber")
    for frame in [] if frames is None else [frames] if isinstance(frames, int) else frames:
        if not 1 <= int(frame) <= int(target.get("NumberOfFrames") or 1):
            yield f"{uid} has no frame {frame}"
    segments = item.get("ReferencedSegmentNumber")
    there = {segment.SegmentNumber for segment in target.get("SegmentSequence", [])}
    for segment in [] if segments is None else [segments] if isinstance(segments, int) else segments:
        if segment not in there:
            yield f"{uid} has no segment {segment}"


def _series_of_references(result: Result, everything: Set) -> Iterator[str]:
    for item in (item for part in result.parts for item in part.series):
        for reference in item.get("ReferencedInstanceSequence", []):
            target = everything.known.get(str(reference.ReferencedSOPInstanceUID))
            if target is not None and target.SeriesInstanceUID != item.SeriesInstanceUID:
                yield f"{reference.ReferencedSOPInstanceUID} is listed in another series"


def _codes(part: Part) -> Iterator[str]:
    for item in part.items:
        values = [item[k].value for k in ("CodeValue", "LongCodeValue", "URNCodeValue") if k in item]
        if not values and "CodeMeaning" not in item:
            continue
        scheme = item.get("CodingSchemeDesignator")
        if not values or not values[0] or not item.get("CodeMeaning") or (not scheme and "URNCodeValue" not in item):
            yield f"code {values} is incomplete"
        if len(item.get("CodeValue", "")) > 16:
            yield f"code {values[0]} is longer than 16 characters"
        if scheme in RETIRED_SCHEMES:
            yield f"code {values} is of the retired scheme {scheme}"


def _schemes(result: Result, _: Set) -> Iterator[str]:
    declared = {item.CodingSchemeDesignator for item in result.dataset.get("CodingSchemeIdentificationSequence", [])}
    used = {scheme for part in result.parts for scheme in part.said(_private_schemes)}
    for scheme in sorted(used - declared):
        yield f"{scheme} is not declared"


def _private_schemes(part: Part) -> set[str]:
    return codes.private_schemes(part.elements)


COMMON = (
    Rule("identity", _identity),
    Rule("valid UIDs", _uids_valid),
    Rule("new UIDs", _uids_new),
    Rule("file meta", _file_meta),
    Rule("series", _series),
    Rule("qualification", _qualification),
    Rule("equipment", _equipment),
    Rule("contributing equipment", _contributing_equipment),
    Rule("character set", _character_set),
    Rule("times", _times),
    Rule("private elements", _in_parts(_private)),
    Rule("references", _references),
    Rule("series of references", _series_of_references),
    Rule("codes", _in_parts(_codes)),
    Rule("coding schemes", _schemes),
)
