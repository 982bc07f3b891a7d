"""The measurement groups of the SR: where a region or mark lies, and what was measured of it (TID 1410, 1411, 1501)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from highdicom import sr
from pydicom.dataset import Dataset

from dicom_sr import codes, ohif
from dicom_sr.outline import Outline, bounding_rectangle, outlines, slices_to_show
from dicom_sr.provenance import algorithm, tracking_uid
from dicom_sr.segmentation import segmented
from node.domain import finding
from node.domain.finding import Findings, Mark, Measurement, Region, Shape
from node.domain.job import Provenance
from node.domain.profile import FULL, Profile
from node.domain.volume import SliceSource

Group = (
    sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | sr.MeasurementsAndQualitativeEvaluations
)
_GRAPHIC_TYPES = {
    Shape.POINT: sr.GraphicTypeValues.POINT,
    Shape.POLYLINE: sr.GraphicTypeValues.POLYLINE,
    Shape.POLYGON: sr.GraphicTypeValues.POLYLINE,
    Shape.BOX: sr.GraphicTypeValues.POLYLINE,
}


class Groups:
    """Makes the groups of one report; ``shown`` collects the slices that they refer to.

    What has a place gives two groups with one Tracking UID, which viewers put together again: one that only says where
    it lies, on one image, and one with what was measured and evaluated. A viewer that takes a rectangle over as a
    measurement of its own would else take its first number, be it a certainty or a volume, for the rectangle's area.
    For OHIF (``Profile.ohif_tools``) the length of a line, the area of an outline stands first, inferred from it.
    """

    def __init__(
        self, provenance: Provenance, findings: Findings, segmentation: Dataset | None, profile: Profile = FULL
    ) -> None:
        self._provenance = provenance
        self._findings = findings
        self._tools = profile.ohif_tools and ohif.takes_over(findings.volume)
        self._segmentation = segmentation
        self._segments = [region.key for region in segmented(findings)]
        self.shown: set[int] = set()

    def all(self) -> list[Group]:
        """The groups of all regions with voxels, and of all marks."""
        regions = [region for region in self._findings.regions if region.mask.any()]
        groups: list[Group] = []
        for region, k in zip(regions, slices_to_show([region.mask for region in regions]), strict=True):
            rectangle = Outline(k, bounding_rectangle(region.mask[k]))
            groups += [self._place(region, rectangle, sr.GraphicTypeValues.POLYLINE), self._measured_region(region)]
        for mark in self._findings.marks:
            groups += self._mark(mark)
        return groups

    def _common(self, found: Region | Mark) -> dict[str, Any]:
        laterality = None if found.laterality is None else codes.concept(found.laterality)
        category = found.category if isinstance(found, Mark) else None
        return {
            "tracking_identifier": sr.TrackingIdentifier(
                uid=tracking_uid(self._provenance, found),
                identifier=ohif.identifier(found, self._findings.volume) if self._tools else found.label,
            ),
            "finding_type": codes.concept(found.type),
            "finding_category": None if category is None else codes.concept(category),
            "finding_sites": [sr.FindingSite(codes.concept(found.site), laterality=laterality)],
            "algorithm_id": algorithm(self._provenance),
        }

    def _image_region(self, outline: Outline, graphic_type: sr.GraphicTypeValues) -> sr.ImageRegion:
        return sr.ImageRegion(graphic_type, outline.points, source_image=self._image(outline))

    def _image(self, outline: Outline) -> sr.SourceImageForRegion:
        self.shown.add(outline.k)
        source: SliceSource = self._findings.volume.sources[outline.k]
        return sr.SourceImageForRegion(
            source.sop_class_uid,
            source.sop_instance_uid,
            referenced_frame_numbers=None if source.frame_number is None else [source.frame_number],
        )

    def _place(self, found: Region | Mark, outline: Outline, graphic_type: sr.GraphicTypeValues) -> Group:
        """TID 1410: where it lies on one image; no number, as none is measured in that plane."""
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            **self._common(found), referenced_region=self._image_region(outline, graphic_type)
        )
        if self._tools:
            ohif.name(group[0], found)
        return group

    def _measured_region(self, region: Region) -> Group:
        """TID 1411 about the region's segment; TID 1501 where it has none, being the union of others."""
        common = self._common(region) | _said(region.measurements, region.evaluations)
        if self._segmentation is None or region.key not in self._segments:
            return sr.MeasurementsAndQualitativeEvaluations(**common)
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            **common,
            referenced_segment=sr.ReferencedSegment(
                self._segmentation.SOPClassUID,
                self._segmentation.SOPInstanceUID,
                self._segments.index(region.key) + 1,
                source_series=sr.SourceSeriesForSegmentation(self._findings.volume.series_uid),
            ),
        )

    def _mark(self, mark: Mark) -> Iterator[Group]:
        """Its place; then TID 1411 with every slice of a box through several, or TID 1501 if more is said."""
        found = outlines(mark, self._findings.volume.shape)
        graphic_type = _GRAPHIC_TYPES[mark.shape]
        yield self._place(mark, found[len(found) // 2], graphic_type)
        own = ohif.size(mark, self._findings.volume) if self._tools else None
        others = tuple(m for m in mark.measurements if m is not own)
        said = _said((*_certainty(mark), *others), mark.evaluations)
        if own is not None:
            line = sr.CoordinatesForMeasurement(graphic_type, found[0].points, self._image(found[0]))
            said["measurements"].insert(0, measurement_item(own, [line]))
        if len(found) > 1:
            regions = [self._image_region(outline, graphic_type) for outline in found]
            yield sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                **(self._common(mark) | said), referenced_regions=regions
            )
        elif any(said.values()):
            group = sr.MeasurementsAndQualitativeEvaluations(**(self._common(mark) | said))
            if own is not None:
                ohif.name(group[0], mark)
            yield group


def _certainty(mark: Mark) -> list[Measurement]:
    if mark.confidence is None:
        return []
    return [Measurement("confidence", codes.CERTAINTY, 100.0 * mark.confidence, codes.PERCENT)]


def _said(measurements: Sequence[Measurement], evaluations: Sequence[finding.Evaluation]) -> dict[str, Any]:
    return {
        "measurements": [measurement_item(m) for m in measurements],
        "qualitative_evaluations": [evaluation_item(e) for e in evaluations],
    }


def measurement_item(
    measurement: Measurement, of: Sequence[sr.CoordinatesForMeasurement] | None = None
) -> sr.Measurement:
    """TID 300, rounded to the digits that mean something.

    Args:
        of: where it was measured, where that is not the place of its group.
    """
    return sr.Measurement(
        name=codes.concept(measurement.name),
        value=round(measurement.value, measurement.digits),
        unit=codes.concept(measurement.unit),
        method=None if measurement.method is None else codes.concept(measurement.method),
        derivation=None if measurement.derivation is None else codes.concept(measurement.derivation),
        referenced_coordinates=of,
    )


def evaluation_item(evaluation: finding.Evaluation) -> sr.QualitativeEvaluation:
    """A question and its coded answer."""
    return sr.QualitativeEvaluation(codes.concept(evaluation.name), codes.concept(evaluation.value))
