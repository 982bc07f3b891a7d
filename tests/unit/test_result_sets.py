"""Whole sets: what every profile asks for is composed together, written, and passes the check."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from dicom_sr.check import check
from dicom_sr.check_content import content
from dicom_sr.compose import compose, write
from dicom_sr.key_images import is_rejection
from node.domain.job import ResultReference
from node.domain.profile import Captures, Language, Profile, Report, Segments
from tests import builders_results as build

CASES = {
    "3D": Profile("3D", Report.COMPREHENSIVE_3D, Segments.BINARY, Captures.EVERY, language=Language.GERMAN),
    "2D": Profile("2D", Report.COMPREHENSIVE, Segments.LABELMAP, multiframe=True, language=Language.FRENCH),
    "enhanced": Profile("enhanced", Report.ENHANCED, captures=Captures.KEY, language=Language.SPANISH),
    "basic": Profile("basic", Report.BASIC, Segments.NONE, Captures.KEY, character_set="ISO_IR 100"),
    "no report": Profile("no report", Report.NONE, Segments.NONE, Captures.NONE),
}
WHOLE = {"presentation": True, "key_images": True, "document": True, "reject_earlier": True}
EARLIER = ResultReference(build.STUDY_UID, "1.2.3.5", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.5.6")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("corrected", [False, True])
def test_a_whole_set_passes_the_check(name: str, corrected: bool, tmp_path: Path) -> None:
    profile = Profile(**(vars(CASES[name]) | WHOLE))
    case = build.case()
    identified = deepcopy(case.headers[0]) if corrected else None
    if identified is not None:
        identified.PatientID, identified.PatientName = "T-4712", "Neu^Name"
    composed = compose(
        build.PROVENANCE, case.findings, case.headers, profile, supersedes=[EARLIER], identified=identified
    )
    paths = [result.path for result in write(composed, tmp_path)]
    problems = check(paths, case.headers, case.findings, profile=profile, supersedes=[EARLIER], identified=identified)
    assert problems == []
    sent = {(d.Modality, str(d.PatientID)) for d in composed}
    (rejection,) = filter(is_rejection, composed)
    assert rejection.PatientID == "T-4711", "it withdraws what was sent under the first identity"
    assert ("DOC", "T-4712" if corrected else "T-4711") in sent
    assert len({str(d.SOPInstanceUID) for d in composed}) == len(composed)


def test_what_is_written_speaks_the_language_of_the_profile() -> None:
    case = build.case()
    empty = build.region("none", "Knoten", np.zeros(case.findings.volume.shape, np.bool_))
    composed = compose(build.PROVENANCE, case.with_regions(empty).findings, case.headers, CASES["3D"])
    assert [str(d.SeriesDescription)[:10] for d in composed[-1:]] == ["AI Bericht"]
    said = [str(i.TextValue) for i in content(composed[-1]) if i.ValueType == "TEXT"]
    assert any("Diagnostik" in text or "diagnostisch" in text.lower() for text in said), said
    assert any(text.startswith("Knoten: ") and "none found" not in text for text in said), said
