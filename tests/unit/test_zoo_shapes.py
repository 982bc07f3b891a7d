"""What published bundles do beside the plain way, each in the smallest bundle that does it: it runs unedited."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from node.domain.errors import InvalidModel, Unavailable
from pipelines.bundle import problems
from pipelines.bundle.checkpoint import read_tensors
from pipelines.bundle.metadata import data_format
from pipelines.bundle.older import in_todays_words
from pipelines.bundle.sidefile import Kind
from tests.bundles import (
    SIDE,
    dice,
    metadata,
    planar_config,
    segmentation_config,
    volume,
    write_planar_version,
    write_version,
)
from tests.radiographs import radiograph
from tests.unit.test_bundles import only_mask, run
from tests.unit.test_planar_bundles import bright
from tests.unit.test_planar_bundles import run as run_planar

pytestmark = pytest.mark.filterwarnings("ignore:inverse has been called but no invertible transforms:UserWarning")


def test_a_searched_architecture_comes_from_a_file_of_arrays_saved_on_a_gpu(tmp_path: Path) -> None:
    config = segmentation_config(
        found="$torch.load(@bundle_root + '/models/search.pt', map_location=torch.device('cuda'))",
        space='$torch.zeros(1, device=torch.device("cuda:0"))',
        node="$torch.from_numpy(@found['node'])",
    )
    config["network_def"] |= {"in_channels": "$int(@node[0] + @space[0])", "out_channels": "$int(@found['out'][1])"}
    directory = write_version(tmp_path / "version", config)
    arrays = {"node": np.ones(1), "out": np.array([1, 2], np.int32)}
    torch.save(arrays, directory / "bundle" / "models" / "search.pt")
    found, mask = volume()
    assert dice(only_mask(run(directory, found)), mask) >= 0.99


def test_arrays_of_an_older_numpy_are_read_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "arrays.pt"
    torch.save({"codes": np.arange(6.0)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert b"numpy.core." in file.read_bytes()
    assert read_tensors(file)["codes"].tolist() == [0, 1, 2, 3, 4, 5]
    # An array of objects would bring whatever its elements call.
    torch.save({"codes": np.array([Path("a")], object)}, file)
    with pytest.raises(InvalidModel, match="holds more than weights, and was not loaded"):
        read_tensors(file)
    # What is let pass for these files is so for them alone.
    torch.save({"codes": np.arange(6.0)}, file)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)


_MERGE = """
import numpy as np
from monai.transforms import InvertibleTransform, MapTransform

class Together(MapTransform, InvertibleTransform):
    def __init__(self, keys, name):
        super().__init__(keys)
        self.name = name

    def __call__(self, data):
        data[self.name] = np.concatenate([data[key] for key in self.keys])
        data[self.name + "_meta_dict"] = data[self.keys[0] + "_meta_dict"]
        return data

    def inverse(self, data):
        return data
"""


def _phases(**changes: Any) -> dict[str, Any]:
    """As the zoo's bundle of three contrast phases: a key for each, joined as arrays, inverted by the first of them."""
    config = segmentation_config()
    load, first, turn, space, scale, typed = config["preprocessing"]["transforms"]
    keys = ["early", "late"]
    load |= {"keys": [*keys, "label"], "image_only": False}
    joined = {"_target_": "scripts.merge.Together", "keys": keys, "name": "image"}
    each = [step | {"keys": keys} for step in (first, turn, space)]
    config["preprocessing"]["transforms"] = [load, *each, joined, scale, typed]
    config["network_def"] |= {"in_channels": 2}
    config["postprocessing"]["transforms"][1]["orig_keys"] = "early"
    return config | changes


_BOTH = {"weight": torch.tensor([[0.0, 0.0], [20.0, 20.0]])[..., None, None, None], "bias": torch.tensor([0.0, -20.0])}
_TWO = SIDE | {"inputs": [{"modality": "CT"}, {"modality": "CT"}]}


def test_series_that_are_joined_as_arrays_come_back_by_the_first_of_them(tmp_path: Path) -> None:
    first, mask = volume("anisotropic")
    directory = write_version(
        tmp_path / "version", _phases(), side=_TWO, weights=_BOTH, scripts={"scripts/merge.py": _MERGE}
    )
    assert dice(only_mask(run(directory, first, first, trust_code=True)), mask) >= 0.99


def test_a_result_that_could_not_be_inverted_is_not_put_anywhere(tmp_path: Path) -> None:
    config = _phases()
    config["postprocessing"]["transforms"][1]["orig_keys"] = "other"
    found, _ = volume()
    directory = write_version(
        tmp_path / "version", config, side=_TWO, weights=_BOTH, scripts={"scripts/merge.py": _MERGE}
    )
    with pytest.raises(InvalidModel, match="postprocessing: inverts what was done to 'other': not there"):
        run(directory, found, found, trust_code=True)


@pytest.mark.parametrize("old", ["AddChanneld", "monai.transforms.AddChannelDict"])
def test_transforms_by_the_names_that_they_had(old: str, tmp_path: Path) -> None:
    config = segmentation_config()
    config["preprocessing"]["transforms"][1] = {"_target_": old, "keys": "image"}
    config["preprocessing"]["transforms"][3]["meta_key_postfix"] = "meta_dict"
    found, mask = volume("oblique")
    assert dice(only_mask(run(write_version(tmp_path / "version", config), found)), mask) >= 0.99


def test_names_and_arguments_that_went() -> None:
    assert in_todays_words({"_target_": "AsChannelFirst", "channel_dim": 0}) == {
        "_target_": "EnsureChannelFirst",
        "channel_dim": 0,
    }
    swin = {"_target_": "monai.networks.nets.SwinUNETR", "img_size": 96, "in_channels": 1}
    assert in_todays_words(swin) == {"_target_": "monai.networks.nets.SwinUNETR", "in_channels": 1}
    own = {"_target_": "scripts.nets.SwinUNETR", "img_size": 96}
    assert in_todays_words(own) is own


_LAZY = """
import torch
from monai.utils import optional_import

rearrange, _ = optional_import("package_that_is_not_there", name="rearrange")

class Lazy(torch.nn.Conv3d):
    def forward(self, x):
        return rearrange(super().forward(x))
"""


def test_a_package_that_is_missed_in_the_network_is_named(tmp_path: Path) -> None:
    config = segmentation_config()
    config["network_def"]["_target_"] = "scripts.lazy.Lazy"
    found, _ = volume()
    directory = write_version(tmp_path / "version", config, scripts={"scripts/lazy.py": _LAZY})
    with pytest.raises(Unavailable, match=r"network: needs what is not installed: .*package_that_is_not_there"):
        run(directory, found, trust_code=True)


def test_a_package_that_is_missed_in_a_script_is_named(tmp_path: Path) -> None:
    config = segmentation_config()
    config["network_def"]["_target_"] = "scripts.eager.Eager"
    found, _ = volume()
    scripts = {"scripts/eager.py": "from package_that_is_not_there import rearrange"}
    directory = write_version(tmp_path / "version", config, scripts=scripts)
    with pytest.raises(Unavailable, match=r"network: needs what is not installed: .*package_that_is_not_there"):
        run(directory, found, trust_code=True)


@pytest.mark.parametrize("axis", [None, 2, -1])
def test_a_grey_image_is_all_channels_of_a_network_of_colours(axis: int | None, tmp_path: Path) -> None:
    config = planar_config()
    if axis is not None:
        config["preprocessing"]["transforms"][1]["channel_dim"] = axis
    config["network_def"] |= {"in_channels": 3}
    weight = torch.tensor([[0.0] * 3, [20 / 3] * 3])[..., None, None]
    described = metadata({"0": "background", "1": "bright"}, channels=3, spatial_dims=2, modality="DX")
    pixels, mask = bright()
    version = write_planar_version(
        tmp_path / "version", config, weights={"weight": weight, "bias": torch.tensor([0.0, -10])}, described=described
    )
    (region,) = run_planar(version, radiograph(tmp_path / "a", pixels)).regions
    assert np.array_equal(region.mask[0], mask)


def test_several_series_where_the_bundle_says_its_files_have_their_channels(tmp_path: Path) -> None:
    config = segmentation_config()
    config["preprocessing"]["transforms"][1]["channel_dim"] = -1
    config["network_def"] |= {"in_channels": 2}
    found, mask = volume("sagittal")
    directory = write_version(
        tmp_path / "version",
        config,
        side=_TWO,
        weights=_BOTH,
        described=metadata({"0": "background", "1": "ball"}, channels=2),
    )
    assert dice(only_mask(run(directory, found, found)), mask) >= 0.99


def test_a_key_that_only_the_loader_is_told(tmp_path: Path) -> None:
    config = segmentation_config(loaded_key="image")
    config["preprocessing"]["transforms"][0]["keys"] = "@loaded_key"
    found, mask = volume()
    assert dice(only_mask(run(write_version(tmp_path / "version", config), found)), mask) >= 0.99


def test_a_bundle_that_loads_files_without_dictionaries_is_told(tmp_path: Path) -> None:
    config = segmentation_config()
    config["preprocessing"]["transforms"][0] = {"_target_": "LoadImage", "image_only": "true"}
    (problem,) = problems(write_version(tmp_path / "version", config))
    assert "preprocessing: loads a file by itself, not the entry of a dictionary" in problem


def test_points_are_no_kind_that_is_reported(tmp_path: Path) -> None:
    described = metadata({"0": "Y", "1": "X"}, spatial_dims=2, type_="tuples", modality="MR")
    (problem,) = problems(write_version(tmp_path / "version", segmentation_config(), described=described))
    assert problem.startswith("ainode.yaml: kind: is missing, and metadata.json names a result that is none of those")


def test_one_number_for_each_class_is_a_classification() -> None:
    described = metadata({str(n): name for n, name in enumerate("ABCD")})
    described["network_data_format"]["outputs"]["pred"] |= {
        "format": "labels",
        "num_channels": 4,
        "spatial_shape": [1, 4],
    }
    assert data_format(described).kind is Kind.CLASSIFICATION


def test_a_result_that_is_no_image_is_no_segmentation(tmp_path: Path) -> None:
    config = segmentation_config(inferer={"_target_": "SimpleInferer"})
    config["network_def"] = (
        "$torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2))"
    )
    del config["postprocessing"]["transforms"][1:]
    found, _ = volume()
    weights = {"2.weight": torch.zeros(2, 1), "2.bias": torch.zeros(2)}
    directory = write_version(tmp_path / "version", config, weights=weights)
    with pytest.raises(InvalidModel, match=r"kind: is segmentation, and the result is \(2,\): no image"):
        run(directory, found)


def test_meanings_under_their_other_name(tmp_path: Path) -> None:
    described = metadata({})
    described["network_data_format"]["outputs"]["pred"] |= {"channel_def": None, "label_def": {"0": "-", "2": "liver"}}
    (problem,) = problems(write_version(tmp_path / "version", segmentation_config(), described=described))
    assert problem.startswith("ainode.yaml: labels: metadata.json names output 2 'liver', which has no entry")
