"""A job whose results are wanted in several ways: one set for each profile, all of them checked, or none is sent."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import DataElement, Dataset, dcmread

from config.profiles import TRANSFER_SYNTAXES
from dicom_sr.compose import write
from dicom_sr.recode import recoded
from node.domain.finding import Code, Findings
from node.domain.job import JobInput, JobOutput, Outcome, ResultFile
from node.domain.model import ModelVersion, Qualification
from node.domain.profile import FULL, Profile
from node.domain.study import StudyContent
from node.domain.volume import Volume
from node.services.run_job import Alone
from node.workers.child import Runner
from node.workers.warm import Warm
from pipelines.contract import Selection, Stage
from tests import objects
from tests.builders import change, instance_file, study_of, tiny_series
from tests.builders_results import PROVENANCE, region


class Low:
    """Finds what is below a threshold."""

    model: ModelVersion = PROVENANCE.model

    def select(self, study: StudyContent) -> Selection:
        return Selection(study.series[0], "the first")

    def load(self, device: str) -> None:
        """Nothing to load."""

    def analyse(self, volume: Volume, stage: Stage, *others: Volume) -> Findings:
        found = region("low", "Low", np.asarray(volume.voxels < -500.0))
        return Findings(volume, Code("25045-6", "LN", "CT unspecified body region"), (found,), title="Low")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny_series(tmp_path_factory.mktemp("series"))


def ran(series: list[Path], out: Path, *profiles: Profile, identity: Path | None = None) -> JobOutput:
    out.mkdir()
    job = JobInput(PROVENANCE, study_of(series), "cpu", out, profiles=profiles, identity=identity)
    warm = Warm(0)
    warm.keep(PROVENANCE.model, Low(), None)
    return Runner(warm, Alone()).run(job)


def test_every_profile_has_a_set_of_its_own(series: list[Path], tmp_path: Path) -> None:
    site = Profile("site", qualification=Qualification.PRODUCT)
    output = ran(series, tmp_path / "out", FULL, site)
    assert output.outcome is Outcome.SUCCEEDED, output.reason
    sets = {name: [r for r in output.results if r.profile == name] for name in ("full", "site")}
    assert [r.path.parent.name for r in output.results] == [r.profile for r in output.results]
    assert len(sets["full"]) == len(sets["site"]) > 2
    uids = [r.sop_instance_uid for r in output.results]
    assert len(set(uids)) == len(uids)
    assert {r.series_uid for r in sets["full"]}.isdisjoint(r.series_uid for r in sets["site"])
    said = {name: {str(dcmread(r.path).ContentQualification) for r in found} for name, found in sets.items()}
    assert said == {"full": {"RESEARCH"}, "site": {"PRODUCT"}}


@pytest.fixture(scope="module")
def plain(series: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Sequence[ResultFile]:
    return ran(series, tmp_path_factory.mktemp("plain") / "out", FULL).results


@pytest.mark.parametrize("word", sorted(TRANSFER_SYNTAXES))
def test_images_are_in_the_transfer_syntax_that_is_wanted(
    tmp_path: Path, word: str, plain: Sequence[ResultFile]
) -> None:
    wanted = str(TRANSFER_SYNTAXES[word])
    for result in plain:
        copy = replace(result, path=Path(shutil.copy(result.path, tmp_path)))
        same, other = dcmread(result.path), recoded(copy, wanted)
        written = dcmread(other.path)
        assert str(written.file_meta.TransferSyntaxUID) == other.transfer_syntax_uid
        whole = same.get("BitsAllocated", 0) in (8, 16)
        anything = word in ("implicit-little", "deflated")
        assert other.transfer_syntax_uid == (wanted if whole or anything else objects.EXPLICIT)
        assert other.size == other.path.stat().st_size
        assert instance_file(other.path).digest == other.digest
        assert written.SOPInstanceUID == other.sop_instance_uid == result.sop_instance_uid
        if "PixelData" in same:
            assert np.array_equal(written.pixel_array, same.pixel_array)
            assert written.PhotometricInterpretation == same.PhotometricInterpretation
            del written.PixelData, same.PixelData
        assert written == same


def test_one_set_lies_where_it_is_wanted(series: list[Path], tmp_path: Path) -> None:
    output = ran(series, tmp_path / "out", FULL)
    assert {r.path.parent for r in output.results} == {tmp_path / "out"}


def test_one_bad_object_holds_back_every_set(
    series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*given: Any) -> list[ResultFile]:
        written = write(*given)
        change(written[0].path, lambda segmentation: setattr(segmentation, "SegmentSequence", []))
        return written

    monkeypatch.setattr("node.services.run_job.write", damaged)
    output = ran(series, tmp_path / "out", FULL, Profile("site", timezone="+0100"))
    assert (output.outcome, output.retry, output.results) == (Outcome.FAILED, False, ())
    assert output.problems
    assert {problem.split(":")[0] for problem in output.problems} == {"full", "site"}
    assert output.reason == "CheckFailed: " + "; ".join(output.problems)
    assert len(list((tmp_path / "out" / "full").iterdir())) > 2


def test_a_series_number_that_is_none_is_as_good_as_none(series: list[Path], tmp_path: Path) -> None:
    def broken(header: Dataset) -> None:
        header.add(DataElement("SeriesNumber", "LO", "seven"))

    copies = [change(Path(shutil.copy(path, tmp_path)), broken) for path in series]
    output = ran(copies, tmp_path / "out", FULL)
    assert output.outcome is Outcome.SUCCEEDED, output.reason
    assert min(int(dcmread(result.path).SeriesNumber) for result in output.results) >= FULL.series_number


def test_results_carry_the_corrected_identity(series: list[Path], tmp_path: Path) -> None:
    def corrected(header: Dataset) -> None:
        header.PatientName, header.PatientID, header.AccessionNumber = "Right^Rita", "R-1", "A-2"

    copy = tmp_path / "corrected.dcm"
    copy.write_bytes(series[0].read_bytes())
    output = ran(series, tmp_path / "out", FULL, identity=change(copy, corrected))
    assert output.outcome is Outcome.SUCCEEDED, output.reason
    for result in output.results:
        header = dcmread(result.path, stop_before_pixels=True)
        assert (header.PatientName, header.PatientID, header.AccessionNumber) == ("Right^Rita", "R-1", "A-2")
