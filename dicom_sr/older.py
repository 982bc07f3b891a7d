"""The report for archives that know no Comprehensive 3D SR: the same statements, related as an older class allows.

What a class has no value type for is told in words (a number, a code that something hangs on), and what has no words
(an outline) leaves the image that it lies on. The relationships are those of PS3.3 A.35.1.3, A.35.2.3 and A.35.3.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ComprehensiveSRStorage, EnhancedSRStorage, ExplicitVRLittleEndian

from dicom_sr.content import content_item
from dicom_sr.provenance import result_uid
from node.domain.job import Provenance
from node.domain.profile import Profile, Report

_CLASSES = {
    Report.COMPREHENSIVE: ComprehensiveSRStorage,
    Report.ENHANCED: EnhancedSRStorage,
    Report.BASIC: BasicTextSRStorage,
}
_SAID = frozenset({"TEXT", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME"})
_REFERRED = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM"})
_BASIC = _SAID | _REFERRED | {"CONTAINER"}
_ENHANCED = _BASIC | {"NUM", "SCOORD", "TCOORD"}
_TYPES: Mapping[Report, frozenset[str]] = {
    Report.COMPREHENSIVE: _ENHANCED,
    Report.ENHANCED: _ENHANCED,
    Report.BASIC: _BASIC,
}
# What may have properties, or be inferred from others: of the value types, by class.
_STATEMENTS: Mapping[Report, frozenset[str]] = {
    Report.COMPREHENSIVE: frozenset({"TEXT", "CODE", "NUM"}),
    Report.ENHANCED: frozenset({"TEXT", "CODE", "NUM"}),
    Report.BASIC: frozenset({"TEXT"}),
}


def build(provenance: Provenance, report: Dataset, *, profile: Profile) -> Dataset:
    """``report``, a Comprehensive 3D SR that is complete, as the class that ``profile.report`` names.

    It has the identity, the times, the evidence and the series number of ``report``, and a series of its own.
    """
    older = _plain(report)
    older.file_meta = FileMetaDataset()
    older.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    older.SOPClassUID = _CLASSES[profile.report]
    older.SOPInstanceUID = result_uid(provenance, profile, profile.report.value, "1")
    older.SeriesInstanceUID = result_uid(provenance, profile, profile.report.value, "series")
    older.ContentSequence = _children(older, profile.report)
    if profile.report is Report.BASIC:
        # A template says what value types there are, and here they are others.
        for dataset in (older, *_below(older)):
            dataset.pop("ContentTemplateSequence", None)
    return older


def _plain(dataset: Dataset) -> Dataset:
    """A copy without the classes of highdicom, which hold its items to the class of SR that they were made for."""
    copy = Dataset()
    for element in dataset:
        value = [_plain(item) for item in element.value] if element.VR == "SQ" else element.value
        copy.add_new(element.tag, element.VR, value)
    return copy


def _below(item: Dataset) -> list[Dataset]:
    children = list(item.get("ContentSequence", []))
    return children + [deeper for child in children for deeper in _below(child)]


def _children(parent: Dataset, kind: Report) -> list[Dataset]:
    """The content below ``parent`` as the class has it."""
    found: list[Dataset] = []
    for child in parent.get("ContentSequence", []):
        found += _item(child, parent.ValueType, kind)
    return found


def _item(item: Dataset, above: str, kind: Report) -> list[Dataset]:
    """``item`` below a parent of that value type; of what cannot be there, what is left of it."""
    if item.ValueType in ("SCOORD", "SCOORD3D") and item.ValueType not in _TYPES[kind]:
        images = [child for child in item.get("ContentSequence", []) if child.ValueType == "IMAGE"]
        return [_related(image, item.RelationshipType, item) for image in images if above == "CONTAINER"]
    if item.ValueType == "NUM" and "NUM" not in _TYPES[kind]:
        return [_in_words(item)]
    if item.ValueType not in _TYPES[kind]:
        return []
    if not _allowed(above, item.RelationshipType, kind):
        return []
    children = _children(item, kind)
    item.pop("ContentSequence", None)
    if children:
        item.ContentSequence = children
    return [item]


def _allowed(above: str, relationship: str, kind: Report) -> bool:
    if relationship in ("HAS PROPERTIES", "INFERRED FROM"):
        return above in _STATEMENTS[kind]
    if relationship == "HAS OBS CONTEXT":
        return above == "CONTAINER" or kind is Report.COMPREHENSIVE
    return True


def _related(image: Dataset, relationship: str, before: Dataset) -> Dataset:
    """An image, in the place of the outline that lies on it."""
    image.RelationshipType = relationship
    if "ConceptNameCodeSequence" in before and "ConceptNameCodeSequence" not in image:
        image.ConceptNameCodeSequence = before.ConceptNameCodeSequence
    return image


def _in_words(number: Dataset) -> Dataset:
    """A NUM as TEXT: its value and unit, and how it was made."""
    said = content_item(number.RelationshipType, "TEXT", None)
    said.ConceptNameCodeSequence = number.ConceptNameCodeSequence
    measured = number.get("MeasuredValueSequence")
    if measured:
        unit = measured[0].MeasurementUnitsCodeSequence[0]
        unit_text = "" if unit.CodeValue == "1" else f" {unit.CodeMeaning}"
        value = f"{measured[0].NumericValue}{unit_text}"
    else:
        value = number.NumericValueQualifierCodeSequence[0].CodeMeaning
    how = [
        str(child.ConceptCodeSequence[0].CodeMeaning)
        for child in number.get("ContentSequence", [])
        if child.ValueType == "CODE"
    ]
    said.TextValue = f"{value} ({', '.join(how)})" if how else value
    return said
