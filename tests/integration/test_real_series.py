"""Reading and measuring published scans."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from node.domain.errors import Refused
from pipelines.lung_density_ct.pipeline import LungDensityCT
from pipelines.read.decode import stored_frame
from pipelines.read.volume import read_volume
from tests.builders import study_of

_LOSSLESS = (
    "BigEndian",
    "Deflated",
    "JPEG2000LosslessOnly",
    "JPEGLSLossless",
    "Process14",
    "Explicit",
    "Implicit",
    "RLELossless",
)


@pytest.fixture
def syntaxes(shared_data: Path) -> Path:
    return shared_data / "syntaxes" / "ctimage-all-ts"


def _hu(path: Path) -> np.ndarray:
    ds = dcmread(path)
    return stored_frame(ds, 0).astype(np.float64) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


def test_every_lossless_syntax_decodes_to_the_same_pixels(syntaxes: Path) -> None:
    reference = stored_frame(dcmread(syntaxes / "CTImage.dcm"), 0)
    paths = [p for p in syntaxes.glob("CTImage.dcm_*") if any(word in p.name for word in _LOSSLESS)]
    assert len(paths) == 9
    for path in paths:
        assert np.array_equal(stored_frame(dcmread(path), 0), reference), path.name


@pytest.mark.parametrize(
    ("name", "within_hu"),
    [
        ("JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91", 10),
        ("JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81", 10),
        ("JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51", 200),
        ("JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53", 200),
        ("JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55", 200),
        ("JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50", 200),
    ],
)
def test_lossy_syntaxes_come_close(syntaxes: Path, name: str, within_hu: float) -> None:
    error = np.abs(_hu(syntaxes / f"CTImage.dcm_{name}.dcm") - _hu(syntaxes / "CTImage.dcm"))
    assert np.percentile(error, 99) <= within_hu


@pytest.mark.slow
def test_a_chest_ct_with_a_right_sided_opacity(shared_data: Path) -> None:
    study = study_of(sorted((shared_data / "ct-chest" / "fnndsc-chest-275").glob("*.dcm")))
    pipeline = LungDensityCT()
    pipeline.load("cpu")
    selection = pipeline.select(study)
    start = time.monotonic()
    volume = read_volume(selection.series)
    reading = time.monotonic() - start
    findings = pipeline.analyse(volume, lambda stage: None)
    numbers = {r.key: {m.key: m.value for m in r.measurements} for r in findings.regions}
    assert volume.shape == (275, 512, 512)
    assert reading < 10  # 1.1 s on two idle cores; the bound is for a machine under load
    assert 1800 < numbers["lung_left"]["volume_ml"] < 1950
    assert 850 < numbers["lung_right"]["volume_ml"] < 960
    assert -850 < numbers["lungs"]["mean_hu"] < -780
    assert 0.5 < numbers["lungs"]["laa950_percent"] < 5
    assert -930 < numbers["lungs"]["perc15_hu"] < -880
    assert {e.name.value: e.value.meaning for e in findings.evaluations}["ASYMMETRY"] == "Yes"
    # Points that a reader sees (slice, row, column): trachea, left main bronchus, each lung.
    regions = {r.key: r.mask for r in findings.regions}
    for place in ((240, 258, 239), (160, 300, 262)):
        assert volume.voxels[place] < -900
        assert not regions["lungs"][place]
    assert regions["lung_left"][165, 300, 350]
    assert regions["lung_right"][165, 300, 140]


def test_a_series_without_sop_uids_is_refused(shared_data: Path) -> None:
    """As published, these 20 slices share one UID in their file meta and have none in their data sets."""
    paths = sorted((shared_data / "ct-abdomen" / "totalsegmentator" / "example_ct_dicom").iterdir())
    with pytest.raises(Refused, match="without SOPClassUID"):
        LungDensityCT().select(study_of(paths))
