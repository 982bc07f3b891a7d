"""The rules for each kind of result: the SR's content tree, the SEG's planes and masks, the captures' pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dictionary

from dicom_sr import codes
from dicom_sr.capture import SUMMARY
from dicom_sr.check_common import Result, Rule, Set
from dicom_sr.header import plane
from node.domain.model import Qualification
from node.domain.volume import SliceSource

_TITLE, _LANGUAGE, _PROCEDURE = "126000", "121049", "121058"
_OBSERVER_UID, _OBSERVER_MODEL = "121012", "121015"
_MEASUREMENTS, _GROUP = "126010", "125007"
_TRACKING_ID, _TRACKING_UID, _FINDING = "112039", "112040", "121071"
_ALGORITHM_NAME, _ALGORITHM_VERSION = "111001", "111003"
_GROUP_TEMPLATES = ("1410", "1411", "1501")
_PROCEDURES = {code.value for code in dictionary.cid100.concepts.values()}
_UNITS = {code.value for code in dictionary.UCUM.concepts.values()} | {
    "ml",
    "mL",
    "g",
    "kg",
    "s",
    "{ratio}",
    "{pixels}",
    "{-1:1}",
}
_PLACE_TOLERANCE_MM = 0.001


def concept(item: Dataset) -> str:
    """Code value of the concept name of a content item, empty where it has none."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def content(item: Dataset) -> Iterator[Dataset]:
    """Content items below ``item``, of every depth, parents first."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from content(child)


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups of a TID 1500 report."""
    return [item for item in content(report) if concept(item) == _GROUP]


def tracking_uid(group: Dataset) -> str | None:
    """Tracking Unique Identifier of a measurement group."""
    return next((str(item.UID) for item in group.ContentSequence if concept(item) == _TRACKING_UID), None)


def _root(result: Result, _: Set) -> Iterator[str]:
    report = result.dataset
    if concept(report) != _TITLE or report.ContentTemplateSequence[0].TemplateIdentifier != "1500":
        yield "root is not TID 1500 with the title 126000"
    present = {concept(item): item for item in report.ContentSequence}
    for code in (_LANGUAGE, _PROCEDURE, _OBSERVER_UID, _OBSERVER_MODEL):
        if code not in present:
            yield f"content item {code} is missing"
    # TID 1500 asks for at least one of its rows 6, 8, 10 and 12.
    if not present.keys() & {_MEASUREMENTS, codes.QUALITATIVE_EVALUATIONS.value}:
        yield f"content items {_MEASUREMENTS} and {codes.QUALITATIVE_EVALUATIONS.value} are missing"
    procedure = present.get(_PROCEDURE)
    if procedure is not None and procedure.ConceptCodeSequence[0].CodeValue not in _PROCEDURES:
        yield f"procedure {procedure.ConceptCodeSequence[0].CodeValue} is not in CID 100"


def _flags(result: Result, _: Set) -> Iterator[str]:
    for keyword, value in (("CompletionFlag", "COMPLETE"), ("VerificationFlag", "UNVERIFIED")):
        if result.dataset.get(keyword) != value:
            yield f"{keyword} is {result.dataset.get(keyword)}"


def _groups(result: Result, _: Set) -> Iterator[str]:
    for group in groups(result.dataset):
        template = group.ContentTemplateSequence[0].TemplateIdentifier
        if template not in _GROUP_TEMPLATES:
            yield f"group template is {template}"
        present = {concept(item) for item in group.ContentSequence}
        for code in (_TRACKING_ID, _TRACKING_UID, _FINDING, _ALGORITHM_NAME, _ALGORITHM_VERSION):
            if code not in present:
                yield f"a group of TID {template} has no {code}"


def _tracking_places(result: Result, _: Set) -> Iterator[str]:
    placed: dict[str | None, bool] = {}
    for group in groups(result.dataset):
        uid = tracking_uid(group)
        has_place = any(item.ValueType in ("SCOORD", "SCOORD3D") for item in content(group))
        placed[uid] = placed.get(uid, False) or has_place
    yield from (f"tracking UID {uid} has no coordinates" for uid, has_place in placed.items() if not has_place)


def _tracking_segments(result: Result, everything: Set) -> Iterator[str]:
    reported = {tracking_uid(group) for group in groups(result.dataset)}
    for other in everything.results:
        for segment in other.dataset.get("SegmentSequence", []):
            if segment.get("TrackingUID") not in reported:
                yield f"segment {segment.SegmentNumber} is tracked by no group"


def _numbers(result: Result, _: Set) -> Iterator[str]:
    for item in content(result.dataset):
        if item.ValueType != "NUM":
            continue
        if not item.get("MeasuredValueSequence"):
            yield f"{concept(item)} has no value"
            continue
        value = item.MeasuredValueSequence[0]
        unit = value.MeasurementUnitsCodeSequence[0]
        if unit.CodingSchemeDesignator != "UCUM" or unit.CodeValue not in _UNITS:
            yield f"unit of {concept(item)} is {unit.CodeValue} of {unit.CodingSchemeDesignator}, not of UCUM"
        if not math.isfinite(float(value.NumericValue)):
            yield f"{concept(item)} is not finite"


def _evidence(result: Result, everything: Set) -> Iterator[str]:
    listed: dict[str, str] = {}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in result.dataset.get(keyword, []):
            for series in study.ReferencedSeriesSequence:
                for item in series.ReferencedSOPSequence:
                    listed[str(item.ReferencedSOPInstanceUID)] = str(series.SeriesInstanceUID)
    used = {
        str(reference.ReferencedSOPInstanceUID)
        for item in content(result.dataset)
        for reference in item.get("ReferencedSOPSequence", [])
    }
    for uid in sorted(used - set(listed)):
        yield f"{uid} is used but not listed as evidence"
    for uid, series_uid in listed.items():
        if uid in everything.known and everything.known[uid].SeriesInstanceUID != series_uid:
            yield f"{uid} is listed in another series"


def _coordinates(result: Result, everything: Set) -> Iterator[str]:
    for item in content(result.dataset):
        if item.ValueType != "SCOORD":
            continue
        reference = item.ContentSequence[0].ReferencedSOPSequence[0]
        image = everything.sources.get(str(reference.ReferencedSOPInstanceUID))
        if image is None:
            yield "coordinates refer to no source image"
            continue
        points = np.asarray(item.GraphicData, float).reshape(-1, 2)
        if (points < 0).any() or (points > (image.Columns, image.Rows)).any():
            yield "coordinates lie outside of the image"


def _research(result: Result, _: Set) -> Iterator[str]:
    said = any("diagnostic" in str(item.TextValue) for item in content(result.dataset) if item.ValueType == "TEXT")
    if result.dataset.get("ContentQualification") != Qualification.PRODUCT and not said:
        yield "the report does not say that it is not for diagnostic use"


REPORT: Sequence[Rule] = (
    Rule("root", _root),
    Rule("flags", _flags),
    Rule("groups", _groups),
    Rule("tracking with coordinates", _tracking_places),
    Rule("tracking of segments", _tracking_segments),
    Rule("numbers", _numbers),
    Rule("evidence", _evidence),
    Rule("coordinates", _coordinates),
    Rule("research statement", _research),
)


def _source_of(derived: Dataset) -> SliceSource:
    """The source that an item of a Source Image Sequence names."""
    frame = derived.get("ReferencedFrameNumber")
    return SliceSource(
        str(derived.ReferencedSOPInstanceUID),
        str(derived.ReferencedSOPClassUID),
        None if frame is None else int(frame),
    )


def _segment_frames(segmentation: Dataset) -> Iterator[tuple[int, SliceSource, Dataset]]:
    """Segment number, source and functional groups of every frame."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        # A single segment is the same for all frames and moves to the shared groups.
        segment = (frame if "SegmentIdentificationSequence" in frame else shared).SegmentIdentificationSequence[0]
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        yield segment.ReferencedSegmentNumber, _source_of(source), frame


def _seg_grid(result: Result, everything: Set) -> Iterator[str]:
    dataset, header = result.dataset, everything.headers[0]
    if (dataset.Rows, dataset.Columns) != (header.Rows, header.Columns):
        yield f"grid is {dataset.Rows}×{dataset.Columns}, the source's {header.Rows}×{header.Columns}"
    frames_of_reference = {h.FrameOfReferenceUID for h in everything.headers if h.get("FrameOfReferenceUID")}
    if frames_of_reference and dataset.FrameOfReferenceUID not in frames_of_reference:
        yield "FrameOfReferenceUID is not that of the source"
    shared = dataset.SharedFunctionalGroupsSequence[0]
    place = plane(*_first_source(everything))
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    if not np.allclose(orientation, place.orientation, atol=1e-4):
        yield "orientation is not that of the source"
    if not np.allclose(shared.PixelMeasuresSequence[0].PixelSpacing, place.pixel_spacing, atol=1e-4):
        yield "pixel spacing is not that of the source"


def _first_source(everything: Set) -> tuple[Dataset, SliceSource]:
    header = everything.headers[0]
    frame = 1 if "PerFrameFunctionalGroupsSequence" in header else None
    return header, SliceSource(str(header.SOPInstanceUID), str(header.SOPClassUID), frame)


def _seg_planes(result: Result, everything: Set) -> Iterator[str]:
    for _, source, frame in _segment_frames(result.dataset):
        header = everything.sources.get(source.sop_instance_uid)
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        if header is None or not np.allclose(position, plane(header, source).position, atol=_PLACE_TOLERANCE_MM):
            yield "a frame does not lie on the plane of its source"


def _seg_segments(result: Result, _: Set) -> Iterator[str]:
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


def _seg_masks(result: Result, everything: Set) -> Iterator[str]:
    frames = (
        np.atleast_3d(result.dataset.pixel_array)
        .view(np.bool_)
        .reshape(-1, result.dataset.Rows, result.dataset.Columns)
    )
    counts = frames.sum(axis=(1, 2), dtype=np.int64)
    found: dict[int, int] = {segment.SegmentNumber: 0 for segment in result.dataset.SegmentSequence}
    where = list(_segment_frames(result.dataset))
    for (number, _, _), count in zip(where, counts, strict=True):
        found[number] += int(count)
    yield from (f"segment {number} is empty" for number, count in found.items() if count == 0)
    if everything.findings is None:
        return
    slices = {source: k for k, source in enumerate(everything.findings.volume.sources)}
    masks = {region.label: region.mask for region in everything.findings.regions}
    for segment in result.dataset.SegmentSequence:
        mask = masks[segment.TrackingID]
        same = int(mask.sum()) == found[segment.SegmentNumber] and all(
            np.array_equal(frames[n], mask[slices[source]])
            for n, (number, source, _) in enumerate(where)
            if number == segment.SegmentNumber
        )
        if not same:
            yield f"segment {segment.SegmentNumber} is not the mask of its region"


SEGMENTATION: Sequence[Rule] = (
    Rule("grid", _seg_grid),
    Rule("planes", _seg_planes),
    Rule("segments", _seg_segments),
    Rule("masks", _seg_masks),
)

_CAPTURE_VALUES = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "ConversionType": "WSD",
    "BurnedInAnnotation": "YES",
}


def _sc_image(result: Result, _: Set) -> Iterator[str]:
    capture = result.dataset
    for keyword, value in _CAPTURE_VALUES.items():
        if capture.get(keyword) != value:
            yield f"{keyword} is {capture.get(keyword)}, not {value}"
    if list(capture.ImageType[:2]) != ["DERIVED", "SECONDARY"]:
        yield "ImageType does not start with DERIVED, SECONDARY"
    if len(capture.PixelData) != capture.Rows * capture.Columns * 3 + capture.Rows * capture.Columns % 2:
        yield "PixelData has another length than the image"
    elif not any(capture.PixelData):
        yield "the image is black"


def _sc_source(result: Result, everything: Set) -> Iterator[str]:
    item = result.dataset.SourceImageSequence[0]
    if item.PurposeOfReferenceCodeSequence[0].CodeValue != codes.SOURCE_FOR_PROCESSING.value:
        yield "the source image has no purpose"
    if SUMMARY in result.dataset.ImageType:
        return
    source = _source_of(item)
    place = plane(everything.sources[source.sop_instance_uid], source)
    if not np.allclose(result.dataset.ImagePositionPatient, place.position, atol=_PLACE_TOLERANCE_MM):
        yield "it does not lie on the plane of its source"
    if not np.allclose(result.dataset.ImageOrientationPatient, place.orientation, atol=1e-4):
        yield "orientation is not that of the source"
    if not result.dataset.get("FrameOfReferenceUID"):
        yield "FrameOfReferenceUID is missing"


CAPTURE: Sequence[Rule] = (
    Rule("image", _sc_image),
    Rule("source", _sc_source),
)
