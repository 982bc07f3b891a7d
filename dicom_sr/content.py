"""Content trees of documents (PS3.3 C.17.3), by hand: what highdicom makes otherwise than they should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from dicom_sr import codes
from dicom_sr.provenance import MANUFACTURER, device_uid
from dicom_sr.words import Words
from node.domain.finding import Code
from node.domain.job import Provenance, ResultReference

_LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
_OBSERVER_TYPE, _DEVICE = Code("121005", "DCM", "Observer Type"), Code("121007", "DCM", "Device")
_DEVICE_UID = Code("121012", "DCM", "Device Observer UID")
_DEVICE_TEXTS = (
    Code("121013", "DCM", "Device Observer Name"),
    Code("121014", "DCM", "Device Observer Manufacturer"),
    Code("121015", "DCM", "Device Observer Model Name"),
    Code("121016", "DCM", "Device Observer Serial Number"),
)


def content_item(relationship: str, value_type: str, name: Code | None) -> Dataset:
    """A content item without its value."""
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    if name is not None:
        item.ConceptNameCodeSequence = [codes.item(name)]
    return item


def text(name: Code, value: str, relationship: str = "CONTAINS") -> Dataset:
    """A TEXT item."""
    item = content_item(relationship, "TEXT", name)
    item.TextValue = value
    return item


def code(name: Code, value: Code, relationship: str) -> Dataset:
    """A CODE item."""
    item = content_item(relationship, "CODE", name)
    item.ConceptCodeSequence = [codes.item(value)]
    return item


def reference(target: ResultReference, frame_numbers: Sequence[int] = ()) -> Dataset:
    """An IMAGE or COMPOSITE item, without a concept name, which key objects may not have (TID 2010)."""
    item = content_item("CONTAINS", "IMAGE" if _is_image(target.sop_class_uid) else "COMPOSITE", None)
    sop = Dataset()
    sop.ReferencedSOPClassUID, sop.ReferencedSOPInstanceUID = target.sop_class_uid, target.sop_instance_uid
    if frame_numbers:
        sop.ReferencedFrameNumber = list(frame_numbers)
    item.ReferencedSOPSequence = [sop]
    return item


def _is_image(sop_class_uid: str) -> bool:
    name = UID(sop_class_uid).name
    return "Image Storage" in name or name in ("Segmentation Storage", "Parametric Map Storage")


def context(provenance: Provenance, words: Words) -> list[Dataset]:
    """Language and observer: the device (TID 1204, 1002, 1004)."""
    uid = content_item("HAS OBS CONTEXT", "UIDREF", _DEVICE_UID)
    uid.UID = device_uid(provenance)
    values = (provenance.node_name, MANUFACTURER, provenance.model.name, provenance.node_uid)
    return [
        code(_LANGUAGE, Code(words.language.value, "RFC5646", words.name), "HAS CONCEPT MOD"),
        code(_OBSERVER_TYPE, _DEVICE, "HAS OBS CONTEXT"),
        uid,
        *(text(name, value, "HAS OBS CONTEXT") for name, value in zip(_DEVICE_TEXTS, values, strict=True)),
    ]


def document(sop_class_uid: str, modality: str, title: Code, items: Iterable[Dataset]) -> Dataset:
    """A document with that content, complete and not verified; UIDs and numbers are still to be written."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.Modality = sop_class_uid, modality
    dataset.InstanceNumber = 1
    dataset.ReferencedPerformedProcedureStepSequence = []
    if sop_class_uid != KeyObjectSelectionDocumentStorage:
        dataset.PerformedProcedureCodeSequence = []
        dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [codes.item(title)]
    dataset.ContentSequence = list(items)
    return dataset


def evidence(targets: Iterable[ResultReference]) -> list[Dataset]:
    """Everything that a document refers to, by study and series (PS3.3 C.17.2)."""

    def key(target: ResultReference) -> tuple[str, str]:
        return target.study_uid, target.series_uid

    studies: dict[str, Dataset] = {}
    for (study_uid, series_uid), found in groupby(sorted(set(targets), key=_order), key):
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = [_sop(target) for target in found]
        study = studies.setdefault(study_uid, Dataset())
        study.StudyInstanceUID = study_uid
        study.ReferencedSeriesSequence = [*study.get("ReferencedSeriesSequence", []), series]
    return list(studies.values())


def _order(target: ResultReference) -> tuple[str, str, str]:
    return target.study_uid, target.series_uid, target.sop_instance_uid


def _sop(target: ResultReference) -> Dataset:
    sop = Dataset()
    sop.ReferencedSOPClassUID, sop.ReferencedSOPInstanceUID = target.sop_class_uid, target.sop_instance_uid
    return sop


def as_reference(header: Dataset) -> ResultReference:
    """How ``header`` is referred to."""
    return ResultReference(
        str(header.StudyInstanceUID),
        str(header.SeriesInstanceUID),
        str(header.SOPClassUID),
        str(header.SOPInstanceUID),
    )
