"""What OHIF finds in a report that is written for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from config.profiles import BUILT_IN
from dicom_sr.check import check
from dicom_sr.check_content import concept, content, groups, tracking_uid
from dicom_sr.compose import compose
from dicom_sr.ohif import label_of
from node.domain.finding import Code, Findings, Mark, Measurement, Shape
from node.domain.profile import FULL, Captures, Language, Profile
from tests import builders_results as build
from tests.gallery import Gallery, gallery

OHIF = BUILT_IN["ohif"]
TAG = "Cornerstone3DTools@^0.1.0"
AREA = Code("42798000", "SCT", "Area")
MM2 = Code("mm2", "UCUM", "square millimeter")
SQUARE = [(11, 98, 130), (11, 98, 166), (11, 134, 166), (11, 134, 130)]


@pytest.fixture(scope="module")
def shown() -> Gallery:
    return gallery()


def _report(shown: Gallery, profile: Profile = OHIF, **parts: Any) -> Dataset:
    findings: Findings = replace(shown.findings, **parts)
    wanted = replace(profile, captures=Captures.NONE, summary=False, maps=False)
    return compose(build.PROVENANCE, findings, shown.headers, wanted)[-1]


def _named(group: Dataset) -> str:
    return next(str(item.TextValue) for item in group.ContentSequence if concept(item) == "112039")


def _comment(group: Dataset) -> str | None:
    return next((str(item.TextValue) for item in group.ContentSequence if concept(item) == "121106"), None)


def _taken_over(report: Dataset) -> dict[str, list[tuple[str, float]]]:
    """The numbers that have coordinates of their own, by tracking identifier: the first one of their group."""
    found = {}
    for group in groups(report):
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        inferred = [n for n in numbers if any(i.ValueType == "SCOORD" for i in n.get("ContentSequence", []))]
        if inferred:
            assert inferred == numbers[:1], "the viewer takes the first number"
            (line,) = (i for i in inferred[0].ContentSequence if i.ValueType == "SCOORD")
            assert line.RelationshipType == "INFERRED FROM"
            value = inferred[0].MeasuredValueSequence[0]
            unit = value.MeasurementUnitsCodeSequence[0].CodeValue
            found[_named(group)] = [(unit, float(value.NumericValue))]
    return found


def test_every_finding_names_the_tool_that_draws_it(shown: Gallery) -> None:
    report = _report(shown)
    names = {_named(group) for group in groups(report)}
    assert names == {
        f"{TAG}:RectangleROI:Ball",
        f"{TAG}:ArrowAnnotate:Point",
        f"{TAG}:Length:Line",
        f"{TAG}:PlanarFreehandROI:Path",
        f"{TAG}:Length:Edge",
        f"{TAG}:PlanarFreehandROI:Outline",
        f"{TAG}:RectangleROI:Box",
        f"{TAG}:RectangleROI:Deep",
    }
    for group in groups(report):
        if any(item.ValueType == "SCOORD" for item in content(group)) and _comment(group) is not None:
            assert _comment(group) == label_of(_named(group))
    placed = {_named(group) for group in groups(report) if _comment(group)}
    assert placed == names, "a finding without its label"


def test_a_line_has_its_length_and_an_outline_its_area(shown: Gallery) -> None:
    assert _taken_over(_report(shown)) == {
        f"{TAG}:Length:Line": [("mm", 40.0)],
        f"{TAG}:Length:Edge": [("mm", 40.0)],
        f"{TAG}:PlanarFreehandROI:Outline": [("mm2", 36.0 * 36.0)],
    }


def test_what_the_pipeline_says_of_an_outline_stands(shown: Gallery) -> None:
    area = Measurement("area", AREA, 1300.0, MM2)
    mark = Mark("a", "A: b", Shape.POLYGON, np.array(SQUARE, float), build.LUNG, build.LUNG, measurements=(area,))
    report = _report(shown, marks=(mark,), regions=())
    assert _taken_over(report) == {f"{TAG}:PlanarFreehandROI:A: b": [("mm2", 1300.0)]}
    said = [item for item in content(report) if item.ValueType == "NUM" and concept(item) == AREA.value]
    assert len(said) == 1
    assert {label_of(_named(group)) for group in groups(report)} == {"A: b"}


def test_without_spacing_a_line_has_no_length_and_an_outline_is_counted_in_pixels(shown: Gallery) -> None:
    report = _report(shown, volume=replace(shown.findings.volume, in_mm=False))
    assert _taken_over(report) == {
        f"{TAG}:Length:Line": [("mm", 40.0)],
        f"{TAG}:PlanarFreehandROI:Outline": [("{pixels}", 36.0 * 36.0)],
    }
    assert f"{TAG}:PlanarFreehandROI:Edge" in {_named(group) for group in groups(report)}


def test_other_profiles_and_pixels_that_are_not_square_name_no_tool(shown: Gallery) -> None:
    """OHIF 3.13 swaps their spacings, so what it takes over has wrong lengths."""
    for report in (_report(shown, FULL), _report(gallery((2.5, 0.8, 1.3)))):
        assert not any(_named(group).startswith(TAG) or _comment(group) for group in groups(report))
        assert _taken_over(report) == {}


def test_ohif_finds_its_way_in_every_language(shown: Gallery) -> None:
    """Its adapters look for three containers by their English meanings; all else is in German."""
    report = _report(shown, replace(OHIF, language=Language.GERMAN))
    meanings = {
        concept(item): item.ConceptNameCodeSequence[0].CodeMeaning
        for item in content(report)
        if "ConceptNameCodeSequence" in item
    }
    assert meanings["126010"] == "Imaging Measurements"
    assert meanings["125007"] == "Measurement Group"
    assert meanings["112039"] == "Tracking Identifier"
    assert meanings["121071"] == "Befund"
    german = _report(shown, replace(FULL, language=Language.GERMAN))
    assert "Messungen" in {i.ConceptNameCodeSequence[0].CodeMeaning for i in german.ContentSequence}


def test_the_check_knows_what_was_named(shown: Gallery, tmp_path: Path) -> None:
    paths = shown.written(tmp_path / "sources", tmp_path / "results")[len(shown.headers) :]
    assert check(paths, shown.headers, shown.findings, profile=OHIF) == []
    moved = replace(shown.findings.marks[0], points=shown.findings.marks[0].points + 1)
    elsewhere = replace(shown.findings, marks=(moved, *shown.findings.marks[1:]))
    assert any("point lies elsewhere" in problem for problem in check(paths, shown.headers, elsewhere, profile=OHIF))


def test_what_is_tracked_is_the_same_in_every_profile(shown: Gallery) -> None:
    both = [{tracking_uid(group) for group in groups(_report(shown, profile))} for profile in (FULL, OHIF)]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("case", "profile", "said"),
    [
        (build.flat, FULL, "Map: Where the network looked (in the pictures only)."),
        (build.flat, replace(FULL, captures=Captures.NONE, summary=False), "(not among these results)."),
        (build.flat, replace(FULL, captures=Captures.NONE), "(in the pictures only)."),
        (build.case, FULL, "Map: Where the network looked."),
        (build.case, replace(FULL, maps=False), "Map: Where the network looked (in the pictures only)."),
    ],
)
def test_the_report_says_where_a_map_is(case: Any, profile: Profile, said: str) -> None:
    report = build.with_everything(case()).results(profile=profile)[-1]
    (statement,) = (i.TextValue for i in content(report) if i.ValueType == "TEXT" and "network" in i.TextValue)
    assert statement.endswith(said)
