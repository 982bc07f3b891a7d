"""The SEG: one binary segment per region, on the planes and the grid of the source (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_sr import codes
from dicom_sr.provenance import MANUFACTURER, segment_algorithm, software_versions
from node.domain.errors import InvalidInput
from node.domain.finding import Findings, Region
from node.domain.ids import derived_uid
from node.domain.job import Provenance


def tracking_uid(provenance: Provenance, region: Region) -> str:
    """Tracking UID of a region: the same in SEG and SR, and in every run of the job."""
    return derived_uid(provenance.job_id, "tracking", region.key)


def segmented(findings: Findings) -> list[Region]:
    """The regions that become segments, in order: segment number n is ``segmented(findings)[n - 1]``."""
    return [region for region in findings.regions if region.in_segmentation and region.mask.any()]


def build(
    provenance: Provenance, findings: Findings, headers: Sequence[Dataset], *, series_number: int
) -> Segmentation | None:
    """The segmentation, or None where no region has a voxel.

    Args:
        headers: normalised, one per slice of the volume.
        series_number: SeriesNumber (0020,0011) of the result.

    Raises:
        InvalidInput: the volume spans several multi-frame instances.
    """
    regions = segmented(findings)
    if not regions:
        return None
    images, masks = _by_source(findings, headers, regions)
    segmentation = Segmentation(
        source_images=images,
        pixel_array=masks,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(provenance, number, region) for number, region in enumerate(regions, 1)],
        series_instance_uid=derived_uid(provenance.job_id, "SEG", "series"),
        series_number=series_number,
        sop_instance_uid=derived_uid(provenance.job_id, "SEG", "1"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=provenance.model.name,
        software_versions=software_versions(provenance)[0],
        device_serial_number=provenance.node_uid,
        content_label="AI_SEGMENTATION",
        content_description=findings.title[:64] or None,
        omit_empty_frames=True,
    )
    # highdicom draws this one at random; a retry must give the same bytes.
    organization = derived_uid(provenance.job_id, "SEG", "dimension organization")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    return segmentation


def _by_source(
    findings: Findings, headers: Sequence[Dataset], regions: Sequence[Region]
) -> tuple[list[Dataset], NDArray[np.uint8]]:
    """Source images and their masks (frames, rows, columns, segments), frame for frame; where no voxel is in two
    segments, their numbers (frames, rows, columns).

    A multi-frame instance is one source whose frames may run in another order than the volume, or lie outside of it.
    """
    sources = findings.volume.sources
    masks = _masks(regions)
    if sources[0].frame_number is None:
        return [_in_one_frame_of_reference(header, findings) for header in headers], masks
    if len({source.sop_instance_uid for source in sources}) > 1:
        raise InvalidInput("volume.sources", "span several multi-frame instances", "Analyse one instance at a time")
    frames = np.zeros((int(headers[0].NumberOfFrames), *masks.shape[1:]), np.uint8)
    frames[[(source.frame_number or 1) - 1 for source in sources]] = masks
    return [_in_one_frame_of_reference(headers[0], findings)], frames


def _masks(regions: Sequence[Region]) -> NDArray[np.uint8]:
    """As `_by_source`, on the grid of the volume."""
    # Numbers take the memory of one mask, and highdicom counts no overlaps then, which takes it a second.
    if len(regions) < 256:
        numbers = np.zeros(regions[0].mask.shape, np.uint8)
        for number, region in enumerate(regions, 1):
            if numbers[region.mask].any():
                break
            numbers[region.mask] = number
        else:
            return numbers
    # Segment by segment in memory, so that each frame of each is contiguous.
    return np.moveaxis(np.stack([region.mask for region in regions]).view(np.uint8), 0, -1)


def _in_one_frame_of_reference(header: Dataset, findings: Findings) -> Dataset:
    """``header`` in the volume's frame of reference: de-identification may give every slice another."""
    image = Dataset()
    image.update(header)
    image.add_new("FrameOfReferenceUID", "UI", findings.volume.frame_of_reference_uid)
    return image


def _describe(provenance: Provenance, number: int, region: Region) -> SegmentDescription:
    """One item of the Segment Sequence (PS3.3 C.8.20.2)."""
    description = SegmentDescription(
        segment_number=number,
        segment_label=region.label[:64],
        segmented_property_category=codes.concept(region.category),
        segmented_property_type=codes.concept(region.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=segment_algorithm(provenance),
        tracking_uid=tracking_uid(provenance, region),
        tracking_id=region.label,
        display_color=CIELabColor.from_rgb(*region.colour),
    )
    # Left and right belong to the anatomy: to the type where that is the anatomy, else to the region it lies in.
    anatomic = region.type.value == region.site.value
    if not anatomic:
        description.AnatomicRegionSequence = [codes.concept(region.site)]
    if region.laterality is not None:
        laterality = [codes.item(region.laterality)]
        if anatomic:
            description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = laterality
        else:
            description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = laterality
    return description
