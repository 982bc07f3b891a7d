"""lung_density_ct against phantoms of known truth: through DICOM files, and on anatomy that is out of the ordinary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.domain.errors import Refused, Unavailable
from node.domain.finding import Findings, Region
from node.domain.volume import Volume
from pipelines.lung_density_ct.pipeline import LungDensityCT
from pipelines.phantom import LungTruth, Phantom, SeriesOptions, make_phantom, oblique, write_series
from pipelines.phantom_anatomy import PhantomSpec
from pipelines.read.volume import read_volume
from tests.builders import study_of, volume_of

# Physically a chest of 300 mm; coarse enough for two seconds a run.
CHEST: dict[str, Any] = {"shape": (100, 192, 192), "spacing": (3.0, 1.9, 1.9)}

FLIPPED = {"row_cosines": (-1.0, 0.0, 0.0), "column_cosines": (0.0, 1.0, 0.0)}
FEET_FIRST_PRONE = {"row_cosines": (1.0, 0.0, 0.0), "column_cosines": (0.0, -1.0, 0.0)}


@pytest.fixture(scope="module")
def pipeline() -> LungDensityCT:
    made = LungDensityCT()
    made.load("cpu")
    return made


def _analyse(pipeline: LungDensityCT, volume: Volume) -> Findings:
    return pipeline.analyse(volume, lambda stage: None)


def _region(findings: Findings, key: str) -> Region:
    return next(region for region in findings.regions if region.key == key)


def _numbers(findings: Findings, key: str) -> dict[str, float]:
    return {m.key: m.value for m in _region(findings, key).measurements}


def _answers(findings: Findings) -> dict[str, str]:
    return {e.name.value: e.value.meaning for e in findings.evaluations}


def _is_true(findings: Findings, key: str, truth: LungTruth) -> None:
    found = _numbers(findings, key)
    assert found["volume_ml"] == pytest.approx(truth.volume_ml, rel=0.01)
    assert found["laa950_percent"] == pytest.approx(truth.laa950_percent, abs=0.5)
    assert found["mean_hu"] == pytest.approx(truth.mean_hu, abs=2)
    assert found["perc15_hu"] == pytest.approx(truth.perc15_hu, abs=2)


def _all_true(findings: Findings, phantom: Phantom) -> None:
    _is_true(findings, "lungs", phantom.truth.total)
    _is_true(findings, "lung_left", phantom.truth.left)
    _is_true(findings, "lung_right", phantom.truth.right)
    for key, mask in (("lung_left", phantom.truth.left_mask), ("lung_right", phantom.truth.right_mask)):
        found = _region(findings, key).mask
        assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.99


@pytest.mark.parametrize("multiframe", [False, True], ids=["single", "multiframe"])
@pytest.mark.parametrize("order", ["position", "reversed", "shuffled"])
@pytest.mark.parametrize("place", [{}, oblique(20)], ids=["axial", "oblique"])
def test_truth_through_dicom(
    tmp_path: Path, pipeline: LungDensityCT, multiframe: bool, order: str, place: dict[str, Any]
) -> None:
    phantom = make_phantom(PhantomSpec(**CHEST, **place))
    options = SeriesOptions(multiframe=multiframe, order=order, varying_rescale=True)
    study = study_of(write_series(phantom, tmp_path, options))
    stages: list[str] = []
    findings = pipeline.analyse(read_volume(pipeline.select(study).series), stages.append)
    assert stages == ["segment", "measure"]
    _all_true(findings, phantom)


@pytest.mark.parametrize(
    "spec",
    [
        FLIPPED,
        FEET_FIRST_PRONE,
        oblique(-30),
        {"tilt_degrees": 20.0},
        {"joined": True},
        {"noise_hu": 8.0},
        {"emphysema_left": 0.4, "emphysema_right": 0.02},
        {"shape": (250, 128, 128), "spacing": (1.2, 2.8, 2.8)},
        {"shape": (60, 256, 256), "spacing": (5.0, 1.4, 1.4)},
    ],
    ids=["flipped", "prone", "oblique", "tilt", "joined", "noise", "emphysema", "thin", "thick"],
)
def test_truth_of_other_geometries_and_lungs(pipeline: LungDensityCT, spec: dict[str, Any]) -> None:
    phantom = make_phantom(PhantomSpec(**(CHEST | spec)))
    _all_true(_analyse(pipeline, volume_of(phantom)), phantom)


def test_the_airway_is_left_out(pipeline: LungDensityCT) -> None:
    phantom = make_phantom(PhantomSpec(**CHEST))
    findings = _analyse(pipeline, volume_of(phantom))
    assert not (_region(findings, "lungs").mask & phantom.truth.airway_mask).any()


def test_regions_are_made_of_each_other(pipeline: LungDensityCT) -> None:
    volume = volume_of(make_phantom(PhantomSpec(**CHEST)))
    before = volume.voxels.copy()
    findings = _analyse(pipeline, volume)
    left, right = (_region(findings, key).mask for key in ("lung_left", "lung_right"))
    low = _region(findings, "low_attenuation")
    assert np.array_equal(_region(findings, "lungs").mask, left | right)
    assert not (left & right).any()
    assert np.array_equal(low.mask, (left | right) & (volume.voxels < -950))
    assert low.measurements[0].value == pytest.approx(low.mask.sum() * volume.voxel_ml)
    assert [r.key for r in findings.regions if r.in_segmentation] == ["lung_left", "lung_right", "low_attenuation"]
    assert np.array_equal(volume.voxels, before)


def test_exactly_minus_950_is_not_low(pipeline: LungDensityCT) -> None:
    spec = PhantomSpec(**CHEST, emphysema_hu=-950.0, noise_hu=0.0)
    findings = _analyse(pipeline, volume_of(make_phantom(spec)))
    assert _numbers(findings, "lungs")["laa950_percent"] == 0
    assert "low_attenuation" not in [region.key for region in findings.regions]
    assert any("no low attenuation region" in note for note in findings.notes)


def test_an_opacified_lung_is_reported_as_asymmetry(pipeline: LungDensityCT) -> None:
    phantom = make_phantom(PhantomSpec(**CHEST))
    z = np.arange(100)[:, None, None]
    opacity = phantom.truth.right_mask & (z > 40)
    phantom.voxels[opacity] = 30
    findings = _analyse(pipeline, volume_of(phantom))
    aerated = np.count_nonzero(phantom.truth.right_mask & ~opacity) * 3.0 * 1.9 * 1.9 / 1000
    assert _numbers(findings, "lung_right")["volume_ml"] == pytest.approx(aerated, rel=0.01)
    _is_true(findings, "lung_left", phantom.truth.left)
    assert _answers(findings)["ASYMMETRY"] == "Yes"
    assert any(note.startswith("The right lung holds") for note in findings.notes)


def test_a_single_lung_is_measured_on_its_side(pipeline: LungDensityCT) -> None:
    phantom = make_phantom(PhantomSpec(**CHEST, **FLIPPED))
    phantom.voxels[phantom.truth.right_mask] = 30
    findings = _analyse(pipeline, volume_of(phantom))
    _is_true(findings, "lung_left", phantom.truth.left)
    assert "lung_right" not in [region.key for region in findings.regions]


def test_gas_in_the_stomach_is_no_lung(pipeline: LungDensityCT) -> None:
    phantom = make_phantom(PhantomSpec(**CHEST))
    index = np.indices(phantom.voxels.shape)
    gas = ((index[0] - 6) * 3.0) ** 2 + ((index[1] - 80) * 1.9) ** 2 + ((index[2] - 120) * 1.9) ** 2 <= 30**2
    phantom.voxels[gas & ~phantom.truth.left_mask] = -1000
    _all_true(_analyse(pipeline, volume_of(phantom)), phantom)


def test_a_table_against_the_back_is_no_lung(pipeline: LungDensityCT) -> None:
    phantom = make_phantom(PhantomSpec(**CHEST))
    rows = np.arange(192)
    back = int(np.flatnonzero((phantom.voxels[50, :, 96] > -200) & (rows < 160)).max())
    table = phantom.voxels[:, back + 2 : back + 16, 40:150]
    table[:] = -930
    table[:, [0, -1], :] = table[:, :, [0, -1]] = 0
    phantom.voxels[:, back : back + 2, 80:110] = 0  # one bridge of tissue to the shell
    _all_true(_analyse(pipeline, volume_of(phantom)), phantom)


def test_a_scan_that_ends_within_the_lungs_says_so(pipeline: LungDensityCT) -> None:
    phantom = make_phantom(PhantomSpec(**(CHEST | {"shape": (60, 192, 192)})))
    findings = _analyse(pipeline, volume_of(phantom))
    _all_true(findings, phantom)
    assert _answers(findings) == {"LUNGS-WHOLE": "No", "THIN-SLICES": "No", "ASYMMETRY": "No"}
    assert any("touches the edge" in note for note in findings.notes)


def test_no_trachea_is_said(pipeline: LungDensityCT) -> None:
    phantom = make_phantom(PhantomSpec(**CHEST))
    phantom.voxels[phantom.truth.airway_mask] = 40
    findings = _analyse(pipeline, volume_of(phantom))
    _all_true(findings, phantom)
    assert any("No trachea was found" in note for note in findings.notes)


@pytest.mark.parametrize("content", ["body", "air", "tissue"])
def test_no_lungs_is_refused(pipeline: LungDensityCT, content: str) -> None:
    phantom = make_phantom(PhantomSpec(**CHEST, lungs=False))
    if content != "body":
        phantom.voxels[:] = -1000 if content == "air" else 40
    with pytest.raises(Refused) as refused:
        _analyse(pipeline, volume_of(phantom))
    assert refused.value.code == "no-lungs"


def test_analyse_before_load_says_so() -> None:
    with pytest.raises(Unavailable, match="not loaded"):
        _analyse(LungDensityCT(), volume_of(make_phantom(PhantomSpec(shape=(4, 8, 8)))))


def test_codes_fit_their_elements(pipeline: LungDensityCT) -> None:
    """SH holds 16 characters, LO 64 (PS3.5 6.2)."""
    findings = _analyse(pipeline, volume_of(make_phantom(PhantomSpec(**CHEST))))
    codes = [code for e in findings.evaluations for code in (e.name, e.value)]
    for region in findings.regions:
        codes += [region.category, region.type, region.site, region.laterality or region.site]
        codes += [code for m in region.measurements for code in (m.name, m.unit, m.method, m.derivation) if code]
    assert all(len(c.value) <= 16 and len(c.scheme) <= 16 and len(c.meaning) <= 64 for c in codes)
