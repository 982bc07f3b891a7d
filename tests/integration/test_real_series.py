"""Reading and measuring published scans."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from node.domain.errors import Refused
from pipelines.lung_density_ct.pipeline import LungDensityCT
from pipelines.read.frames import frames_of
from pipelines.read.header import read_header
from pipelines.read.images import read_images
from pipelines.read.select import summarise
from pipelines.read.volume import read_volume, slice_of
from tests.builders import instance_file, series_of, study_of

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
    header = read_header(instance_file(path))
    (frame,), (spans,) = frames_of(header), header.spans()
    out = np.empty(frame.shape, np.float32)
    slice_of(header, frame, spans).fill(out)
    return out


def test_every_lossless_syntax_decodes_to_the_same_pixels(syntaxes: Path) -> None:
    original = dcmread(syntaxes / "CTImage.dcm")
    reference = original.pixel_array * float(original.RescaleSlope) + float(original.RescaleIntercept)
    paths = [p for p in syntaxes.glob("CTImage.dcm_*") if any(word in p.name for word in _LOSSLESS)]
    assert len(paths) == 9
    for path in paths:
        assert np.array_equal(_hu(path), reference), path.name


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
    volume = read_volume(selection.series)
    findings = pipeline.analyse(volume, lambda stage: None)
    numbers = {r.key: {m.key: m.value for m in r.measurements} for r in findings.regions}
    assert volume.shape == (275, 512, 512)
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


def test_a_sagittal_mr_series(shared_data: Path) -> None:
    paths = sorted(path for path in (shared_data / "mr-brain" / "sag-anon-mprage-192").rglob("*") if path.is_file())
    series = series_of(paths)
    volume = read_volume(series)
    assert summarise(series, "MR").off_axial_degrees > 60
    assert volume.unit == "1"
    assert volume.shape[0] == len(paths)
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, paths)}
    for k, source in enumerate(volume.sources):
        dataset = by_uid[source.sop_instance_uid]
        assert np.array_equal(volume.voxels[k], dataset.pixel_array)
        assert np.allclose(volume.to_patient(np.array([k, 0.0, 0.0])), dataset.ImagePositionPatient, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless, JPEG2000Lossless])
def test_a_compressed_ct_is_the_same_whoever_decodes(shared_data: Path, tmp_path: Path, syntax: str) -> None:
    """Long enough that other processes help; pydicom's own values are the reference."""
    expected = {}
    for path in sorted((shared_data / "ct-chest" / "fnndsc-chest-275").glob("*.dcm")):
        dataset = dcmread(path)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        expected[dataset.SOPInstanceUID] = hashlib.sha256(hu.astype(np.float32).tobytes()).digest()
        if -560 < dataset.ImagePositionPatient[2] < -490:
            dataset.compress(syntax, generate_instance_uid=False)
            dataset.save_as(tmp_path / path.name)
    volume = read_volume(series_of(sorted(tmp_path.iterdir())))
    assert volume.shape[0] > 60
    for source, voxels in zip(volume.sources, volume.voxels, strict=True):
        assert hashlib.sha256(voxels.tobytes()).digest() == expected[source.sop_instance_uid]


def test_a_series_without_sop_uids_is_refused(shared_data: Path) -> None:
    """As published, these 20 slices share one UID in their file meta and have none in their data sets."""
    paths = sorted((shared_data / "ct-abdomen" / "totalsegmentator" / "example_ct_dicom").iterdir())
    with pytest.raises(Refused, match="without SOPClassUID"):
        LungDensityCT().select(study_of(paths))


def test_a_radiograph_and_the_same_as_monochrome1(shared_data: Path) -> None:
    folder = shared_data / "cxr" / "torchxrayvision-tests"
    plain, inverted = (
        read_images(series_of([folder / name]))[0]
        for name in ("1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm", "Fake_MONOHR1.dcm")
    )
    assert plain.shape == (1, 1024, 1024)
    assert np.array_equal(inverted.voxels, 255 - plain.voxels)
    assert plain.spacing[1:] == pytest.approx((0.168, 0.168))
    assert not plain.in_patient


def test_an_angiogram_of_96_frames(shared_data: Path) -> None:
    path = shared_data / "xa" / "jpeg_baseline_8bit.dcm"
    (run,) = read_images(series_of([path]))
    assert run.shape == (96, 512, 512)
    assert not run.in_mm
    decoded = dcmread(path).pixel_array
    # Decoders of lossy JPEG may round differently by one.
    assert np.abs(run.voxels[::19] - decoded[::19]).max() <= 1
