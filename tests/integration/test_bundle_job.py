"""A job with a bundle, from DICOM files to checked DICOM results, as the worker's process runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from node.domain.job import JobInput, JobOutput, Outcome
from node.domain.study import StudyContent
from node.services.run_job import run_job
from pipelines.bundle import open_version
from pipelines.phantom import SeriesOptions
from pipelines.read.selected import read
from tests.builders import study_of, tiny_phantom, tiny_series
from tests.builders_results import PROVENANCE
from tests.bundles import SIDE, dice, segmentation_config, write_version

pytestmark = pytest.mark.filterwarnings("ignore:inverse has been called but no invertible transforms:UserWarning")

BODY = [38266002, "SCT", "Entire body"]
BODY_SIDE = SIDE | {
    "labels": [{"label": 1, "key": "body", "name": "Body", "type": BODY, "measure": ["volume_ml", "mean"]}]
}


def _run(directory: Path, study: StudyContent, out: Path) -> tuple[JobOutput, Any]:
    out.mkdir()
    pipeline = open_version(directory, trust_code=False)
    provenance = replace(PROVENANCE, model=pipeline.model)
    return run_job(JobInput(provenance, study, "cpu", out), pipeline, read)


def _config() -> dict[str, Any]:
    config = segmentation_config(pixdim=[4.0, 4.0, 4.0])
    config["preprocessing"]["transforms"][4] |= {"a_min": -1000, "a_max": 1000, "b_min": 0.2, "b_max": 1.2}
    return config


@pytest.mark.parametrize("spec", [{}, {"tilt_degrees": 15.0}], ids=["axial", "tilted gantry"])
def test_a_bundle_makes_checked_results(spec: dict[str, Any], tmp_path: Path) -> None:
    study = study_of(tiny_series(tmp_path / "ct", **spec))
    directory = write_version(tmp_path / "version", _config(), side=BODY_SIDE)
    output, findings = _run(directory, study, tmp_path / "out")
    assert (output.outcome, output.reason) == (Outcome.SUCCEEDED, None)
    assert list(output.timings) == [
        "select",
        "read",
        "load",
        "preprocess",
        "infer",
        "postprocess",
        "measure",
        "compose",
        "check",
    ]
    (region,) = findings.regions
    assert dice(region.mask, tiny_phantom(**spec).voxels > -400) >= 0.99
    segmentation = dcmread(output.results[0].path)
    assert segmentation.SegmentSequence[0].SegmentLabel == "Body"
    assert np.count_nonzero(segmentation.pixel_array) == np.count_nonzero(region.mask)


def test_several_series_are_read_and_named_in_the_inputs(tmp_path: Path) -> None:
    import torch

    series = [
        tiny_series(
            tmp_path / name, SeriesOptions(header={"SeriesInstanceUID": f"1.2.3.{n}", "SeriesDescription": name})
        )
        for n, name in enumerate(("native", "late"), start=1)
    ]
    for n, path in enumerate(series[1]):
        dataset = dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.2.{n + 1}"
        dataset.save_as(path)
    inputs = [{"modality": "CT", "description": name} for name in ("native", "late")]
    config = _config()
    config["network_def"]["in_channels"] = 2
    weights = {
        "weight": torch.tensor([[0.0, 0.0], [10.0, 10.0]]).reshape(2, 2, 1, 1, 1),
        "bias": torch.tensor([0.0, -10.0]),
    }
    directory = write_version(tmp_path / "version", config, side=BODY_SIDE | {"inputs": inputs}, weights=weights)
    output, findings = _run(directory, study_of(*series), tmp_path / "out")
    assert (output.outcome, output.reason) == (Outcome.SUCCEEDED, None)
    assert findings.volume.series_uid == "1.2.3.1"
    assert len(output.inputs) == len(series[0]) + len(series[1])


def test_a_study_in_which_nothing_is_found_has_a_report(tmp_path: Path) -> None:
    config = _config()
    config["preprocessing"]["transforms"][4]["b_max"] = 0.3
    directory = write_version(tmp_path / "version", config, side=BODY_SIDE)
    output, findings = _run(directory, study_of(tiny_series(tmp_path / "ct")), tmp_path / "out")
    assert (output.outcome, output.reason) == (Outcome.SUCCEEDED, None)
    assert findings.regions == ()
    report = dcmread(output.results[-1].path)
    assert "Not found: Body." in [
        item.TextValue for item in report.ContentSequence[-1].ContentSequence if "TextValue" in item
    ]


def test_a_study_that_is_not_for_the_bundle_is_refused(tmp_path: Path) -> None:
    directory = write_version(tmp_path / "version", _config(), side=BODY_SIDE | {"inputs": [{"modality": "MR"}]})
    output, _ = _run(directory, study_of(tiny_series(tmp_path / "ct")), tmp_path / "out")
    assert output.outcome is Outcome.REFUSED
    assert "Modality is CT, not MR" in output.reason
