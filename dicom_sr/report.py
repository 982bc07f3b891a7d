"""The SR: a Comprehensive 3D SR of root template TID 1500, Measurement Report (PS3.16)."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom import sr
from highdicom.sr.enum import RelationshipTypeValues as Relationship
from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage

from dicom_sr import codes
from dicom_sr.provenance import observer, result_uid
from dicom_sr.report_groups import Group, Groups, evaluation_item, measurement_item
from dicom_sr.words import Words, words
from node.domain.errors import InvalidInput
from node.domain.finding import Findings, Region
from node.domain.ids import derived_uid
from node.domain.job import Provenance, ResultReference
from node.domain.model import Qualification
from node.domain.profile import FULL, Captures, Profile

# Every SR whose predecessor this one can be (PS3.3 A.35).
SR_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (11, 22, 33, 34))


def build(
    provenance: Provenance,
    findings: Findings,
    headers: Sequence[Dataset],
    segmentation: Dataset | None,
    *,
    series_number: int,
    profile: Profile = FULL,
    supersedes: Sequence[ResultReference] = (),
) -> Dataset:
    """The report.

    A region without voxels has no place; its numbers are told in words. Where nothing has a place, the report holds the
    statements about the whole study alone: that nothing was found, or the class of the study.

    Args:
        headers: normalised, one per slice of the volume.
        segmentation: where the regions that are segments lie, stamped; None where the profile has none.
        series_number: SeriesNumber (0020,0011) of the result.
        supersedes: the results that this one replaces; the SRs among them become its predecessors.

    Raises:
        InvalidInput: nothing at all is said.
    """
    said = (findings.regions, findings.marks, findings.maps, findings.evaluations, findings.measurements)
    if not any((*said, findings.notes)):
        raise InvalidInput("findings", "say nothing", "Refuse the study instead")
    groups = Groups(provenance, findings, segmentation, profile)
    content = _content(provenance, findings, headers, groups, profile)
    report = Dataset()
    report.SOPClassUID = Comprehensive3DSRStorage
    report.SOPInstanceUID = result_uid(provenance, profile, "SR", "1")
    report.SeriesInstanceUID = result_uid(provenance, profile, "SR", "series")
    report.SeriesNumber, report.InstanceNumber, report.Modality = series_number, 1, "SR"
    report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag = "COMPLETE", "PRELIMINARY", "UNVERIFIED"
    report.PerformedProcedureCodeSequence = []
    report.ReferencedPerformedProcedureStepSequence = []
    report.update(content)
    # What was looked at is evidence even where nothing was found on it.
    report.CurrentRequestedProcedureEvidenceSequence = [
        study_references([*headers, *([segmentation] if segmentation is not None else [])])
    ]
    predecessors = [earlier for earlier in supersedes if earlier.sop_class_uid in SR_CLASSES]
    if predecessors:
        report.PredecessorDocumentsSequence = [_hierarchy(earlier) for earlier in predecessors]
    return report


def study_references(instances: Sequence[Dataset]) -> Dataset:
    """The Hierarchical SOP Instance Reference of instances of one study, each once (PS3.3 C.17.2.1)."""
    series: dict[str, dict[str, Dataset]] = {}
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
        series.setdefault(str(instance.SeriesInstanceUID), {}).setdefault(str(instance.SOPInstanceUID), item)
    study = Dataset()
    study.StudyInstanceUID = instances[0].StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for uid, items in series.items():
        one = Dataset()
        one.SeriesInstanceUID = uid
        one.ReferencedSOPSequence = list(items.values())
        study.ReferencedSeriesSequence.append(one)
    return study


def _content(
    provenance: Provenance, findings: Findings, headers: Sequence[Dataset], groups: Groups, profile: Profile
) -> Dataset:
    """The root container (TID 1500)."""
    found = groups.all()
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer(provenance)),
        procedure_reported=codes.concept(findings.procedure),
        # highdicom makes no report without a group, which the template allows where there are statements.
        imaging_measurements=found or [_no_group()],
        title=codes.concept(codes.IMAGING_MEASUREMENT_REPORT),
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            codes.concept(codes.LANGUAGES[profile.language])
        ),
        referenced_images=_library(findings, headers, groups.shown),
    )
    root: Dataset = report[0]
    if not found:
        root.ContentSequence = [item for item in root.ContentSequence if item.ValueType != "CONTAINER"]
    statements = _statements(provenance, findings, profile)
    if statements.ContentSequence:
        root.ContentSequence.append(statements)
    return root


def _library(findings: Findings, headers: Sequence[Dataset], shown: set[int]) -> list[Dataset] | None:
    """The images that groups refer to, once each; TID 1602 describes an image by one plane, which not all have."""
    if not findings.volume.in_patient:
        return None
    library = {str(headers[k].SOPInstanceUID): headers[k] for k in sorted(shown)}
    return [header for header in library.values() if "NumberOfFrames" not in header] or None


def _no_group() -> Group:
    return sr.MeasurementsAndQualitativeEvaluations(sr.TrackingIdentifier(UID(derived_uid("no group")), "none"))


def _hierarchy(earlier: ResultReference) -> Dataset:
    instance = Dataset()
    instance.StudyInstanceUID, instance.SeriesInstanceUID = earlier.study_uid, earlier.series_uid
    instance.SOPClassUID, instance.SOPInstanceUID = earlier.sop_class_uid, earlier.sop_instance_uid
    return study_references([instance])


def _statements(provenance: Provenance, findings: Findings, profile: Profile) -> sr.ContainerContentItem:
    """What is said of the study as a whole (TID 1500 rows 12 to 14).

    Its numbers stand here as well: the template is extensible, and a group of their own has no place in an image, which
    OHIF 3.13 does not survive.
    """
    language = words(profile.language)
    container = sr.ContainerContentItem(
        codes.concept(codes.QUALITATIVE_EVALUATIONS), relationship_type=Relationship.CONTAINS
    )
    container.ContentSequence = sr.ContentSequence()
    for evaluation in findings.evaluations:
        container.ContentSequence.extend(evaluation_item(evaluation))
    for measurement in findings.measurements:
        container.ContentSequence.extend(measurement_item(measurement))
    absent = [_in_words(region, language) for region in findings.regions if not region.mask.any()]
    research = [] if provenance.qualification is Qualification.PRODUCT else [language.research_statement]
    maps = [f"{language.map}: {found.label}{_where_maps_are(findings, profile)}." for found in findings.maps]
    for text in (*research, *absent, *maps, *findings.notes):
        container.ContentSequence.append(
            sr.TextContentItem(codes.concept(codes.COMMENT), text, relationship_type=Relationship.CONTAINS)
        )
    return container


def _where_maps_are(findings: Findings, profile: Profile) -> str:
    """Nothing where each is a Parametric Map; images without a place in the patient have none (PS3.3 A.75.3)."""
    language = words(profile.language)
    if profile.maps and findings.volume.in_patient:
        return ""
    pictures = profile.captures is not Captures.NONE or profile.summary or profile.document
    return f" ({language.map_in_pictures if pictures else language.map_left_out})"


def _in_words(region: Region, language: Words) -> str:
    numbers = [f"{m.name.meaning} {language.number(m.value, m.digits)} {m.unit.value}" for m in region.measurements]
    return f"{region.label}: {language.none_found}" + (f" ({'; '.join(numbers)})" if numbers else "") + "."
