"""The report as a page that any archive shows: an encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from dicom_sr import codes, terms
from dicom_sr.capture import painted
from dicom_sr.keys import key_slices
from dicom_sr.paper import pdf
from dicom_sr.provenance import result_uid
from dicom_sr.sheet import study_fact, summary
from dicom_sr.words import words
from node.domain.finding import Findings
from node.domain.job import Provenance
from node.domain.profile import Profile


def build(
    provenance: Provenance,
    findings: Findings,
    sources: Sequence[Dataset],
    who: Dataset,
    *,
    profile: Profile,
    series_number: int,
    at: datetime,
) -> Dataset:
    """The summary on paper, with key images; still without patient and study. No page names the patient.

    Args:
        sources: normalised headers, one per slice of the volume.
        who: patient and study, from ``header.identity``; the study is named, the patient is not.
        series_number: SeriesNumber (0020,0011) of the result.
        at: when the analysis began, in the zone of the study.
    """
    language = words(profile.language)
    painter = painted(provenance, findings, language)
    keys = key_slices(findings, painter.area)
    sheet = summary(provenance, painter, language, at, keys, {})
    sheet = replace(sheet, facts=(study_fact(who, language), *sheet.facts))
    document = Dataset()
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.SOPClassUID = EncapsulatedPDFStorage
    document.SOPInstanceUID = result_uid(provenance, profile, "PDF", "1")
    document.SeriesInstanceUID = result_uid(provenance, profile, "PDF", "series")
    document.Modality, document.SeriesNumber, document.InstanceNumber = "DOC", series_number, 1
    document.ConversionType = "WSD"
    document.AcquisitionDateTime = ""
    document.BurnedInAnnotation = "YES"
    document.SourceInstanceSequence = [_source(header) for header in _different([sources[k] for k in keys])]
    document.DocumentTitle = sheet.title
    document.ConceptNameCodeSequence = [codes.item(codes.IMAGING_MEASUREMENT_REPORT)]
    document.VerificationFlag = "UNVERIFIED"
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    # The dates are those of the result: a job that runs twice writes the same bytes.
    written = pdf(sheet, language, at)
    document.EncapsulatedDocumentLength = len(written)
    document.EncapsulatedDocument = written + b"\0" * (len(written) % 2)
    terms.speak(document, profile.language)
    return document


def _different(headers: Sequence[Dataset]) -> list[Dataset]:
    """Each instance once: slices of a multi-frame object share one."""
    return list({str(header.SOPInstanceUID): header for header in headers}.values())


def _source(header: Dataset) -> Dataset:
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return source
