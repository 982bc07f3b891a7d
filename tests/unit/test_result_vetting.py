"""What a pipeline's author thinks of: it is written as DICOM can say it, or refused by the name of the finding."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.config import disable_value_validation

from dicom_sr.check import check
from dicom_sr.check_content import concept, content
from dicom_sr.compose import compose, write
from dicom_sr.judge import judged
from dicom_sr.units import is_unit
from dicom_sr.vet import vetted
from node.domain.errors import InvalidInput
from node.domain.finding import Code, Findings
from node.domain.profile import FULL
from node.domain.volume import SliceSource
from tests import builders_results as build
from tests.builders import change

CASE = build.with_everything(build.case())
ALL = CASE.findings
BALL, HALF = ALL.regions[1], ALL.regions[2]
SPOT, AXIS = ALL.marks[0], ALL.marks[1]
HEAT = ALL.maps[0]
LONG = "Nodule in the upper lobe of the left lung beside the oblique fissure, solid part"
# Every kind of object that may hold such a text.
PROFILE = replace(FULL, presentation=True, key_images=True, document=True)


def _with(**changes: Any) -> Findings:
    return replace(ALL, **changes)


def _ball(**changes: Any) -> Findings:
    return _with(regions=(replace(BALL, **changes),))


def _spot(**changes: Any) -> Findings:
    return _with(marks=(replace(SPOT, **changes),))


def _unit(code: str) -> Findings:
    length = replace(build.LENGTH, unit=Code(code, "UCUM", code))
    return _with(measurements=(length,), regions=(replace(BALL, measurements=(length,)),))


WRITTEN = {
    "two regions of one label": _with(regions=tuple(replace(r, label="Nodule") for r in (BALL, HALF))),
    "a region and a mark of one label": _spot(label="Ball"),
    "marks of one label": _with(marks=tuple(replace(mark, label="Spot") for mark in ALL.marks)),
    "two maps of one label": _with(maps=(HEAT, replace(HEAT, key="other", values=HEAT.values / 2))),
    "a label of 80 characters": _ball(label=LONG),
    "no label": _ball(label=" "),
    "white space and control characters": _ball(label="  Upper\n\x07lobe "),
    "a backslash": _ball(label="left\\right"),
    "letters of other scripts": _ball(label="Größe ≥ 10 mm 結節 🫁"),
    "a title with a backslash": _with(title="Left\\right"),
    "a long title": _with(title=LONG * 2),
    "no title": _with(title=""),
    "an empty note": _with(notes=("", "Said.")),
    "a long note": _with(notes=("word " * 1000,)),
    "a private scheme of the site": _ball(type=Code("SPICULATED", "99SITE", "Spiculated")),
    "a long code": _ball(laterality=Code("ABCDEFGHIJKLMNOPQRSTU", "99SITE", "Somewhere")),
    "a map shown in a narrow window": _with(maps=(replace(HEAT, shown=(0.0, 0.25)),)),
    "a map that shows one value": _with(maps=(replace(HEAT, shown=(0.0, 0.0)),)),
    "a map of zeros": _with(maps=(replace(HEAT, values=np.zeros_like(HEAT.values)),)),
    "millimetres of mercury": _unit("mm[Hg]"),
    "a rate by body surface": _unit("mL/min/{1.73_m2}"),
    "notes alone": _with(regions=(), marks=(), maps=(), measurements=(), evaluations=()),
}


@pytest.mark.parametrize("findings", WRITTEN.values(), ids=WRITTEN.keys())
def test_it_is_written_and_sound(findings: Findings, tmp_path: Path) -> None:
    written = write(compose(build.PROVENANCE, findings, CASE.headers, PROFILE), tmp_path)
    paths = [file.path for file in written]
    assert check(paths, CASE.headers, findings, profile=PROFILE) == []
    assert judged(paths) == []


REFUSED = {
    r"ball\.type: the code \('T-28000'.*retired": _ball(type=Code("T-28000", "SRT", "Lung")),
    r"ball\.type: .*empty": _ball(type=Code("", "SCT", "Lung")),
    r"ball\.site: .*64 characters": _ball(site=Code("X", "99SITE", "Lung" * 20)),
    r"ball\.laterality: .*16 characters": _ball(laterality=Code("X", "99A_VERY_LONG_SITE", "Lung")),
    r"ball\.colour: is \(300, 0, 0\)": _ball(colour=(300, 0, 0)),
    r"ball\.mask: is bool of the shape \(1, 48, 40\)": _ball(mask=BALL.mask[:1]),
    r"ball\.mask: is uint8": _ball(mask=np.asarray(BALL.mask, np.uint8)),
    r"ball\.length_mm: is inf": _ball(measurements=(replace(build.LENGTH, value=float("inf")),)),
    r"findings\.length_mm\.unit: 'mmHg' .*mm\[Hg\]": _unit("mmHg"),
    r"findings\.procedure: 'X' is not in CID 100": _with(procedure=Code("X", "99SITE", "CT")),
    r"findings\.window: is \(40\.0, 0\.0\)": _with(window=(40.0, 0.0)),
    r"spot\.confidence: is 1\.2": _spot(confidence=1.2),
    r"spot\.points: .*finite": _spot(points=np.array([[0, np.nan, 0]])),
    r"heat\.values: holds what is no finite number": _with(maps=(replace(HEAT, values=HEAT.values * np.nan),)),
    r"heat\.values: has the shape": _with(maps=(replace(HEAT, values=HEAT.values[:1]),)),
    r"ball: is the key of two findings": _with(regions=(BALL, BALL)),
    r"heat: is the key of two findings": _with(maps=(HEAT, HEAT)),
}


@pytest.mark.parametrize("said", REFUSED)
def test_it_is_refused_by_name(said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        compose(build.PROVENANCE, REFUSED[said], CASE.headers)


def test_vetting_a_second_time_changes_nothing() -> None:
    once = vetted(_ball(label=" a\\b\n", evaluations=()))
    assert [region.label for region in once.regions] == ["a/b"]
    assert [region.label for region in vetted(once).regions] == ["a/b"]


def test_a_swapped_label_is_found_by_the_check(tmp_path: Path) -> None:
    """Segments are told apart by their numbers, as labels may be alike."""
    findings = WRITTEN["two regions of one label"]
    paths = [file.path for file in write(compose(build.PROVENANCE, findings, CASE.headers), tmp_path)]
    swapped = replace(findings, regions=findings.regions[::-1])
    found = check(paths, CASE.headers, swapped)
    assert [problem for problem in found if "mask of its region" in problem] == [
        "SEG masks: segment 1 is not the mask of its region",
        "SEG masks: segment 2 is not the mask of its region",
    ]


def test_uids_of_the_source_are_passed_on_with_their_leading_zeros(tmp_path: Path) -> None:
    """They are against PS3.5 9.1, and common; an instance with one is received, so it is reported on."""
    headers = [deepcopy(header) for header in CASE.headers]
    with disable_value_validation():
        for number, header in enumerate(headers):
            uids = {"Study": "1.2.03", "Series": "1.2.04", "SOP": f"1.2.06.{number}"}
            for level, uid in uids.items():
                header.add_new(f"{level}InstanceUID", "UI", uid)
            header.add_new("FrameOfReferenceUID", "UI", "1.2.05")
        sources = tuple(SliceSource(str(header.SOPInstanceUID), str(header.SOPClassUID)) for header in headers)
        volume = replace(ALL.volume, sources=sources, series_uid="1.2.04", frame_of_reference_uid="1.2.05")
        findings = _with(volume=volume)
        paths = [file.path for file in write(compose(build.PROVENANCE, findings, headers, PROFILE), tmp_path)]
        assert check(paths, headers, findings, profile=PROFILE) == []
        assert judged(paths) == []
        change(paths[0], lambda result: result.add_new("SeriesInstanceUID", "UI", "1.2.07"))
    assert "SEG valid UIDs: SeriesInstanceUID is no valid UID" in check(paths, headers, findings, profile=PROFILE)


def test_a_scheme_of_the_site_is_declared(tmp_path: Path) -> None:
    findings = WRITTEN["a private scheme of the site"]
    report = dcmread(write(compose(build.PROVENANCE, findings, CASE.headers), tmp_path)[-1].path)
    declared = {item.CodingSchemeDesignator for item in report.CodingSchemeIdentificationSequence}
    assert declared == {"99AINODE", "99SITE"}
    found = {str(i.ConceptCodeSequence[0].CodeMeaning) for i in content(report) if concept(i) == "121071"}
    assert "Spiculated" in found


@pytest.mark.parametrize("code", ["mm[Hg]", "10*6/ml", "ml/(100.g)/min", "{SUVbw}g/ml", "[hnsf'U]", "Cel", "/mm"])
def test_units(code: str) -> None:
    assert is_unit(code)


@pytest.mark.parametrize("code", ["mmHg", "HU", "pixels", "mm²", "mm ", "", "sec", "\\"])
def test_what_is_no_unit(code: str) -> None:
    assert not is_unit(code)
