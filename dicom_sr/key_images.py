"""Key objects: the images on which the findings are, and the note that earlier results are withdrawn (PS3.3 A.35.4)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_sr import content, terms
from dicom_sr.header import identity, stamp
from dicom_sr.keys import key_slices
from dicom_sr.provenance import result_uid
from dicom_sr.words import words
from node.domain.errors import InvalidInput
from node.domain.finding import Code, Findings
from node.domain.job import Provenance, ResultReference
from node.domain.profile import Profile

_OF_INTEREST = Code("113000", "DCM", "Of Interest")  # CID 7010
_DESCRIPTION = Code("113012", "DCM", "Key Object Description")
_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
_WORKLIST = Code("113038", "DCM", "Incorrect Modality Worklist Entry")


class Rejected(StrEnum):
    """Why results are withdrawn: the title of the note (CID 7011, IHE RAD IOCM)."""

    SUPERSEDED = "superseded"  # newer results of the same study replace them
    OTHER_IDENTITY = "other-identity"  # patient or study were corrected since


def is_rejection(dataset: Dataset) -> bool:
    """Whether a key object selection withdraws what it names."""
    titles = dataset.get("ConceptNameCodeSequence") or [Dataset()]
    return dataset.get("Modality") == "KO" and titles[0].get("CodeValue") in (_QUALITY.value, _WORKLIST.value)


def build(
    provenance: Provenance, findings: Findings, sources: Sequence[Dataset], *, profile: Profile, series_number: int
) -> Dataset:
    """The key slices of `keys.key_slices`, as images of the source; still without patient and study.

    Args:
        sources: normalised headers, one per slice of the volume.
        series_number: SeriesNumber (0020,0011) of the result.
    """
    language = words(profile.language)
    says = language.key_images_text.format(model=provenance.model.label)
    keys = key_slices(findings)
    items = [*content.context(provenance, language), content.text(_DESCRIPTION, says)]
    for k in keys:
        frame_number = findings.volume.sources[k].frame_number
        frames = () if frame_number is None else (frame_number,)
        items.append(content.reference(content.as_reference(sources[k]), frames))
    return _key_object(
        provenance,
        profile,
        _OF_INTEREST,
        items,
        [content.as_reference(sources[k]) for k in keys],
        name="KO",
        series_number=series_number,
    )


def reject(
    provenance: Provenance,
    supersedes: Sequence[ResultReference],
    header: Dataset,
    reason: Rejected,
    *,
    profile: Profile,
    series_number: int,
    part: int = 1,
) -> Dataset:
    """A rejection note for ``supersedes`` (IHE RAD-66), whole: a PACS hides what it names.

    It belongs to the study of what it rejects, and carries the identity under which that was sent.

    Args:
        supersedes: the results that are withdrawn, all of one study.
        header: one of those results, or what has their patient and study.
        series_number: SeriesNumber (0020,0011) of the result.
        part: counts the notes of one set; each is a series of its own, as each may have another patient.

    Raises:
        InvalidInput: nothing is rejected, or results of another study than that of ``header``.
    """
    studies = {target.study_uid for target in supersedes}
    if studies != {str(header.StudyInstanceUID)}:
        raise InvalidInput("supersedes", "are not results of this study", "Write one note for each study")
    language = words(profile.language)
    why, title = {
        Rejected.SUPERSEDED: (language.superseded, _QUALITY),
        Rejected.OTHER_IDENTITY: (language.other_identity, _WORKLIST),
    }[reason]
    says = language.rejection.format(model=provenance.model.label, reason=why)
    items = [*content.context(provenance, language), content.text(_DESCRIPTION, says)]
    items += [content.reference(target) for target in supersedes]
    name = "REJECT" if part == 1 else f"REJECT {part}"
    note = _key_object(provenance, profile, title, items, supersedes, name=name, series_number=series_number)
    stamp(note, identity(header), provenance, what=terms.translated(title, profile.language).meaning)
    return note


def _key_object(
    provenance: Provenance,
    profile: Profile,
    title: Code,
    items: Sequence[Dataset],
    targets: Sequence[ResultReference],
    *,
    name: str,
    series_number: int,
) -> Dataset:
    dataset = content.document(KeyObjectSelectionDocumentStorage, "KO", title, items)
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    dataset.ContentTemplateSequence = [template]
    dataset.CurrentRequestedProcedureEvidenceSequence = content.evidence(targets)
    dataset.SeriesInstanceUID = result_uid(provenance, profile, name, "series")
    dataset.SOPInstanceUID = result_uid(provenance, profile, name, "1")
    dataset.SeriesNumber = series_number
    terms.speak(dataset, profile.language)
    return dataset
