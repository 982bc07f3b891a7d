"""What the multi-frame results, SEG and Parametric Map, have in common: their frames, and where each of them lies.

Written element by element and not by highdicom: it takes no images without a frame of reference but a single one, it
orders the frames of a map against the slices, and the two thousand frames of a large segmentation take it seconds.
Elements that many frames share are one object here, so that they are encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from dicom_sr import codes
from dicom_sr.header import Plane
from dicom_sr.provenance import result_uid
from node.domain.finding import Code, Findings
from node.domain.job import Provenance
from node.domain.profile import Profile
from node.domain.volume import SliceSource

_IMAGE_POSITION, _PLANE_POSITION_GROUP = Tag("ImagePositionPatient"), Tag("PlanePositionSequence")
_IN_STACK_POSITION, _FRAME_CONTENT_GROUP = Tag("InStackPositionNumber"), Tag("FrameContentSequence")


def shell(
    provenance: Provenance,
    profile: Profile,
    header: Dataset,
    *,
    sop_class_uid: UID,
    kind: str,
    number: int,
    series_number: int,
) -> Dataset:
    """An instance without frames, alone in its series; ``kind`` and ``number`` make its UIDs.

    Args:
        header: of a source image, normalised.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = result_uid(provenance, profile, kind, str(number))
    dataset.SeriesInstanceUID = result_uid(provenance, profile, kind, *_more(number), "series")
    dataset.SeriesNumber, dataset.InstanceNumber = series_number, 1
    dataset.Rows, dataset.Columns = header.Rows, header.Columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.LossyImageCompression = header.LossyImageCompression
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if dataset.LossyImageCompression == "01" and keyword in header:
            dataset[keyword] = header[keyword]
    return dataset


def _more(number: int) -> tuple[str, ...]:
    """The first has the name of its kind alone."""
    return () if number == 1 else (str(number),)


class Frames:
    """The functional groups of a result whose frames lie on slices of the volume (PS3.3 C.7.6.16)."""

    def __init__(
        self, findings: Findings, headers: Sequence[Dataset], places: Sequence[Plane | None], derivation: Code
    ) -> None:
        self._volume = findings.volume
        self._headers = headers
        self._places = places
        self._derivation = derivation
        self._groups: list[Dataset] = []
        self._values: list[list[int]] = []
        self._slices: list[int] = []
        self._shared: dict[tuple[str, int], DataElement] = {}

    def add(self, k: int, *dimension: int, group: DataElement | None = None) -> None:
        """A frame on slice ``k``; ``dimension`` are its indices before that of the slice, ``group`` is one more."""
        item = Dataset()
        item.add(self._once("derivation", k))
        if self._places[k] is not None:
            item.add(self._once("position", k))
        if group is not None:
            item.add(group)
        self._groups.append(item)
        self._values.append([*dimension, k])
        self._slices.append(k)

    def finish(self, dataset: Dataset, organization_uid: str, *dimensions: tuple[int, int, str]) -> None:
        """Write the frames into ``dataset``.

        Args:
            dimensions: (DimensionIndexPointer, FunctionalGroupPointer, label) of those before that of the slice.
        """
        placed = self._places[0] is not None
        last = (
            (_IMAGE_POSITION, _PLANE_POSITION_GROUP, "Image Position Patient")
            if placed
            else (_IN_STACK_POSITION, _FRAME_CONTENT_GROUP, "In-Stack Position Number")
        )
        _describe_dimensions(dataset, organization_uid, [*dimensions, last])
        # The index of a slice counts the slices that have a frame (PS3.3 C.7.6.17.1).
        index = {k: n for n, k in enumerate(sorted(set(self._slices)), 1)}
        for item, values in zip(self._groups, self._values, strict=True):
            content = Dataset()
            content.DimensionIndexValues = [*values[:-1], index[values[-1]]]
            if not placed:
                content.StackID, content.InStackPositionNumber = "1", values[-1] + 1
            item.FrameContentSequence = [content]
        dataset.NumberOfFrames = len(self._groups)
        dataset.PerFrameFunctionalGroupsSequence = self._groups
        dataset.SharedFunctionalGroupsSequence = [self._shared_groups()]
        dataset.ReferencedSeriesSequence = [self._references()]
        if placed:
            dataset.FrameOfReferenceUID = self._volume.frame_of_reference_uid
            dataset.PositionReferenceIndicator = self._headers[0].get("PositionReferenceIndicator", "")
        else:
            dataset.PatientOrientation = ""  # type 2C: required of an image without a position (PS3.3 C.7.6.1)

    def _once(self, what: str, k: int) -> DataElement:
        """The element of slice ``k``, one object however many frames have it."""
        key = what, k
        if key not in self._shared:
            self._shared[key] = self._derived(k) if what == "derivation" else self._position(k)
        return self._shared[key]

    def _derived(self, k: int) -> DataElement:
        source = reference(self._volume.sources[k])
        source.SpatialLocationsPreserved = "YES"
        source.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_FOR_PROCESSING)]
        item = Dataset()
        item.SourceImageSequence = [source]
        item.DerivationCodeSequence = [codes.item(self._derivation)]
        return DataElement("DerivationImageSequence", "SQ", Items([item]))

    def _position(self, k: int) -> DataElement:
        item = Dataset()
        place = self._places[k]
        assert place is not None
        item.ImagePositionPatient = [format_number_as_ds(v) for v in place.position]
        return DataElement("PlanePositionSequence", "SQ", Items([item]))

    def _shared_groups(self) -> Dataset:
        shared = Dataset()
        place, measures = self._places[0], Dataset()
        if place is not None:
            orientation = Dataset()
            orientation.ImageOrientationPatient = [format_number_as_ds(v) for v in place.orientation]
            shared.PlaneOrientationSequence = [orientation]
            measures.PixelSpacing = [format_number_as_ds(v) for v in place.pixel_spacing]
            measures.SliceThickness = self._headers[0].SliceThickness
            measures.SpacingBetweenSlices = format_number_as_ds(round(self._volume.spacing[0], 6))
            shared.PixelMeasuresSequence = [measures]
        elif self._headers[0].get("PixelSpacing"):
            measures.PixelSpacing = self._headers[0].PixelSpacing
            shared.PixelMeasuresSequence = [measures]
        return shared

    def _references(self) -> Dataset:
        """The Common Instance Reference module (PS3.3 C.12.2)."""
        series = Dataset()
        series.SeriesInstanceUID = self._headers[0].SeriesInstanceUID
        used = {self._volume.sources[k].sop_instance_uid: self._volume.sources[k] for k in sorted(set(self._slices))}
        series.ReferencedInstanceSequence = [reference(source, frame=False) for source in used.values()]
        return series


def reference(source: SliceSource, *, frame: bool = True) -> Dataset:
    """The SOP Instance Reference of ``source``, and its frame (PS3.3 10.3, 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.sop_class_uid
    item.ReferencedSOPInstanceUID = source.sop_instance_uid
    if frame and source.frame_number is not None:
        item.ReferencedFrameNumber = source.frame_number
    return item


def _describe_dimensions(dataset: Dataset, organization_uid: str, dimensions: Sequence[tuple[int, int, str]]) -> None:
    """The Multi-frame Dimension module (PS3.3 C.7.6.17)."""
    organization = Dataset()
    organization.DimensionOrganizationUID = organization_uid
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = []
    for pointer, group, label in dimensions:
        item = Dataset()
        item.DimensionOrganizationUID = organization_uid
        item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
        item.DimensionDescriptionLabel = label
        dataset.DimensionIndexSequence.append(item)
