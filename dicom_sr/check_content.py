"""The rules for the content tree of an SR."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_sr import codes, notice, ohif
from dicom_sr.check_common import Rule, Set
from dicom_sr.check_read import Result, content
from dicom_sr.outline import bounding_rectangle, outlines
from dicom_sr.report import SR_CLASSES
from dicom_sr.units import is_unit
from dicom_sr.vet import PROCEDURES
from node.domain.finding import Findings, Mark, Region
from node.domain.model import Qualification

_TITLE, _LANGUAGE, _PROCEDURE = "126000", "121049", "121058"
_OBSERVER_UID, _OBSERVER_MODEL = "121012", "121015"
_MEASUREMENTS, _GROUP = "126010", "125007"
_TRACKING_ID, _TRACKING_UID, _FINDING = "112039", "112040", "121071"
_ALGORITHM_NAME, _ALGORITHM_VERSION = "111001", "111003"
_GROUP_TEMPLATES = ("1410", "1411", "1501")
_SMALLEST_DIFFERENCE = 0.01  # pixels; coordinates are single precision (VR FL)
# Pairs of numbers that a graphic type has (PS3.3 C.18.6.1.2): fewest and most.
_POINTS = {"POINT": (1, 1), "POLYLINE": (2, None), "MULTIPOINT": (1, None), "CIRCLE": (2, 2), "ELLIPSE": (4, 4)}


def concept(item: Dataset) -> str:
    """Code value of the concept name of a content item, empty where it has none."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups of a TID 1500 report."""
    return [item for item in content(report) if concept(item) == _GROUP]


def _groups_of(result: Result) -> list[Dataset]:
    return [item for item in result.content if concept(item) == _GROUP]


def tracking_uid(group: Dataset) -> str | None:
    """Tracking Unique Identifier of a measurement group."""
    return next((str(item.UID) for item in group.ContentSequence if concept(item) == _TRACKING_UID), None)


def _root(result: Result, everything: Set) -> Iterator[str]:
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
    language, wanted = present.get(_LANGUAGE), everything.profile.language.value
    if language is not None and language.ConceptCodeSequence[0].CodeValue != wanted:
        yield f"the language is {language.ConceptCodeSequence[0].CodeValue}, not {wanted}"
    procedure = present.get(_PROCEDURE)
    if procedure is not None and procedure.ConceptCodeSequence[0].CodeValue not in PROCEDURES:
        yield f"procedure {procedure.ConceptCodeSequence[0].CodeValue} is not in CID 100"


def _flags(result: Result, _: Set) -> Iterator[str]:
    for keyword, value in (("CompletionFlag", "COMPLETE"), ("VerificationFlag", "UNVERIFIED")):
        if result.dataset.get(keyword) != value:
            yield f"{keyword} is {result.dataset.get(keyword)}"


def _groups(result: Result, _: Set) -> Iterator[str]:
    for group in _groups_of(result):
        template = group.ContentTemplateSequence[0].TemplateIdentifier
        if template not in _GROUP_TEMPLATES:
            yield f"group template is {template}"
        present = {concept(item) for item in group.ContentSequence}
        for code in (_TRACKING_ID, _TRACKING_UID, _FINDING, _ALGORITHM_NAME, _ALGORITHM_VERSION):
            if code not in present:
                yield f"a group of TID {template} has no {code}"
    named: dict[str | None, set[str]] = {}
    for group in _groups_of(result):
        names = [str(item.TextValue) for item in group.ContentSequence if concept(item) == _TRACKING_ID]
        named.setdefault(tracking_uid(group), set()).update(names)
    yield from (f"tracking UID {uid} has several identifiers" for uid, names in named.items() if len(names) > 1)


def _tracking_places(result: Result, _: Set) -> Iterator[str]:
    placed: dict[str | None, bool] = {}
    for group in _groups_of(result):
        uid = tracking_uid(group)
        has_place = any(item.ValueType in ("SCOORD", "SCOORD3D") for item in content(group))
        placed[uid] = placed.get(uid, False) or has_place
    yield from (f"tracking UID {uid} has no coordinates" for uid, has_place in placed.items() if not has_place)


def _tracking_segments(result: Result, everything: Set) -> Iterator[str]:
    reported = {tracking_uid(group) for group in _groups_of(result)}
    for other in everything.results:
        for segment in other.dataset.get("SegmentSequence", []):
            if segment.get("TrackingUID") not in reported:
                yield f"segment {segment.SegmentNumber} is tracked by no group"


def _numbers(result: Result, _: Set) -> Iterator[str]:
    for item in result.content:
        if item.ValueType != "NUM":
            continue
        if not item.get("MeasuredValueSequence"):
            yield f"{concept(item)} has no value"
            continue
        value = item.MeasuredValueSequence[0]
        unit = value.MeasurementUnitsCodeSequence[0]
        if unit.CodingSchemeDesignator != "UCUM" or not is_unit(str(unit.CodeValue)):
            yield f"unit of {concept(item)} is {unit.CodeValue} of {unit.CodingSchemeDesignator}, not of UCUM"
        if not math.isfinite(float(value.NumericValue)):
            yield f"{concept(item)} is not finite"


def _evidence(result: Result, everything: Set) -> Iterator[str]:
    listed: dict[str, str] = {}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in result.dataset.get(keyword, []):
            for series in study.ReferencedSeriesSequence:
                for item in series.ReferencedSOPSequence:
                    uid = str(item.ReferencedSOPInstanceUID)
                    if uid in listed:
                        yield f"{uid} is listed twice"
                    listed[uid] = str(series.SeriesInstanceUID)
    used = {
        str(reference.ReferencedSOPInstanceUID)
        for item in result.content
        for reference in item.get("ReferencedSOPSequence", [])
    }
    for uid in sorted(used - set(listed)):
        yield f"{uid} is used but not listed as evidence"
    for uid in sorted(set(everything.sources) - set(listed) - used):
        yield f"{uid} was looked at but is not listed as evidence"
    for uid, series_uid in listed.items():
        if uid in everything.known and everything.known[uid].SeriesInstanceUID != series_uid:
            yield f"{uid} is listed in another series"
    if str(result.dataset.SOPInstanceUID) in listed:
        yield "the report is listed as its own evidence"


def _predecessors(result: Result, everything: Set) -> Iterator[str]:
    said = {
        str(item.ReferencedSOPInstanceUID)
        for study in result.dataset.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    wanted = {uid for uid, earlier in everything.replaced.items() if earlier.sop_class_uid in SR_CLASSES}
    yield from (f"{uid} is no report that this one replaces" for uid in sorted(said - wanted))
    yield from (f"{uid} is replaced but no predecessor" for uid in sorted(wanted - said))


def _coordinates(result: Result, everything: Set) -> Iterator[str]:
    for item in result.content:
        if item.ValueType != "SCOORD":
            continue
        reference = item.ContentSequence[0].ReferencedSOPSequence[0]
        image = everything.sources.get(str(reference.ReferencedSOPInstanceUID))
        if image is None:
            yield "coordinates refer to no source image"
            continue
        if int(image.get("NumberOfFrames") or 1) > 1 and "ReferencedFrameNumber" not in reference:
            yield "coordinates on a multi-frame image name no frame"
        points = _points(item)
        fewest, most = _POINTS[item.GraphicType]
        if len(points) < fewest or (most is not None and len(points) > most):
            yield f"a {item.GraphicType} has {len(points)} points"
        if not ((points >= 0) & (points <= (image.Columns, image.Rows))).all():
            yield "coordinates lie outside of the image"


def _points(item: Dataset) -> NDArray[np.float64]:
    """(n, 2): column and row of every point of an SCOORD."""
    return np.asarray(item.GraphicData, float).reshape(-1, 2)


def _places(result: Result, everything: Set) -> Iterator[str]:
    """What has a place lies, on the image that is named, where the findings have it, to a hundredth of a pixel."""
    findings = everything.findings
    if findings is None:
        return
    said: dict[str, list[Dataset]] = {}
    for group in _groups_of(result):
        name = next((str(item.TextValue) for item in group.ContentSequence if concept(item) == _TRACKING_ID), "")
        said.setdefault(ohif.label_of(name), []).extend(item for item in content(group) if item.ValueType == "SCOORD")
    slices = {(s.sop_instance_uid, s.frame_number): k for k, s in enumerate(findings.volume.sources)}
    found: list[Region | Mark] = [*(region for region in findings.regions if region.mask.any()), *findings.marks]
    labels = [finding.label for finding in found]
    for finding in found:
        if labels.count(finding.label) > 1:
            continue  # two of one name cannot be told apart here
        if not said.get(finding.label):
            yield f"{finding.key} has no coordinates"
        if not all(_lies(item, finding, slices, findings) for item in said.get(finding.label, [])):
            yield f"{finding.key} lies elsewhere"


def _lies(item: Dataset, finding: Region | Mark, slices: dict[tuple[str, int | None], int], of: Findings) -> bool:
    reference = item.ContentSequence[0].ReferencedSOPSequence[0]
    frame = reference.get("ReferencedFrameNumber")
    k = slices.get((str(reference.ReferencedSOPInstanceUID), None if frame is None else int(frame)))
    if k is None:
        return False
    if isinstance(finding, Region):
        plane = finding.mask[k]
        expected = [bounding_rectangle(plane)] if plane.any() else []
    else:
        expected = [outline.points for outline in outlines(finding, of.volume.shape) if outline.k == k]
    points = _points(item)
    return any(points.shape == e.shape and np.abs(points - e).max() <= _SMALLEST_DIFFERENCE for e in expected)


def _research(result: Result, _: Set) -> Iterator[str]:
    said = any("diagn" in str(item.TextValue).lower() for item in result.content if item.ValueType == "TEXT")
    if result.dataset.get("ContentQualification") != Qualification.PRODUCT and not said:
        yield "the report does not say that it is not for diagnostic use"


def _says_so(result: Result, _: Set) -> Iterator[str]:
    title = concept(result.dataset)
    if title != notice.TITLE:
        yield f"the title is {title}, not {notice.TITLE}"
    items = result.content
    if not any(concept(item) == codes.COMMENT.value and item.get("TextValue") for item in items):
        yield "no comment says why there is no result"
    yield from (f"it shows a {item.ValueType}" for item in items if item.ValueType in ("IMAGE", "NUM", "SCOORD"))


# What holds for an SR of any class.
ANY_REPORT: Sequence[Rule] = (
    Rule("flags", _flags),
    Rule("numbers", _numbers),
    Rule("evidence", _evidence),
    Rule("predecessors", _predecessors),
    Rule("coordinates", _coordinates),
)
NOTICE: Sequence[Rule] = (Rule("flags", _flags), Rule("notice", _says_so))
REPORT: Sequence[Rule] = (
    *ANY_REPORT,
    Rule("root", _root),
    Rule("groups", _groups),
    Rule("tracking with coordinates", _tracking_places),
    Rule("tracking of segments", _tracking_segments),
    Rule("places", _places),
    Rule("research statement", _research),
)
