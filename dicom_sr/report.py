"""The SR: a Comprehensive 3D SR of root template TID 1500, Measurement Report (PS3.16)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from highdicom import sr
from highdicom.seg import Segmentation
from highdicom.sr.enum import RelationshipTypeValues as Relationship
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_sr import codes
from dicom_sr.outline import bounding_rectangle, slices_to_show
from dicom_sr.provenance import MANUFACTURER, algorithm, observer
from dicom_sr.segmentation import segmented, tracking_uid
from node.domain import finding
from node.domain.errors import InvalidInput
from node.domain.finding import Findings, Region
from node.domain.ids import derived_uid
from node.domain.job import Provenance
from node.domain.model import Qualification

_Group = (
    sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | sr.MeasurementsAndQualitativeEvaluations
)
_RESEARCH_STATEMENT = "Research result. Not for diagnostic use."


def build(
    provenance: Provenance,
    findings: Findings,
    headers: Sequence[Dataset],
    segmentation: Segmentation | None,
    *,
    series_number: int,
) -> sr.Comprehensive3DSR:
    """The report.

    A region that has voxels gives two groups with one Tracking UID: a planar one with the place of a large
    cross-section, without which viewers cannot show the finding, and one that carries what was measured and evaluated
    over all of its slices. A region without voxels has no place; its numbers are told in words. Where none has, the
    report holds the statements about the whole study alone: that nothing was found, or the class of the study.

    Args:
        headers: normalised, one per slice of the volume.
        segmentation: where the regions that are segments lie.
        series_number: SeriesNumber (0020,0011) of the result.

    Raises:
        InvalidInput: a measurement is not a finite number, or nothing at all is said.
    """
    regions = [region for region in findings.regions if region.mask.any()]
    if not (findings.regions or findings.evaluations or findings.notes):
        raise InvalidInput("findings", "say nothing", "Refuse the study instead")
    shown = slices_to_show([region.mask for region in regions])
    groups: list[_Group] = []
    for region, k in zip(regions, shown, strict=True):
        groups += [
            _place_group(provenance, findings, region, k),
            _measured_group(provenance, findings, region, segmentation),
        ]
    library = {headers[k].SOPInstanceUID: headers[k] for k in sorted(set(shown))}
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer(provenance)),
        procedure_reported=codes.concept(findings.procedure),
        # highdicom makes no report without a group, which the template allows where there are statements.
        imaging_measurements=groups or [_no_group()],
        title=codes.concept(codes.IMAGING_MEASUREMENT_REPORT),
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            codes.concept(codes.LANGUAGE_ENGLISH)
        ),
        # TID 1602 describes a whole image by one plane, which a multi-frame one has not.
        referenced_images=[h for h in library.values() if "NumberOfFrames" not in h] or None,
    )
    if not groups:
        report[0].ContentSequence = [item for item in report[0].ContentSequence if item.ValueType != "CONTAINER"]
    statements = _statements(provenance, findings)
    if statements.ContentSequence:
        report[0].ContentSequence.append(statements)
    return sr.Comprehensive3DSR(
        evidence=[*headers, *([segmentation] if segmentation else [])],
        content=report[0],
        series_instance_uid=derived_uid(provenance.job_id, "SR", "series"),
        series_number=series_number,
        sop_instance_uid=derived_uid(provenance.job_id, "SR", "1"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )


def _no_group() -> _Group:
    return sr.MeasurementsAndQualitativeEvaluations(sr.TrackingIdentifier(UID(derived_uid("no group")), "none"))


def _tracking(provenance: Provenance, region: Region) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(uid=tracking_uid(provenance, region), identifier=region.label)


def _sites(region: Region) -> list[sr.FindingSite]:
    laterality = None if region.laterality is None else codes.concept(region.laterality)
    return [sr.FindingSite(codes.concept(region.site), laterality=laterality)]


def _place_group(provenance: Provenance, findings: Findings, region: Region, k: int) -> _Group:
    """TID 1410: the rectangle about the cross-section on slice ``k``; no number, as none is measured in that plane."""
    source = findings.volume.sources[k]
    image = sr.SourceImageForRegion(
        source.sop_class_uid,
        source.sop_instance_uid,
        referenced_frame_numbers=None if source.frame_number is None else [source.frame_number],
    )
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(provenance, region),
        referenced_region=sr.ImageRegion(
            sr.GraphicTypeValues.POLYLINE, bounding_rectangle(region.mask[k]), source_image=image
        ),
        finding_type=codes.concept(region.type),
        finding_sites=_sites(region),
        algorithm_id=algorithm(provenance),
    )


def _measured_group(
    provenance: Provenance, findings: Findings, region: Region, segmentation: Segmentation | None
) -> _Group:
    """TID 1411 about the region's segment; TID 1501 where it has none, being the union of others."""
    common: dict[str, Any] = {
        "tracking_identifier": _tracking(provenance, region),
        "finding_type": codes.concept(region.type),
        "finding_sites": _sites(region),
        "algorithm_id": algorithm(provenance),
        "measurements": [_measurement(region, m) for m in region.measurements],
        "qualitative_evaluations": [_evaluation(e) for e in region.evaluations],
    }
    segments = [r.key for r in segmented(findings)]
    if segmentation is None or region.key not in segments:
        return sr.MeasurementsAndQualitativeEvaluations(**common)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        **common,
        referenced_segment=sr.ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            segments.index(region.key) + 1,
            source_series=sr.SourceSeriesForSegmentation(findings.volume.series_uid),
        ),
    )


def _measurement(region: Region, measurement: finding.Measurement) -> sr.Measurement:
    """TID 300, rounded to the digits that mean something."""
    if not math.isfinite(measurement.value):
        raise InvalidInput(
            f"{region.key}.{measurement.key}", f"is {measurement.value}", "Leave out what could not be measured"
        )
    return sr.Measurement(
        name=codes.concept(measurement.name),
        value=round(measurement.value, measurement.digits),
        unit=codes.concept(measurement.unit),
        method=None if measurement.method is None else codes.concept(measurement.method),
        derivation=None if measurement.derivation is None else codes.concept(measurement.derivation),
    )


def _evaluation(evaluation: finding.Evaluation) -> sr.QualitativeEvaluation:
    return sr.QualitativeEvaluation(codes.concept(evaluation.name), codes.concept(evaluation.value))


def _statements(provenance: Provenance, findings: Findings) -> sr.ContainerContentItem:
    """What is said of the study as a whole (TID 1500 rows 12 to 14)."""
    container = sr.ContainerContentItem(
        codes.concept(codes.QUALITATIVE_EVALUATIONS), relationship_type=Relationship.CONTAINS
    )
    container.ContentSequence = sr.ContentSequence()
    for evaluation in findings.evaluations:
        container.ContentSequence.extend(_evaluation(evaluation))
    absent = [_in_words(region) for region in findings.regions if not region.mask.any()]
    research = [] if provenance.qualification is Qualification.PRODUCT else [_RESEARCH_STATEMENT]
    for text in (*research, *absent, *findings.notes):
        container.ContentSequence.append(
            sr.TextContentItem(codes.concept(codes.COMMENT), text, relationship_type=Relationship.CONTAINS)
        )
    return container


def _in_words(region: Region) -> str:
    numbers = [f"{m.name.meaning} {m.value:.{m.digits}f} {m.unit.value}" for m in region.measurements]
    return f"{region.label}: none found" + (f" ({'; '.join(numbers)})" if numbers else "") + "."
