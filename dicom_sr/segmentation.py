"""The SEG: one segment per region, on the planes and the grid of the source (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import UID, SegmentationStorage

from dicom_sr import codes
from dicom_sr.header import Plane
from dicom_sr.multiframe import Frames, shell
from dicom_sr.provenance import result_uid, segment_algorithm, tracking_uid
from node.domain.finding import Findings, Region
from node.domain.job import Provenance
from node.domain.mask import LabelMask, areas
from node.domain.profile import FULL, Profile, Segments

LABEL_MAP_STORAGE = UID(
    "1.2.840.10008.5.1.4.1.1.66.7"
)  # Label Map Segmentation Storage; pydicom 3.0 has no name for it
_SEGMENT_NUMBER, _SEGMENT_GROUP = Tag("ReferencedSegmentNumber"), Tag("SegmentIdentificationSequence")
_MOST_LABELS = 65535


def segmented(findings: Findings) -> list[Region]:
    """The regions that become segments, in order: segment number n is ``segmented(findings)[n - 1]``."""
    return [region for region in findings.regions if region.in_segmentation and region.mask.any()]


def build(
    provenance: Provenance,
    findings: Findings,
    headers: Sequence[Dataset],
    places: Sequence[Plane | None],
    *,
    series_number: int,
    profile: Profile = FULL,
) -> Dataset | None:
    """The segmentation, or None where no region has a voxel.

    A label map, where the profile asks for one, holds each voxel once: where regions overlap it is a binary one still.

    Args:
        headers: normalised, one per slice of the volume.
        places: where each slice lies.
        series_number: SeriesNumber (0020,0011) of the result.
    """
    regions = segmented(findings)
    if not regions:
        return None
    segmentation = shell(
        provenance,
        profile,
        headers[0],
        sop_class_uid=SegmentationStorage,
        kind="SEG",
        number=1,
        series_number=series_number,
    )
    segmentation.Modality, segmentation.ImageType = "SEG", ["DERIVED", "PRIMARY"]
    segmentation.ContentLabel, segmentation.ContentDescription = "AI_SEGMENTATION", findings.title[:64]
    segmentation.ContentCreatorName = ""
    segmentation.PixelRepresentation = 0
    segmentation.SegmentSequence = [_describe(provenance, number, region) for number, region in enumerate(regions, 1)]
    frames = Frames(findings, headers, places, codes.SEGMENTATION)
    packed, overlap = _packed(regions, frames)
    organization = result_uid(provenance, profile, "SEG", "dimension organization")
    if profile.segments is Segments.LABELMAP and not overlap and len(regions) <= _MOST_LABELS:
        _label_map(segmentation, regions, Frames(findings, headers, places, codes.SEGMENTATION), organization)
        return segmentation
    segmentation.SegmentationType, segmentation.SegmentsOverlap = "BINARY", "YES" if overlap else "NO"
    segmentation.BitsAllocated = segmentation.BitsStored = 1
    segmentation.HighBit = 0
    frames.finish(segmentation, organization, (_SEGMENT_NUMBER, _SEGMENT_GROUP, "Referenced Segment Number"))
    segmentation.add(DataElement("PixelData", "OB", packed + b"\0" * (len(packed) % 2)))
    return segmentation


def _packed(regions: Sequence[Region], frames: Frames) -> tuple[bytes, bool]:
    """Every slice of every region that has voxels, one bit a pixel (PS3.5 8.1.1); and whether two regions overlap."""
    found: list[NDArray[np.uint8]] = []
    taken: dict[int, NDArray[np.uint8]] = {}
    overlap, aligned = False, True
    loose: list[NDArray[np.bool_]] = []
    for number, region in enumerate(regions, 1):
        identification = Dataset()
        identification.ReferencedSegmentNumber = number
        group = DataElement(_SEGMENT_GROUP, "SQ", Items([identification]))
        for k in np.flatnonzero(areas(region.mask)):
            plane = region.mask[k]
            bits = np.packbits(plane, bitorder="little")
            frames.add(int(k), number, group=group)
            aligned = plane.size % 8 == 0
            (found if aligned else loose).append(bits if aligned else plane.reshape(-1))  # type: ignore[arg-type]
            before = taken.get(int(k))
            overlap = overlap or (before is not None and bool((before & bits).any()))
            taken[int(k)] = bits if before is None else before | bits
    # Frames follow each other without a gap, also where one does not fill its last byte.
    packed = found if aligned else [np.packbits(np.concatenate(loose), bitorder="little")]
    return b"".join(part.tobytes() for part in packed), overlap


def _label_map(segmentation: Dataset, regions: Sequence[Region], frames: Frames, organization: str) -> None:
    """Write the frames of a label map: a pixel holds the number of its segment, 0 where there is none."""
    segmentation.SOPClassUID = LABEL_MAP_STORAGE
    segmentation.SegmentationType = "LABELMAP"
    segmentation.PixelPaddingValue = 0
    dtype = np.uint8 if len(regions) < 256 else np.uint16
    segmentation.BitsAllocated = segmentation.BitsStored = np.dtype(dtype).itemsize * 8
    segmentation.HighBit = segmentation.BitsStored - 1
    on = np.array([areas(region.mask) > 0 for region in regions])
    pixels = []
    for k in np.flatnonzero(on.any(axis=0)):
        plane = np.zeros((segmentation.Rows, segmentation.Columns), dtype)
        for n in map(int, np.flatnonzero(on[:, k])):
            plane[regions[n].mask[k]] = n + 1
        frames.add(int(k))
        pixels.append(plane.tobytes())
    frames.finish(segmentation, organization)
    data = b"".join(pixels)
    segmentation.add(DataElement("PixelData", "OB" if dtype is np.uint8 else "OW", data + b"\0" * (len(data) % 2)))


def expected_plane(mask: NDArray[np.bool_] | LabelMask, k: int) -> NDArray[np.uint8]:
    """Slice ``k`` of ``mask`` as it is packed, for whoever compares."""
    return np.packbits(mask[k], bitorder="little")


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
