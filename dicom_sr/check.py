"""Result objects, read back from disk and held to the rules that make them valid, visible and safe.

The rules are tables of small functions: ``check_common`` for every object, ``check_content`` for the content trees of
reports, ``check_image`` for what has pixels; ``check_read`` reads them back.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
)

from dicom_sr import collector
from dicom_sr.check_common import COMMON, Rule, Set
from dicom_sr.check_content import ANY_REPORT, NOTICE, REPORT
from dicom_sr.check_image import CAPTURE, DOCUMENT, MAP, MULTIFRAME_CAPTURE, SEGMENTATION
from dicom_sr.check_read import SR_KINDS, Kind, Reader, Result
from dicom_sr.key_images import is_rejection
from dicom_sr.segmentation import segmented
from dicom_sr.terms import localised
from dicom_sr.vet import vetted
from node.domain.finding import Findings
from node.domain.job import ResultReference
from node.domain.profile import FULL, Captures, NoticeKind, Profile, Report, Segments

_RULES: dict[Kind, Sequence[Rule]] = {
    Kind.SEG: (*COMMON, *SEGMENTATION),
    Kind.PM: (*COMMON, *MAP),
    Kind.SC: (*COMMON, *CAPTURE),
    Kind.MULTIFRAME_SC: (*COMMON, *MULTIFRAME_CAPTURE),
    Kind.PR: COMMON,
    Kind.KO: COMMON,
    Kind.DOC: (*COMMON, *DOCUMENT),
    Kind.OLDER_SR: (*COMMON, *ANY_REPORT),
    Kind.SR: (*COMMON, *REPORT),
}
_REPORT_CLASSES = {
    Report.COMPREHENSIVE_3D: Comprehensive3DSRStorage,
    Report.COMPREHENSIVE: ComprehensiveSRStorage,
    Report.ENHANCED: EnhancedSRStorage,
    Report.BASIC: BasicTextSRStorage,
}


@collector.held_off()
def check(
    paths: Sequence[Path],
    headers: Sequence[Dataset],
    findings: Findings | None = None,
    *,
    profile: Profile = FULL,
    supersedes: Sequence[ResultReference] = (),
    identified: Dataset | None = None,
) -> list[str]:
    """Problems of the result files at ``paths``, in sending order; none means that the set may be sent.

    A problem reads ``kind rule: what is wrong`` and holds no patient data. What is wrong with many objects of one kind
    in the same way is said once, with their number.

    Args:
        headers: the source instances that the results were made from.
        findings: where given, masks, maps and places that are read back must equal its own.
        profile: what the results were composed for; ``supersedes`` and ``identified`` as they were composed.
    """
    problems: Counter[str] = Counter()
    results: list[Result] = []
    reader = Reader()
    # pydicom's warnings would put a patient's values into the log; what is wrong is found here.
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in paths:
            try:
                results.append(reader.read(path))
            except (InvalidDicomError, OSError, ValueError) as error:
                problems[f"file readable: {path.name}: {type(error).__name__}"] += 1
        said = None if findings is None else localised(vetted(findings), profile.language)
        everything = Set(results, headers, said, profile, supersedes, identified)
        problems.update(_contents(everything))
        for result in results:
            problems.update(_broken(result, everything, _RULES[result.kind]))
    return [text if times == 1 else f"{text} ({times} times)" for text, times in problems.items()]


def check_notice(path: Path, headers: Sequence[Dataset], *, profile: Profile) -> list[str]:
    """Problems of the notice at ``path`` that a model gave no result, as `check` says them.

    Args:
        headers: what it was built from; ``profile`` as well.
    """
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = Reader().read(path)
        except (InvalidDicomError, OSError, ValueError) as error:
            return [f"file readable: {path.name}: {type(error).__name__}"]
        everything = Set([result], headers, None, profile)
        wanted = _REPORT_CLASSES.get(profile.report, BasicTextSRStorage)
        if profile.notice is NoticeKind.SC:
            wanted = SecondaryCaptureImageStorage
        problems = [] if result.dataset.SOPClassUID == wanted else ["set contents: no notice as the profile has it"]
        # A page has a banner and colours like any capture, and no source image.
        rules = (*COMMON, *(MULTIFRAME_CAPTURE if result.kind is Kind.SC else NOTICE))
        return problems + list(_broken(result, everything, rules))


def _broken(result: Result, everything: Set, rules: Sequence[Rule]) -> Iterator[str]:
    for rule in rules:
        try:
            found = list(rule.broken(result, everything))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            # The rule relies on an element that is missing or of another shape; the error names it.
            found = [f"cannot be judged: {type(error).__name__}: {error}"]
        yield from (f"{result.kind} {rule.name}: {what}" for what in found)


def _contents(everything: Set) -> Iterator[str]:
    """The set holds what the profile asks for and nothing else, the report last."""
    profile, results = everything.profile, everything.results
    kinds = Counter(result.kind for result in results)
    reports = [result for result in results if result.kind in SR_KINDS]
    rejects = [is_rejection(result.dataset) for result in results]
    if rejects != sorted(rejects):
        yield "set order: something goes after what rejects earlier results"
    others = [result for result, is_note in zip(results, rejects, strict=True) if not is_note]
    if profile.report is not Report.NONE and (not others or others[-1].kind not in SR_KINDS):
        yield "set order: the last object is not an SR"
    if [r.dataset.SOPClassUID for r in reports] != (
        [] if profile.report is Report.NONE else [_REPORT_CLASSES[profile.report]]
    ):
        yield f"set contents: {len(reports)} reports, the profile has {profile.report}"
    wanted = {
        Kind.SEG: profile.segments is not Segments.NONE,
        Kind.PM: profile.maps,
        Kind.SC: profile.captures is not Captures.NONE or profile.summary,
        Kind.MULTIFRAME_SC: profile.multiframe,
        Kind.PR: profile.presentation,
        Kind.KO: profile.key_images or profile.reject_earlier,
        Kind.DOC: profile.document,
    }
    for kind, asked in wanted.items():
        if kinds[kind] and not asked:
            yield f"set contents: a {kind}, which the profile has not"
    if everything.findings is None:
        return
    if wanted[Kind.SEG] and kinds[Kind.SEG] != bool(segmented(everything.findings)):
        yield f"set contents: {kinds[Kind.SEG]} SEG for {len(segmented(everything.findings))} regions with voxels"
    maps = len(everything.findings.maps) if everything.in_patient else 0
    if wanted[Kind.PM] and kinds[Kind.PM] != maps:
        yield f"set contents: {kinds[Kind.PM]} PM for {maps} maps"
