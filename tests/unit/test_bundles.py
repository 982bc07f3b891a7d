"""MONAI bundles in the shape of the zoo's run unedited, and what they find comes back where it is."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from node.domain.errors import InvalidModel, OutOfMemory, Refused, Unavailable
from node.domain.finding import Findings, Shape
from node.domain.volume import Volume
from pipelines.bundle import open_version, problems
from pipelines.contract import Pipeline
from tests.bundles import (
    GRIDS,
    INSIDE,
    OUTSIDE,
    SIDE,
    SPLEEN,
    dice,
    metadata,
    segmentation_config,
    threshold_network,
    volume,
    write_version,
)

# A bundle whose transforms only change intensities, as the tumour bundle of the zoo, has nothing to invert.
pytestmark = pytest.mark.filterwarnings("ignore:inverse has been called but no invertible transforms:UserWarning")


def run(directory: Path, *volumes: Volume, trust_code: bool = False) -> Findings:
    """What a version says of volumes, on the CPU."""
    assert problems(directory, trust_code=trust_code) == []
    pipeline = open_version(directory, trust_code=trust_code)
    pipeline.load("cpu")
    return pipeline.analyse(volumes[0], lambda name: None, *volumes[1:])


def only_mask(found: Findings) -> NDArray[np.bool_]:
    (region,) = found.regions
    return np.asarray(region.mask)


@pytest.mark.parametrize("as_yaml", [False, True], ids=["JSON", "YAML"])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_planted_mask_comes_back(grid: str, as_yaml: bool, tmp_path: Path) -> None:
    found, mask = volume(grid)
    directory = write_version(tmp_path / "version", segmentation_config(), as_yaml=as_yaml)
    findings = run(directory, found)
    assert dice(only_mask(findings), mask) >= 0.99
    (measured,) = findings.regions[0].measurements
    assert measured.key == "volume_ml"
    assert measured.value == pytest.approx(mask.sum() * found.voxel_ml, rel=0.01)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_bundle_that_inverts_nothing_comes_back_as_well(grid: str, tmp_path: Path) -> None:
    # What is discrete on the grid of the network is so on the source as well: the finer the former, the closer.
    config = segmentation_config(pixdim=[0.5, 0.5, 0.5])
    del config["postprocessing"]["transforms"][1]
    found, mask = volume(grid)
    assert dice(only_mask(run(write_version(tmp_path / "version", config), found)), mask) >= 0.99


def test_labels_that_a_bundle_interpolates_are_not_mixed(tmp_path: Path) -> None:
    # Discrete first and inverted by linear interpolation then, as a published bundle does: 3 beside 0 would leave 1, 2.
    config = segmentation_config(pixdim=[3.1, 3.1, 3.1])
    soft, invert, discrete, save = config["postprocessing"]["transforms"]
    triple = {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: 3 * x"}
    config["postprocessing"]["transforms"] = [soft, discrete, triple, invert, save]
    side = SIDE | {"labels": [SIDE["labels"][0] | {"label": 3}], "ignore": [0, 1]}
    found, mask = volume()
    assert dice(only_mask(run(write_version(tmp_path / "version", config, side=side), found)), mask) > 0.9


def test_transforms_behind_an_expression(tmp_path: Path) -> None:
    config = segmentation_config()
    config["image"] = "$monai.utils.CommonKeys.IMAGE"
    config["image_key"] = "@image"
    config["first"], config["second"] = (
        config["preprocessing"]["transforms"][:2],
        config["preprocessing"]["transforms"][2:],
    )
    config["preprocessing"]["transforms"] = "$@first + @second"
    found, mask = volume("oblique")
    assert dice(only_mask(run(write_version(tmp_path / "version", config), found)), mask) >= 0.99


def test_macros_and_relative_references(tmp_path: Path) -> None:
    config = segmentation_config(scale={"low": OUTSIDE, "high": "@#low_plus", "low_plus": INSIDE})
    config["preprocessing"]["transforms"][4] |= {"a_min": "%scale#low", "a_max": "@scale#high"}
    config["inferer"]["overlap"] = "%configs/more.json#overlap"
    directory = tmp_path / "version"
    write_version(directory, config)
    (directory / "bundle" / "configs" / "more.json").write_text('{"overlap": 0.5}')
    found, mask = volume()
    assert dice(only_mask(run(directory, found)), mask) >= 0.99


def test_overrides_of_the_side_file(tmp_path: Path) -> None:
    config = segmentation_config()
    config["preprocessing"]["transforms"][4]["a_max"] = 10_000
    side = SIDE | {"overrides": {"preprocessing#transforms#4#a_max": INSIDE}}
    found, mask = volume()
    assert dice(only_mask(run(write_version(tmp_path / "version", config, side=side), found)), mask) >= 0.99


def test_own_scripts(tmp_path: Path) -> None:
    source = "from monai.transforms import MapTransform\nclass Plus(MapTransform):\n    def __call__(self, data):\n"
    source += "        return {**data, **{key: data[key] + 100 for key in self.keys}}\n"
    config = segmentation_config()
    config["preprocessing"]["transforms"].insert(2, {"_target_": "scripts.plus.Plus", "keys": "@image_key"})
    found, mask = volume(inside=INSIDE - 100, outside=OUTSIDE - 100)
    directory = write_version(tmp_path / "version", config, scripts={"scripts/plus.py": source})
    assert dice(only_mask(run(directory, found, trust_code=True)), mask) >= 0.99


def _multichannel_config(channels: int) -> dict[str, Any]:
    """As the zoo's tumour bundle: several channels, no orientation, a sigmoid and a threshold."""
    config = segmentation_config()
    config["network_def"] |= {"in_channels": channels, "out_channels": 2}
    config["preprocessing"]["transforms"] = [
        {"_target_": "LoadImaged", "keys": "image", "image_only": False},
        {"_target_": "ScaleIntensityd", "keys": "image", "channel_wise": True},
    ]
    soft, _, discrete, _ = config["postprocessing"]["transforms"]
    soft.clear()
    soft |= {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    discrete.clear()
    discrete |= {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    return config


_TWO_CHANNELS = [
    {"channel": 0, "key": "either", "name": "Either", "type": SPLEEN},
    {"channel": 1, "key": "second", "name": "Second", "type": SPLEEN, "measure": ["volume_ml", "mean", "count"]},
]


def _multichannel(tmp_path: Path, **side: Any) -> Path:
    weight = torch.zeros(2, 2, 1, 1, 1)
    weight[0, :, 0, 0, 0] = 20.0
    weight[1, 1, 0, 0, 0] = 20.0
    weights = {"weight": weight, "bias": torch.tensor([-10.0, -10.0])}
    inputs = [{"modality": "MR", "description": "t1"}, {"modality": "MR", "description": "t2"}]
    return write_version(
        tmp_path / "version",
        _multichannel_config(2),
        side=SIDE | {"inputs": inputs, "labels": _TWO_CHANNELS, "ignore": []} | side,
        described=metadata({"0": "either", "1": "second"}, channels=2, modality="MR"),
        weights=weights,
    )


def test_several_series_become_channels_and_several_channels_regions(tmp_path: Path) -> None:
    first, mask = volume("sagittal")
    moved = np.roll(mask, 6, axis=1)
    second = replace(first, voxels=np.where(moved, 9.0, 1.0).astype(np.float32), series_uid="1.2.4")
    either, other = run(_multichannel(tmp_path), first, second).regions
    assert dice(either.mask, mask | moved) == 1.0
    assert dice(other.mask, moved) == 1.0
    assert [m.key for m in other.measurements] == ["volume_ml", "mean", "count"]
    assert other.measurements[2].value == 1


def test_several_image_keys_take_a_series_each(tmp_path: Path) -> None:
    """As the zoo's prostate and tumour bundles may have it: a key for each contrast, joined by a transform."""
    config = _multichannel_config(2)
    load, scale = config["preprocessing"]["transforms"]
    keys = ["t1", "t2"]
    first, *rest = segmentation_config()["preprocessing"]["transforms"][1:3]
    joined = {"_target_": "ConcatItemsd", "keys": keys, "name": "image", "dim": 0}
    steps = [step | {"keys": keys} for step in (load, first, *rest, scale)]
    config["preprocessing"]["transforms"] = [*steps, joined]
    weight = torch.zeros(2, 2, 1, 1, 1)
    weight[0, :, 0, 0, 0] = 20.0
    weight[1, 1, 0, 0, 0] = 20.0
    inputs = [{"modality": "MR", "description": contrast} for contrast in keys]
    directory = write_version(
        tmp_path / "version",
        config,
        side=SIDE | {"inputs": inputs, "labels": _TWO_CHANNELS, "ignore": []},
        described=metadata({"0": "either", "1": "second"}, channels=2, modality="MR"),
        weights={"weight": weight, "bias": torch.tensor([-10.0, -10.0])},
    )
    one, mask = volume("oblique")
    moved = np.roll(mask, 6, axis=1)
    two = replace(one, voxels=np.where(moved, 9.0, 1.0).astype(np.float32), series_uid="1.2.4")
    either, other = run(directory, one, two).regions
    assert dice(either.mask, mask | moved) == 1.0
    assert dice(other.mask, moved) == 1.0


def test_a_series_on_another_grid_is_resampled_where_the_side_file_says_so(tmp_path: Path) -> None:
    first, mask = volume("axial")
    other, _ = volume("coronal")
    affine = other.affine.copy()
    affine[2, 3] += 80.0  # its rows run down: from above the first to its foot
    other = replace(other, affine=affine)
    # The ellipsoid of the other grid lies elsewhere: it is planted again at the place of the first.
    index = np.stack(np.meshgrid(*map(np.arange, other.shape), indexing="ij"), axis=-1)
    inverse = np.linalg.inv(first.affine)
    place = other.to_patient(index.astype(float)) @ inverse[:3, :3].T + inverse[:3, 3]
    nearest = np.rint(place).astype(int)
    inside = ((nearest >= 0) & (nearest < first.shape)).all(axis=-1)
    planted = np.zeros(other.shape, bool)
    planted[inside] = mask[tuple(nearest[inside].T)]
    other = replace(other, voxels=planted.astype(np.float32), series_uid="1.2.4")
    (tmp_path / "no").mkdir()
    with pytest.raises(Refused, match="another grid"):
        run(_multichannel(tmp_path / "no"), first, other)
    either, second = run(_multichannel(tmp_path, resample=True), first, other).regions
    assert planted.sum() > 1000
    assert dice(either.mask, mask) >= 0.97
    assert dice(second.mask, mask & _reached(first, other)) >= 0.9
    with pytest.raises(Refused, match="frames of reference"):
        run(tmp_path / "version", first, replace(other, frame_of_reference_uid="1.9"))


def _reached(first: Volume, other: Volume) -> NDArray[np.bool_]:
    """The voxels of ``first`` that lie within ``other``."""
    index = np.stack(np.meshgrid(*map(np.arange, first.shape), indexing="ij"), axis=-1)
    inverse = np.linalg.inv(other.affine)
    place = first.to_patient(index.astype(float)) @ inverse[:3, :3].T + inverse[:3, 3]
    return np.asarray(((place >= 0) & (place <= np.array(other.shape) - 1)).all(axis=-1))


def test_axcodes_bring_the_image_into_the_orientation_of_training(tmp_path: Path) -> None:
    found, mask = volume("sagittal")
    config = segmentation_config()
    del config["preprocessing"]["transforms"][2:4]
    # Only what lies to the left of the middle survives: the first axis has to run from right to left.
    left = "$lambda x: x * (torch.arange(x.shape[1]) >= x.shape[1] // 2).reshape(1, -1, 1, 1)"
    config["preprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "image", "func": left})
    side = SIDE | {"axcodes": "LPS"}
    got = only_mask(run(write_version(tmp_path / "version", config, side=side), found))
    index = np.stack(np.meshgrid(*map(np.arange, found.shape), indexing="ij"), axis=-1)
    x = found.to_patient(index.astype(float))[..., 0]
    assert dice(got, mask & (x > np.median(x))) == 1.0


_SCRIPT = """
import torch
from monai.inferers import Inferer

class BallInferer(Inferer):
    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def __call__(self, inputs, network, *args, **kwargs):
        found = []
        for image in inputs:
            where = torch.nonzero(image[0] > 0.5).float()
            box = torch.cat([where.min(0).values, where.max(0).values])[None]
            boxes = torch.cat([box, box - 5])
            found.append({"box": boxes, "label": torch.tensor([0, 0]), "label_scores": torch.tensor([0.9, 0.1])})
        return found
"""


def _detection_config(**changes: Any) -> dict[str, Any]:
    """As the zoo's nodule detector: an inferer of its own around a detector, boxes to the world, no image saved."""
    config = segmentation_config(
        detector={"_target_": "torch.nn.Identity"},
        inferer={"_target_": "scripts.inferer.BallInferer", "detector": "@detector"},
    )
    del config["evaluator"]["postprocessing"]
    config["postprocessing"]["transforms"] = [
        {"_target_": "ClipBoxToImaged", "box_keys": "box", "label_keys": "label", "box_ref_image_keys": "image"},
        {
            "_target_": "AffineBoxToWorldCoordinated",
            "box_keys": "box",
            "box_ref_image_keys": "image",
            "affine_lps_to_ras": True,
        },
        {"_target_": "ConvertBoxModed", "box_keys": "box", "src_mode": "xyzxyz", "dst_mode": "cccwhd"},
        {"_target_": "DeleteItemsd", "keys": ["image"]},
    ]
    return config | changes


_DETECTION_SIDE = SIDE | {"labels": [{"label": 0, "key": "ball", "name": "Ball", "type": SPLEEN, "measure": []}]}


@pytest.mark.parametrize("grid", ["axial", "feet first, prone", "sagittal", "oblique", "anisotropic"])
def test_a_box_comes_back_around_what_it_was_drawn_around(grid: str, tmp_path: Path) -> None:
    found, mask = volume(grid)
    directory = write_version(
        tmp_path / "version",
        _detection_config(),
        side=_DETECTION_SIDE,
        described=metadata({}, type_="object"),
        scripts={"scripts/inferer.py": _SCRIPT},
    )
    (mark,) = run(directory, found, trust_code=True).marks
    assert (mark.key, mark.shape, round(mark.confidence or 0, 3)) == ("ball_1", Shape.BOX, 0.9)
    where = np.argwhere(mask)
    inside = ((where >= mark.points[0] - 0.5) & (where <= mark.points[1] + 0.5)).all(axis=1)
    assert inside.mean() >= 0.98
    if grid != "oblique":  # where the box is upright on both grids, it is the bounding box, to a voxel of either
        assert np.abs(where.min(0) - mark.points[0]).max() <= 2
        assert np.abs(where.max(0) - mark.points[1]).max() <= 2


_WINDOWED = """
from monai.inferers import SlidingWindowInferer
from torch.nn import Identity
from scripts.inferer import BallInferer

class Detector(Identity):
    def __init__(self):
        super().__init__()
        self.inferer = SlidingWindowInferer((8, 8, 8), sw_batch_size=4)
        self.tried = []

class Windowed(BallInferer):
    def __call__(self, inputs, network, *args, **kwargs):
        windows = self.detector.inferer.sw_batch_size
        self.detector.tried.append(windows)
        if windows > 1:
            raise RuntimeError("CUDA out of memory")
        if self.detector.tried != [4, 2, 1]:
            raise ValueError(str(self.detector.tried))
        return super().__call__(inputs, network)
"""


def test_a_detector_that_runs_out_of_memory_takes_fewer_windows_at_once(tmp_path: Path) -> None:
    found, mask = volume()
    directory = write_version(
        tmp_path / "version",
        _detection_config(
            detector={"_target_": "scripts.windowed.Detector"},
            inferer={"_target_": "scripts.windowed.Windowed", "detector": "@detector"},
        ),
        side=_DETECTION_SIDE,
        described=metadata({}, type_="object"),
        scripts={"scripts/__init__.py": "", "scripts/inferer.py": _SCRIPT, "scripts/windowed.py": _WINDOWED},
    )
    (mark,) = run(directory, found, trust_code=True).marks
    low, high = (np.argwhere(mask).min(axis=0) - 0.5, np.argwhere(mask).max(axis=0) + 0.5)
    assert (mark.points.min(axis=0) <= low + 1).all()
    assert (mark.points.max(axis=0) >= high - 1).all()


def test_a_detector_that_finds_nothing_says_so(tmp_path: Path) -> None:
    found, _ = volume()
    directory = write_version(
        tmp_path / "version",
        _detection_config(),
        side=_DETECTION_SIDE | {"min_score": 1.0},
        described=metadata({}, type_="object"),
        scripts={"scripts/inferer.py": _SCRIPT},
    )
    findings = run(directory, found, trust_code=True)
    assert findings.regions == findings.marks == ()
    assert "Nothing was found with a score of at least 1." in findings.notes


def _classification(tmp_path: Path, *, discrete: bool) -> Path:
    """As the zoo's classification template: a flat image, labels in the transforms that are not there."""
    after: list[dict[str, Any]] = [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]
    if discrete:
        both = ["pred", "label"]
        after.append({"_target_": "AsDiscreted", "keys": both, "argmax": [True, False], "to_onehot": 3})
    config = segmentation_config(
        network_def={
            "_target_": "torch.nn.Sequential",
            "_desc_": "mean brightness against two thresholds",
        },
        inferer={"_target_": "SimpleInferer"},
        postprocessing={"_target_": "Compose", "transforms": after},
    )
    config["network_def"] = (
        "$torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 3))"
    )
    del config["preprocessing"]["transforms"][2:4]
    weights = {"2.weight": torch.tensor([[0.0], [10.0], [30.0]]), "2.bias": torch.tensor([0.0, -1.0, -15.0])}
    names = ("dark", "grey", "bright")
    side = SIDE | {
        "question": ["BRIGHTNESS", "99AINODE", "Brightness"],
        "labels": [
            {"channel": n, "key": name, "name": name.title(), "type": [name.upper(), "99AINODE", name.title()]}
            for n, name in enumerate(names)
        ],
        "ignore": [],
    }
    described = metadata(
        {str(n): name for n, name in enumerate(names)}, spatial_dims=2, type_="probabilities", modality="DX"
    )
    return write_version(tmp_path / "version", config, side=side, described=described, weights=weights)


@pytest.mark.parametrize("discrete", [True, False], ids=["one-hot", "probabilities"])
def test_a_classification_is_an_evaluation(discrete: bool, tmp_path: Path) -> None:
    whole, _ = volume()
    voxels = np.full((1, *whole.shape[1:]), OUTSIDE + 0.4 * (INSIDE - OUTSIDE), np.float32)
    flat = replace(whole, voxels=voxels, sources=whole.sources[:1])
    findings = run(_classification(tmp_path, discrete=discrete), flat)
    (evaluation,) = findings.evaluations
    assert (evaluation.name.meaning, evaluation.value.meaning) == ("Brightness", "Grey")
    assert findings.regions == ()
    assert any("score" in note for note in findings.notes) is not discrete


def test_safetensors_come_first(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    found, mask = volume()
    directory = write_version(tmp_path / "version", segmentation_config(), weights=b"no checkpoint at all")
    save_file(threshold_network()[1], directory / "bundle" / "models" / "model.safetensors")
    assert dice(only_mask(run(directory, found)), mask) >= 0.99


def test_torchscript_is_code(tmp_path: Path) -> None:
    config = segmentation_config()
    config["handlers"][0]["load_path"] = "$@bundle_root + '/models/model.ts'"
    directory = write_version(tmp_path / "version", config)
    script = directory / "bundle" / "models" / "model.ts"
    script.write_bytes(b"")
    assert problems(directory) == [
        "bundle/configs/inference.json: load_path: is TorchScript, which is code. Override the load_path with a .pt or "
        ".safetensors file, or trust its code (--trust-code)"
    ]
    with pytest.raises(InvalidModel, match=r"bundle/models/model.ts: is TorchScript"):
        open_version(directory, trust_code=False).load("cpu")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"weight": torch.zeros(2, 1, 1, 1, 1)}, r"bundle/models/model.pt: does not fit the network: .*bias"),
        (b"not a checkpoint", r"bundle/models/model.pt: "),
    ],
    ids=["another network", "no checkpoint"],
)
def test_weights_that_do_not_fit_are_told(weights: Any, said: str, tmp_path: Path) -> None:
    directory = write_version(tmp_path / "version", segmentation_config(), weights=weights)
    with pytest.raises(InvalidModel, match=said):
        open_version(directory, trust_code=False).load("cpu")


def test_arguments_that_do_not_fit_are_told_by_key(tmp_path: Path) -> None:
    network = threshold_network()[0] | {"channels": 3}
    directory = write_version(tmp_path / "version", segmentation_config(network_def=network))
    with pytest.raises(InvalidModel, match=r"inference.json: network: cannot be built: .*channels"):
        open_version(directory, trust_code=False).load("cpu")


def test_fractions_need_a_threshold(tmp_path: Path) -> None:
    config = segmentation_config()
    del config["postprocessing"]["transforms"][2]
    found, mask = volume()
    labels = [{"channel": 1, "key": "ball", "name": "Ball", "type": SPLEEN}]
    directory = write_version(tmp_path / "a", config, side=SIDE | {"labels": labels})
    with pytest.raises(InvalidModel, match=r"ainode.yaml: threshold: .*fractions"):
        run(directory, found)
    directory = write_version(tmp_path / "b", config, side=SIDE | {"labels": labels, "threshold": 0.5})
    assert dice(only_mask(run(directory, found)), mask) >= 0.99


def test_what_has_no_meaning_is_not_reported(tmp_path: Path) -> None:
    found, _ = volume()
    side = SIDE | {"labels": [SIDE["labels"][0] | {"label": 7}], "ignore": [0]}
    described = metadata({})
    directory = write_version(tmp_path / "a", segmentation_config(), side=side, described=described)
    with pytest.raises(InvalidModel, match=r"ainode.yaml: labels: the network gave 1"):
        run(directory, found)
    directory = write_version(tmp_path / "b", segmentation_config(), side=side | {"ignore": [0, 1]})
    findings = run(directory, found)
    assert findings.regions == ()
    assert findings.notes == ("Not found: Ball.",)


def test_a_generic_label_says_that_it_is_one(tmp_path: Path) -> None:
    found, mask = volume()
    side = SIDE | {"labels": [SIDE["labels"][0] | {"label": 7}], "unlisted": "generic"}
    findings = run(write_version(tmp_path / "version", segmentation_config(), side=side), found)
    (region,) = findings.regions
    assert (region.label, region.type.scheme, region.site.scheme) == ("ball (not coded)", "99AINODE", "SCT")
    assert dice(region.mask, mask) >= 0.99


def test_too_little_memory_is_an_error_that_is_tried_again(tmp_path: Path) -> None:
    config = segmentation_config()
    # A thousand million million voxels: no host has them.
    config["preprocessing"]["transforms"].insert(
        2, {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [100_000] * 3}
    )
    pipeline = open_version(write_version(tmp_path / "version", config), trust_code=False)
    pipeline.load("cpu")
    with pytest.raises(OutOfMemory, match=r"volume of \(40, 60, 64\) on cpu"):
        pipeline.analyse(volume()[0], lambda name: None)


def test_a_version_is_known_without_torch_and_is_a_pipeline(tmp_path: Path) -> None:
    directory = write_version(tmp_path / "version", segmentation_config())
    assert isinstance(open_version(directory, trust_code=False), Pipeline)
    program = (
        "import sys; from pathlib import Path; from pipelines.bundle import open_version, problems;"
        f"directory = Path({str(directory)!r}); assert problems(directory) == [];"
        "print(open_version(directory, trust_code=False).model.label);"
        "assert not {'torch', 'monai'} & set(sys.modules), 'torch was imported'"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("ball@1.0 (")


def test_analysing_before_loading_is_told(tmp_path: Path) -> None:
    pipeline = open_version(write_version(tmp_path / "version", segmentation_config()), trust_code=False)
    with pytest.raises(Unavailable, match="not loaded"):
        pipeline.analyse(volume()[0], lambda name: None)


def test_the_configuration_is_left_as_it_was(tmp_path: Path) -> None:
    from pipelines.bundle.config import parts

    config = segmentation_config()
    before = copy.deepcopy(config)
    parts(config, "bundle/configs/inference.json", trust_code=False)
    assert config == before
