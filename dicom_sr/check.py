"""Result objects, read back from disk and held to the rules that make them valid, visible and safe.

The rules are tables of small functions: ``check_common`` for every object, ``check_content`` for each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_sr.check_common import COMMON, Kind, Result, Rule, Set
from dicom_sr.check_content import CAPTURE, REPORT, SEGMENTATION
from node.domain.finding import Findings
from node.domain.job import ResultReference
from node.domain.profile import FULL, Profile, Report

_RULES: dict[Kind, Sequence[Rule]] = {
    Kind.SEG: (*COMMON, *SEGMENTATION),
    Kind.SC: (*COMMON, *CAPTURE),
    Kind.SR: (*COMMON, *REPORT),
}


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
        findings: where given, the masks read back from the segmentation must equal its masks.
        profile: that the results were written by; ``supersedes`` are the results that they replace.
        identified: whose patient and study the results have to carry; None is the first of ``headers``.
    """
    problems: Counter[str] = Counter()
    results: list[Result] = []
    for path in paths:
        try:
            with disable_value_validation():
                results.append(Result.of(dcmread(path)))
        except (InvalidDicomError, OSError, ValueError) as error:
            problems[f"file readable: {path.name}: {type(error).__name__}"] += 1
    if not results or (profile.report is not Report.NONE and results[-1].kind is not Kind.SR):
        problems["set order: the last object is not an SR"] += 1
    everything = Set(results, headers, findings, identified)
    for result in results:
        for rule in _RULES[result.kind]:
            try:
                found = list(rule.broken(result, everything))
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                # The rule relies on an element that is missing or of another shape; the error names it.
                found = [f"cannot be judged: {type(error).__name__}: {error}"]
            problems.update(f"{result.kind} {rule.name}: {what}" for what in found)
    return [text if times == 1 else f"{text} ({times} times)" for text, times in problems.items()]
