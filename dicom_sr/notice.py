"""The notice that a model gave no result, so that silence is never taken for a negative finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)

from dicom_sr import capture, codes, content, terms
from dicom_sr.header import free_series_numbers, identity, local, stamp
from dicom_sr.page import pages
from dicom_sr.provenance import result_uid
from dicom_sr.sheet import Sheet, facts, study_fact
from dicom_sr.words import Words, words
from node.domain.finding import Code
from node.domain.job import Provenance
from node.domain.profile import NoticeKind, Profile, Report

TITLE = "NOT-RUN"
_SIDE = 1024  # pixels
_LONGEST = 800  # characters of a reason, so that the page holds it
_CLASSES = {
    Report.COMPREHENSIVE_3D: Comprehensive3DSRStorage,
    Report.COMPREHENSIVE: ComprehensiveSRStorage,
    Report.ENHANCED: EnhancedSRStorage,
}


class NotRun(StrEnum):
    """Why there is no result."""

    REFUSED = "refused"  # the study is not one for the model
    FAILED = "failed"
    TIMED_OUT = "timed-out"


def build(
    provenance: Provenance,
    why: NotRun,
    detail: str,
    headers: Sequence[Dataset],
    *,
    profile: Profile,
) -> Dataset:
    """The notice as ``profile.notice`` asks for it, whole; an SR where it asks for none.

    An SR is of the class that the profile's reports have, Basic Text where it has none.

    Args:
        detail: the reason as the node tells it, one sentence, without patient data; may be empty.
        headers: of instances of the study, of any modality, one of each series; the first gives patient and study.
    """
    language = words(profile.language)
    who = identity(headers[0], profile.timezone)
    said = _sentences(provenance, why, detail, language)
    make = _picture if profile.notice is NoticeKind.SC else _document
    dataset = make(provenance, said, who, language, profile, headers[0])
    dataset.SeriesInstanceUID = result_uid(provenance, profile, "NOTICE", "series")
    dataset.SOPInstanceUID = result_uid(provenance, profile, "NOTICE", "1")
    dataset.SeriesNumber, dataset.InstanceNumber = next(free_series_numbers(headers, profile.series_number)), 1
    terms.speak(dataset, profile.language)
    title = provenance.model.title or provenance.model.name
    stamp(dataset, who, provenance, what=f"{language.not_run_short}: {terms.label(title, profile.language)}")
    return dataset


def _sentences(provenance: Provenance, why: NotRun, detail: str, language: Words) -> list[str]:
    reason = {
        NotRun.REFUSED: language.refused,
        NotRun.FAILED: language.failed,
        NotRun.TIMED_OUT: language.timed_out,
    }[why]
    said = [language.not_run.format(model=provenance.model.label), reason]
    return [*said, f"{language.reason}: {detail[:_LONGEST]}"] if detail else said


def _document(
    provenance: Provenance, said: Sequence[str], who: Dataset, language: Words, profile: Profile, header: Dataset
) -> Dataset:
    items = content.context(provenance, language)
    items += [content.text(codes.COMMENT, sentence) for sentence in said]
    title = Code(TITLE, codes.PRIVATE_SCHEME, language.not_run_title)
    return content.document(_CLASSES.get(profile.report, BasicTextSRStorage), "SR", title, items)


def _picture(
    provenance: Provenance, said: Sequence[str], who: Dataset, language: Words, profile: Profile, header: Dataset
) -> Dataset:
    at = local(provenance.started_at, who)
    sheet = Sheet(
        title=language.not_run_title,
        banner=language.banner(provenance.qualification),
        facts=(*facts(provenance, replace(language, analysed=language.date), at), study_fact(who, language)),
        sentences=tuple(said),
    )
    page, *_ = pages(sheet, (_SIDE, _SIDE), language)
    dataset = capture.shell_of(provenance, profile, language, series_number=0)
    dataset.ImageType = ["DERIVED", "SECONDARY", capture.SUMMARY]
    dataset.DerivationDescription = language.not_run_title
    capture.common_to_series(dataset, header, None)
    capture.set_pixels(dataset, np.asarray(page))
    return dataset
