"""A trained network as a bundle on a real series: the tissue that it finds lies where the tissue is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.bundle import open_version, problems
from tests.bundles import SIDE, write_version
from tests.meshnet import config_of, described, network_of, volume_of

_MEASURE = ["volume_ml", "mean"]
_LABELS = [
    {
        "label": 1,
        "key": "white",
        "name": "White matter",
        "type": [68523003, "SCT", "White matter"],
        "measure": _MEASURE,
    },
    {"label": 2, "key": "grey", "name": "Grey matter", "type": [25991003, "SCT", "Gray matter"], "measure": _MEASURE},
]


@pytest.mark.slow
def test_tissue_of_a_brain(shared_data: Path, tmp_path: Path) -> None:
    brain = volume_of(shared_data / "mr-brain" / "sag-anon-mprage-192")
    network, weights = network_of(shared_data / "weights" / "brainchop-meshnet" / "model5_gw_ae")
    directory = write_version(
        tmp_path / "version",
        config_of(network, "PIR"),
        side=SIDE | {"labels": _LABELS, "inputs": [{"modality": "MR", "orientation": "sagittal"}]},
        described=described(),
        weights=weights,
    )
    assert problems(directory) == []
    pipeline = open_version(directory, trust_code=False)
    pipeline.load("cpu")
    regions = {region.key: region for region in pipeline.analyse(brain, lambda name: None).regions}
    value = {key: {m.key: m.value for m in region.measurements} for key, region in regions.items()}
    # What adults have, widely.
    assert 300 < value["white"]["volume_ml"] < 700
    assert 600 < value["grey"]["volume_ml"] < 1000
    # In a T1-weighted image white matter is brighter than grey, and both than the rest of the head on the whole.
    outside = brain.voxels[~(np.asarray(regions["white"].mask) | np.asarray(regions["grey"].mask))].mean()
    assert value["white"]["mean"] > 1.2 * value["grey"]["mean"] > 1.2 * float(outside)
