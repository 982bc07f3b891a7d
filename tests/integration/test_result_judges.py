"""Result objects before judges that know nothing of the node."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.config import disable_value_validation

from dicom_sr.compose import compose, write
from node.domain.profile import FULL
from tests import builders_results as build
from tests import judges

pytestmark = pytest.mark.peer


def _one_segment() -> build.Case:
    case = build.case()
    return case.with_regions(case.findings.regions[1])


CASES = {
    "axial": build.case,
    "oblique": lambda: build.case("oblique"),
    "reversed": lambda: build.case("reversed"),
    "multi-frame": lambda: build.case(multiframe=True),
    "bare": lambda: build.case(
        **dict.fromkeys(
            ("AccessionNumber", "StudyID", "PatientSex", "PatientBirthDate", "TimezoneOffsetFromUTC", "SliceThickness")
        )
    ),
    "no body part": lambda: build.case(BodyPartExamined=None),
    "one segment": _one_segment,
    "no region": lambda: build.case().with_regions(),
    "Japanese": lambda: build.case(PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"),
}


@pytest.fixture(params=CASES)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """SEG, first and last capture, SR."""
    written = [file.path for file in CASES[request.param]().written(tmp_path / "out")]
    return [written[0], written[1], written[-2], written[-1]]


def test_dciodvfy_has_nothing_to_say(files: list[Path]) -> None:
    assert {path.name: judges.dciodvfy(path) for path in files} == {path.name: [] for path in files}


def test_dsrdump_reads_the_report(files: list[Path]) -> None:
    assert judges.dsrdump(files[-1]) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", ["axial", "no region"])
def test_pixelmed_finds_no_error(case: str, tmp_path: Path) -> None:
    report = CASES[case]().written(tmp_path / "out")[-1].path
    assert judges.pixelmed(report, tmp_path) == []


@pytest.mark.slow
def test_pixelmed_finds_a_planted_error(tmp_path: Path) -> None:
    path = build.case().written(tmp_path / "out")[-1].path
    report = dcmread(path)
    report.ContentSequence[-2].ContentSequence[0].RelationshipType = "HAS PROPERTIES"
    report.save_as(path)
    assert judges.pixelmed(path, tmp_path)


def test_dciodvfy_finds_a_planted_error(tmp_path: Path) -> None:
    path = build.case().written(tmp_path / "out")[-1].path
    with disable_value_validation():
        report = dcmread(path)
        report.CompletionFlag = "PERHAPS"
        report.save_as(path)
    assert judges.dciodvfy(path)


def test_the_acceptance_script_passes_every_object(shared_data: Path, tmp_path: Path) -> None:
    script = shared_data.parent / "judges" / "accept.py"
    if not script.is_file():
        pytest.skip("accept.py is not beside the project")
    case = build.case()
    # dciodvfy warns of any private coding scheme, and the script waives none.
    regions = tuple(replace(r, measurements=r.measurements[:1], type=build.LUNG) for r in case.findings.regions)
    case = replace(case, findings=replace(case.findings, regions=regions, evaluations=()))
    build.save_sources(case.headers, tmp_path / "source")
    (tmp_path / "out").mkdir()
    # It asks for a plane of every capture, and a summary page has none.
    datasets = compose(build.PROVENANCE, case.findings, case.headers, replace(FULL, summary=False))
    results = [str(file.path) for file in write(datasets, tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "source"), *results], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
