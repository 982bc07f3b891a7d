"""The rules for results with pixels: the SEG's planes and masks, the values of a map, the captures' pixels; the PDF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_sr import codes
from dicom_sr.capture import SUMMARY
from dicom_sr.check_common import Rule, Set
from dicom_sr.check_read import Result
from dicom_sr.header import plane
from dicom_sr.lettering import YELLOW
from dicom_sr.segmentation import LABEL_MAP_STORAGE, expected_plane, segmented
from node.domain.mask import areas
from node.domain.model import Qualification
from node.domain.volume import SliceSource

_PLACE_TOLERANCE_MM = 0.001
_DERIVATION, _POSITION = Tag("DerivationImageSequence"), Tag("PlanePositionSequence")
_IDENTIFICATION = Tag("SegmentIdentificationSequence")
_BANNER_ROWS, _BANNER_TOLERANCE = 24, 60  # small letters are blended with their ground


def source_of(derived: Dataset) -> SliceSource:
    """The source that an item of a Source Image Sequence names."""
    frame = derived.get("ReferencedFrameNumber")
    return SliceSource(
        str(derived.ReferencedSOPInstanceUID),
        str(derived.ReferencedSOPClassUID),
        None if frame is None else int(frame),
    )


def _frames(dataset: Dataset) -> Iterator[tuple[SliceSource, Dataset]]:
    """Source and functional groups of every frame. What hundreds of frames have alike is one object (`Part`)."""
    known: dict[int, SliceSource] = {}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        derivation = frame[_DERIVATION]
        if id(derivation) not in known:
            known[id(derivation)] = source_of(derivation.value[0].SourceImageSequence[0])
        yield known[id(derivation)], frame


def _frames_lie(result: Result, everything: Set) -> Iterator[str]:
    """Every frame lies on the plane of its source."""
    seen: set[tuple[SliceSource, int]] = set()
    for source, frame in _frames(result.dataset):
        header = everything.sources.get(source.sop_instance_uid)
        if header is None:
            yield "a frame has no source"
        elif not everything.in_patient:
            if _POSITION in frame:
                yield "a frame has a position, its source has none"
        elif (source, id(frame[_POSITION])) not in seen:
            seen.add((source, id(frame[_POSITION])))
            position = frame[_POSITION].value[0].ImagePositionPatient
            if not np.allclose(position, plane(header, source).position, atol=_PLACE_TOLERANCE_MM):
                yield "a frame does not lie on the plane of its source"


def _grid(result: Result, everything: Set) -> Iterator[str]:
    dataset, header = result.dataset, everything.headers[0]
    if (dataset.Rows, dataset.Columns) != (header.Rows, header.Columns):
        yield f"grid is {dataset.Rows}×{dataset.Columns}, the source's {header.Rows}×{header.Columns}"
    if int(dataset.NumberOfFrames) != len(dataset.PerFrameFunctionalGroupsSequence):
        yield "NumberOfFrames is not that of the functional groups"
    if not everything.in_patient:
        if "FrameOfReferenceUID" in dataset:
            yield "FrameOfReferenceUID is there, the source has no place in the patient"
        return
    frames_of_reference = {h.FrameOfReferenceUID for h in everything.headers if h.get("FrameOfReferenceUID")}
    if frames_of_reference and dataset.FrameOfReferenceUID not in frames_of_reference:
        yield "FrameOfReferenceUID is not that of the source"
    shared = dataset.SharedFunctionalGroupsSequence[0]
    frame = 1 if "PerFrameFunctionalGroupsSequence" in header else None
    place = plane(header, SliceSource(str(header.SOPInstanceUID), str(header.SOPClassUID), frame))
    if not np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, place.orientation, atol=1e-4):
        yield "orientation is not that of the source"
    if not np.allclose(shared.PixelMeasuresSequence[0].PixelSpacing, place.pixel_spacing, atol=1e-4):
        yield "pixel spacing is not that of the source"


def _segments(result: Result, _: Set) -> Iterator[str]:
    numbers = [segment.SegmentNumber for segment in result.dataset.SegmentSequence]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"segments are numbered {numbers}"
    for segment in result.dataset.SegmentSequence:
        number = segment.SegmentNumber
        if segment.SegmentAlgorithmType != "AUTOMATIC" or not segment.get("SegmentAlgorithmName"):
            yield f"segment {number} names no automatic algorithm"
        if not segment.SegmentationAlgorithmIdentificationSequence[0].get("AlgorithmVersion"):
            yield f"segment {number} has no algorithm version"
        if not segment.get("TrackingUID") or not segment.get("TrackingID"):
            yield f"segment {number} is not tracked"
        if not segment.get("RecommendedDisplayCIELabValue"):
            yield f"segment {number} has no colour"


def _stored(dataset: Dataset) -> Iterator[tuple[int, SliceSource, NDArray[np.uint8]]]:
    """Segment number, source and pixels, packed as `expected_plane` does, of every segment on every frame."""
    size = int(dataset.Rows) * int(dataset.Columns)
    frames = list(_frames(dataset))
    if dataset.SOPClassUID == LABEL_MAP_STORAGE:
        pixels = dataset.pixel_array.reshape(len(frames), dataset.Rows, dataset.Columns)
        for (source, _), labels in zip(frames, pixels, strict=True):
            for number in np.unique(labels):
                if number:
                    yield int(number), source, np.packbits(labels == number, bitorder="little")
        return
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    if size % 8:
        bits = np.unpackbits(packed, bitorder="little", count=size * len(frames)).reshape(len(frames), size)
        planes = [np.packbits(one, bitorder="little") for one in bits]
    else:
        planes = list(packed[: size // 8 * len(frames)].reshape(len(frames), size // 8))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for (source, frame), pixel in zip(frames, planes, strict=True):
        there = frame if _IDENTIFICATION in frame else shared
        yield int(there[_IDENTIFICATION].value[0].ReferencedSegmentNumber), source, pixel


def _masks(result: Result, everything: Set) -> Iterator[str]:
    segments = {int(segment.SegmentNumber): segment for segment in result.dataset.SegmentSequence}
    regions = {} if everything.findings is None else dict(enumerate(segmented(everything.findings), 1))
    sources = {} if everything.findings is None else {s: k for k, s in enumerate(everything.findings.volume.sources)}
    on = {number: areas(region.mask) for number, region in regions.items()}
    filled: dict[int, set[int]] = {number: set() for number in segments}
    empty, other = set(), set()
    for number, source, pixels in _stored(result.dataset):
        if number not in segments:
            yield f"a frame is of segment {number}, which is not described"
            continue
        k = sources.get(source, -1)
        same = number in on and k >= 0 and np.array_equal(pixels, expected_plane(regions[number].mask, k))
        if not same:
            other.add(number)
        if (same and on[number][k]) or pixels.any():
            filled[number].add(k)
        else:
            empty.add(number)
    yield from (f"segment {number} has an empty frame" for number in sorted(empty))
    for number, segment in segments.items():
        if not filled[number]:
            yield f"segment {number} is empty"
        region = regions.get(number)
        if everything.findings is not None and (region is None or region.label[:64] != segment.SegmentLabel):
            yield f"segment {number} is no region"
        if region is not None and (number in other or filled[number] != set(np.flatnonzero(on[number]))):
            yield f"segment {number} is not the mask of its region"


SEGMENTATION: Sequence[Rule] = (
    Rule("grid", _grid),
    Rule("planes", _frames_lie),
    Rule("segments", _segments),
    Rule("masks", _masks),
)


def _map_values(result: Result, everything: Set) -> Iterator[str]:
    dataset = result.dataset
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    unit = mapping.MeasurementUnitsCodeSequence[0]
    if unit.CodingSchemeDesignator != "UCUM":
        yield f"the unit is of {unit.CodingSchemeDesignator}, not of UCUM"
    if not mapping.get("QuantityDefinitionSequence"):
        yield "the quantity is not said"
    values = np.frombuffer(dataset.FloatPixelData, "<f4")
    if values.size != int(dataset.NumberOfFrames) * int(dataset.Rows) * int(dataset.Columns):
        yield "FloatPixelData has another length than the frames"
        return
    if not np.isfinite((float(values.min()), float(values.max()))).all():
        yield "a value is not finite"
    if everything.findings is None:
        return
    sources = [source for source, _ in _frames(dataset)]
    if sources != list(everything.findings.volume.sources):
        yield "the frames are not the slices of the volume, in their order"
    labels = [found for found in everything.findings.maps if found.label[:64] == mapping.LUTExplanation]
    if not any(np.array_equal(values, found.values.reshape(-1)) for found in labels):
        yield "the values are not those of its map"


MAP: Sequence[Rule] = (Rule("grid", _grid), Rule("planes", _frames_lie), Rule("values", _map_values))

_CAPTURE_VALUES = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "ConversionType": "WSD",
    "BurnedInAnnotation": "YES",
}


def _capture_image(result: Result, _: Set) -> Iterator[str]:
    capture = result.dataset
    for keyword, value in _CAPTURE_VALUES.items():
        if capture.get(keyword) != value:
            yield f"{keyword} is {capture.get(keyword)}, not {value}"
    if list(capture.ImageType[:2]) != ["DERIVED", "SECONDARY"]:
        yield "ImageType does not start with DERIVED, SECONDARY"
    if capture.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    size = int(capture.get("NumberOfFrames") or 1) * capture.Rows * capture.Columns * 3
    if len(capture.PixelData) != size + size % 2:
        yield "PixelData has another length than the image"
    elif not any(capture.PixelData):
        yield "the image is black"
    elif capture.get("ContentQualification") != Qualification.PRODUCT and not _banner(capture):
        yield "the image has no banner"


def _banner(capture: Dataset) -> bool:
    """Whether letters in the colour of the banner, or nearly, stand in the upper eighth of the first frame."""
    rows = min(capture.Rows, max(_BANNER_ROWS, capture.Rows // 8))
    pixels = np.frombuffer(capture.PixelData, np.uint8, count=rows * capture.Columns * 3).reshape(-1, 3)
    near = np.ones(len(pixels), np.bool_)
    for channel, wanted in zip(pixels.T, YELLOW, strict=True):
        near &= (channel >= max(wanted - _BANNER_TOLERANCE, 0)) & (channel <= min(wanted + _BANNER_TOLERANCE, 255))
    return bool(near.any())


def _capture_source(result: Result, everything: Set) -> Iterator[str]:
    items = result.dataset.SourceImageSequence
    if items[0].PurposeOfReferenceCodeSequence[0].CodeValue != codes.SOURCE_FOR_PROCESSING.value:
        yield "the source image has no purpose"
    if not everything.in_patient or SUMMARY in result.dataset.ImageType:
        if "ImagePositionPatient" in result.dataset:
            yield "it has a position, which a page and an image without a place have not"
        return
    source = source_of(items[0])
    place = plane(everything.sources[source.sop_instance_uid], source)
    if not np.allclose(result.dataset.ImagePositionPatient, place.position, atol=_PLACE_TOLERANCE_MM):
        yield "it does not lie on the plane of its source"
    if not np.allclose(result.dataset.ImageOrientationPatient, place.orientation, atol=1e-4):
        yield "orientation is not that of the source"
    if not result.dataset.get("FrameOfReferenceUID"):
        yield "FrameOfReferenceUID is missing"


CAPTURE: Sequence[Rule] = (Rule("image", _capture_image), Rule("source", _capture_source))
MULTIFRAME_CAPTURE: Sequence[Rule] = (Rule("image", _capture_image),)


def _pdf(result: Result, _: Set) -> Iterator[str]:
    if result.dataset.get("MIMETypeOfEncapsulatedDocument") != "application/pdf":
        yield f"MIMETypeOfEncapsulatedDocument is {result.dataset.get('MIMETypeOfEncapsulatedDocument')}"
    if not bytes(result.dataset.EncapsulatedDocument).startswith(b"%PDF-"):
        yield "the document is no PDF"


DOCUMENT: Sequence[Rule] = (Rule("document", _pdf),)
