"""The phantom is what it says: its truth is that of its voxels, and its files are valid DICOM."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from pipelines.phantom import SeriesOptions, make_phantom, write_series
from pipelines.phantom_anatomy import PhantomSpec
from tests import peers
from tests.builders import tiny_phantom

# The volume of an ellipsoid less what the airway takes, from the semi-axes of the anatomy.
_LEFT_ELLIPSOID_ML = 4 / 3 * np.pi * 52 * 76 * 112 / 1000
_RIGHT_ELLIPSOID_ML = 4 / 3 * np.pi * 58 * 80 * 118 / 1000


def test_the_truth_is_that_of_the_analytic_shapes() -> None:
    phantom = make_phantom(PhantomSpec(shape=(100, 192, 192), spacing=(3.0, 1.9, 1.9)))
    assert phantom.truth.left.volume_ml == pytest.approx(_LEFT_ELLIPSOID_ML, rel=0.005)
    assert phantom.truth.right.volume_ml == pytest.approx(_RIGHT_ELLIPSOID_ML, rel=0.005)
    assert phantom.truth.left.laa950_percent == pytest.approx(8, abs=0.5)
    assert phantom.truth.right.laa950_percent == pytest.approx(20, abs=0.8)


def test_the_masks_hold_what_the_numbers_say() -> None:
    truth = (phantom := tiny_phantom()).truth
    left = phantom.voxels[truth.left_mask]
    assert truth.left.laa950_percent == 100 * np.mean(left < -950)
    assert truth.left.mean_hu == pytest.approx(left.mean())
    assert not (truth.left_mask & truth.right_mask).any()
    assert not (truth.airway_mask & (truth.left_mask | truth.right_mask)).any()


def test_the_left_lung_lies_at_positive_x() -> None:
    phantom = tiny_phantom(row_cosines=(-1.0, 0.0, 0.0))
    x = np.argwhere(phantom.truth.left_mask) @ phantom.affine[0, :3] + phantom.affine[0, 3]
    assert x.min() > 0


def test_the_seed_decides_noise_and_uids(tmp_path: Path) -> None:
    same = [write_series(tiny_phantom(seed="a"), tmp_path / name)[0].read_bytes() for name in ("1", "2")]
    other = write_series(tiny_phantom(seed="b"), tmp_path / "3")[0]
    assert same[0] == same[1]
    assert dcmread(other).StudyInstanceUID != dcmread(tmp_path / "1" / "CT0001.dcm").StudyInstanceUID


def test_the_patient_is_fictional(tmp_path: Path) -> None:
    ds = dcmread(write_series(tiny_phantom(), tmp_path)[0])
    assert (str(ds.PatientName), ds.PatientID) == ("PHANTOM^LUNG", "AINODE-PHANTOM")


def test_an_unknown_order_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'upwards'"):
        write_series(tiny_phantom(), tmp_path, SeriesOptions(order="upwards"))


@pytest.mark.peer
@pytest.mark.parametrize("multiframe", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_dciodvfy_finds_no_error(tmp_path: Path, multiframe: bool, signed: bool) -> None:
    options = SeriesOptions(multiframe=multiframe, signed=signed, varying_rescale=True)
    path = write_series(tiny_phantom(), tmp_path, options)[0]
    answer = subprocess.run([peers.program("dciodvfy"), path], capture_output=True, text=True, check=False)
    said = answer.stdout + answer.stderr
    assert ("EnhancedCTImage" if multiframe else "CTImage") in said
    assert "Error" not in said, said
