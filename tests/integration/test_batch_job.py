"""A batch of jobs with a bundle of two dimensions, from DICOM files to checked results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from node.domain.errors import OutOfMemory
from node.domain.finding import Findings
from node.domain.job import JobInput, Outcome
from node.services.run_batch import run_batch
from node.services.run_job import run_job
from node.workers.local import Device, LocalEngine
from pipelines.bundle.pipeline import BundlePipeline
from pipelines.read.selected import read
from pipelines.weights import read_manifest
from tests.builders import change, study_of, tiny_series
from tests.builders_results import PROVENANCE
from tests.bundles import PLANAR_SIDE, planar_config, write_planar_version
from tests.radiographs import radiograph

pytestmark = pytest.mark.filterwarnings("ignore:inverse has been called but no invertible transforms:UserWarning")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finds what is denser than water in one slice of a CT."""
    config = planar_config()
    config["preprocessing"]["transforms"][2] |= {"a_min": -1000, "a_max": 1000}
    side = PLANAR_SIDE | {"inputs": [{"modality": "CT"}], "dimensions": 2}
    return write_planar_version(tmp_path_factory.mktemp("planar") / "version", config, side=side)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny_series(tmp_path_factory.mktemp("ct"))


def jobs(version: Path, paths: list[Path], out: Path) -> list[JobInput]:
    model = read_manifest(version).model
    made = []
    for n, path in enumerate(paths):
        folder = out / str(n)
        folder.mkdir(parents=True)
        provenance = replace(PROVENANCE, model=model, job_id=f"6f1c1d1e-0000-5000-8000-00000000000{n}")
        made.append(JobInput(provenance, study_of([path]), "cpu", folder, version))
    return made


def test_each_ends_as_it_would_alone(version: Path, slices: list[Path], tmp_path: Path) -> None:
    pipeline = BundlePipeline(version, trust_code=False)
    work = jobs(version, slices[8:11], tmp_path / "together")
    outputs = run_batch(work, pipeline, read)
    for alone, output in zip(jobs(version, slices[8:11], tmp_path / "alone"), outputs, strict=True):
        assert output is not None
        expected, _ = run_job(alone, pipeline, read)
        assert (output.outcome, output.reason) == (Outcome.SUCCEEDED, None)
        assert output.findings == expected.findings
        assert output.inputs == expected.inputs
        assert [r.sop_instance_uid for r in output.results] == [r.sop_instance_uid for r in expected.results]
        assert all(r.path.parent != e.path.parent for r, e in zip(output.results, expected.results, strict=True))
        assert set(output.timings) == set(expected.timings)
    assert len({str(output.findings) for output in outputs if output is not None}) == 3


def test_radiographs_end_as_checked_results(tmp_path: Path) -> None:
    """Without a place in the patient, one of them without any spacing either."""
    version = write_planar_version(tmp_path / "version")
    pixels = np.full((256, 384), 500, np.uint16)
    pixels[64:128, 192:288] = 3500
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    paths = [
        radiograph(tmp_path / "plain", pixels),
        radiograph(tmp_path / "inverted", 4095 - pixels, **inverted),
        radiograph(tmp_path / "pixels", pixels, ImagerPixelSpacing=None),
    ]
    outputs = run_batch(jobs(version, paths, tmp_path / "out"), BundlePipeline(version, trust_code=False), read)
    for output, measured in zip(outputs, ({"area_mm2", "mean"}, {"area_mm2", "mean"}, {"mean"}), strict=True):
        assert output is not None
        assert (output.outcome, output.reason) == (Outcome.SUCCEEDED, None)
        assert set(output.findings["regions"]["bright"]["measurements"]) == measured
        results = [dcmread(result.path) for result in output.results]
        assert {result.Modality for result in results} >= {"SEG", "SR"}
        (segmentation,) = (result for result in results if result.Modality == "SEG")
        assert np.array_equal(np.squeeze(segmentation.pixel_array) > 0, pixels > 2000)


def test_one_bad_image_is_its_own_job_s_end(version: Path, slices: list[Path], tmp_path: Path) -> None:
    damaged, colour = tmp_path / "damaged", tmp_path / "colour"
    for path in (damaged, colour):
        path.write_bytes(slices[8].read_bytes())
    change(colour, lambda dataset: setattr(dataset, "PhotometricInterpretation", "PALETTE COLOR"))
    work = jobs(version, [slices[8], damaged, slices[9], colour], tmp_path / "out")
    data = bytearray(damaged.read_bytes())
    data[-2] ^= 1
    damaged.write_bytes(data)
    good, bad, fine, refused = run_batch(work, BundlePipeline(version, trust_code=False), read)
    assert good is not None and fine is not None and bad is not None and refused is not None
    assert {good.outcome, fine.outcome} == {Outcome.SUCCEEDED}
    assert bad.outcome is Outcome.FAILED
    assert "damaged" in (bad.reason or "")
    assert refused.outcome is Outcome.REFUSED
    assert "not-monochrome" in (refused.reason or "")


def test_a_batch_that_fails_leaves_its_jobs_to_themselves(version: Path, slices: list[Path], tmp_path: Path) -> None:
    class TooLittle(BundlePipeline):
        def analyse_batch(self, *_: Any) -> list[Findings | Exception]:
            raise OutOfMemory("the device")

    work = jobs(version, slices[8:10], tmp_path / "out")
    assert run_batch(work, TooLittle(version, trust_code=False), read) == [None, None]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    made = LocalEngine(Device(tmp_path / "device"), log_level="info", log_format="text")
    yield made
    made.close()


@pytest.mark.slow
def test_a_child_runs_a_batch_and_says_that_it_can(
    engine: LocalEngine, version: Path, slices: list[Path], tmp_path: Path
) -> None:
    first, *others = jobs(version, slices[8:12], tmp_path / "out")
    limit = timedelta(seconds=120)
    assert engine.run(first, timeout=limit, beat=lambda: None).batches
    outputs = engine.run_batch(others, timeout=limit, beat=lambda: None)
    assert [output and output.outcome for output in outputs] == [Outcome.SUCCEEDED] * 3
    for output, path in zip(outputs, slices[9:12], strict=True):
        assert output is not None
        segmentation = dcmread(output.results[0].path)
        found = output.findings["regions"]["bright"]["measurements"]["area_mm2"]["value"]
        assert found == pytest.approx(np.count_nonzero(segmentation.pixel_array) * 11.0 * 9.0)
        assert list(output.inputs) == [dcmread(path, stop_before_pixels=True).SOPInstanceUID]
