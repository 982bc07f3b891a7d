"""A model file is code: what a bundle may not do is refused by file and key, and nothing of it runs."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from node.domain.errors import InvalidModel
from pipelines.bundle import open_version, problems
from pipelines.bundle.safety import examine
from tests.bundles import segmentation_config, threshold_network, write_version

MARK = "the code of this bundle has run"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that every attack here would create."""
    return tmp_path / "ran"


def refused(directory: Path) -> str:
    """What ``load`` says of a version that nobody vouches for, once ``problems`` has found it too."""
    pipeline = open_version(directory, trust_code=False)
    with pytest.raises(InvalidModel) as caught:
        pipeline.load("cpu")
    return str(caught.value)


ATTACKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "os.system as a target": lambda mark: {"network_def": {"_target_": "os.system", "command": f"touch {mark}"}},
    "eval as a target": lambda mark: {"network_def": {"_target_": "builtins.eval", "source": f"open({mark!r}, 'w')"}},
    "a bare built-in as a target": lambda mark: {"network_def": {"_target_": "open", "file": mark, "mode": "w"}},
    "MONAI's own subprocess": lambda mark: {"network_def": {"_target_": "run_cmd", "cmd_list": ["touch", mark]}},
    "a function behind a transform module": lambda mark: {
        "network_def": {"_target_": "monai.transforms.utils.optional_import", "module": "os"}
    },
    "a module within a module": lambda mark: {
        "network_def": {"_target_": "monai.transforms.utils.os.system", "command": f"touch {mark}"}
    },
    "a target by reference": lambda mark: {
        "name": "os.system",
        "network_def": {"_target_": "@name", "command": "true"},
    },
    "a target by expression": lambda mark: {
        "network_def": {"_target_": "$'os' + '.system'", "command": f"touch {mark}"}
    },
    "a debugger": lambda mark: {"network_def": threshold_network()[0] | {"_mode_": "debug"}},
    "__import__": lambda mark: {"network_def": f"$__import__('os').system('touch {mark}')"},
    "open": lambda mark: {"pixdim": f"$open({mark!r}, 'w')"},
    "os.system in an expression": lambda mark: {"pixdim": f"$os.system('touch {mark}')"},
    "a function imported by name": lambda mark: {
        "imports": ["$from os import system as glob"],
        "pixdim": f"$glob('touch {mark}')",
    },
    "an import elsewhere": lambda mark: {"pixdim": "$import subprocess"},
    "a module by reference": lambda mark: {"imports": ["$import os"], "pixdim": f"$@imports#0.system('touch {mark}')"},
    "a module as a value": lambda mark: {"pixdim": "$torch.utils"},
    "torch.hub": lambda mark: {"network_def": "$torch.hub.load('a/b', 'c')"},
    "TorchScript": lambda mark: {"network_def": "$torch.jit.load(@bundle_root + '/models/model.ts')"},
    "unpickling": lambda mark: {"pixdim": "$torch.load(@bundle_root + '/models/model.pt', weights_only=False)"},
    "unpickling by a second name": lambda mark: {"pixdim": "$list(map(torch.load, ['x']))"},
    "unpickling as a target": lambda mark: {"pixdim": {"_target_": "torch.load", "f": "x", "weights_only": False}},
    "numpy's unpickling": lambda mark: {"pixdim": "$np.load('x', allow_pickle=True)"},
    "writing by an array": lambda mark: {"pixdim": f"$np.array([1]).tofile({mark!r})"},
    "the frame of a generator": lambda mark: {"pixdim": "$(x for x in [1]).gi_frame.f_back"},
    "the class of a value": lambda mark: {"pixdim": "$(1).__class__.__base__.__subclasses__()"},
    "attributes by formatting": lambda mark: {"pixdim": "$'{0.__class__}'.format(1)"},
    "a shadowed name": lambda mark: {"pixdim": f"$[os.system('touch {mark}') for os in [@bundle_root]]"},
    "quotes around a reference": lambda mark: {"pixdim": f"$'@image_key' or os.system('touch {mark}') or '@image_key'"},
    "a lambda": lambda mark: {"pixdim": f"$(lambda f: f('touch {mark}'))(os.system)"},
    "its own scripts": lambda mark: {"network_def": {"_target_": "scripts.net.Net"}},
    "a macro out of the bundle": lambda mark: {"pixdim": "%../../../secret.json#key"},
    "a macro in a macro": lambda mark: {"first": "%second", "second": "%third", "third": 1, "pixdim": "@first"},
    "code on import of a loss": lambda mark: {"pixdim": {"_target_": "PerceptualLoss", "spatial_dims": 2}},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_configuration_may_not_do_is_refused_and_does_not_run(attack: str, tmp_path: Path, mark: Path) -> None:
    config = segmentation_config(**ATTACKS[attack](str(mark)))
    scripts = {"scripts/__init__.py": "", "scripts/net.py": f"open({str(mark)!r}, 'w')"}
    directory = write_version(tmp_path / "version", config, scripts=scripts)
    said = refused(directory)
    assert said.startswith(("bundle/configs/inference.json: ", "secret.json", "bundle/../../../secret.json")), said
    assert not mark.exists()


# Whether a bare name is MONAI's, and where what a module holds was defined, only MONAI can tell.
ONLY_WITH_MONAI = ("MONAI's own subprocess", "code on import of a loss", "a function behind a transform module")


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name not in ONLY_WITH_MONAI])
def test_most_of_it_is_told_before_anything_is_imported(attack: str, tmp_path: Path, mark: Path) -> None:
    directory = write_version(tmp_path / "version", segmentation_config(**ATTACKS[attack](str(mark))))
    assert problems(directory)


def test_what_is_not_evaluated_is_not_asked(tmp_path: Path) -> None:
    config = segmentation_config(datalist="$open('/data/list.json').read()", run=["$__import__('os').system('true')"])
    directory = write_version(tmp_path / "version", config)
    assert problems(directory) == []
    open_version(directory, trust_code=False).load("cpu")


class _Bomb:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("whole", [True, False], ids=["a bare pickle", "within a checkpoint"])
@pytest.mark.parametrize("trust_code", [False, True], ids=["untrusted", "trusted"])
def test_a_pickle_in_the_weights_is_refused_and_does_not_run(
    whole: bool, trust_code: bool, tmp_path: Path, mark: Path
) -> None:
    bomb = _Bomb(mark)
    content = pickle.dumps(bomb, protocol=2)
    if not whole:
        buffer = io.BytesIO()
        torch.save({"model": threshold_network()[1], "history": bomb}, buffer)
        content = buffer.getvalue()
    directory = write_version(tmp_path / "version", segmentation_config(), weights=content)
    pipeline = open_version(directory, trust_code=trust_code)
    with pytest.raises(InvalidModel, match=r"bundle/models/model.pt: .*(holds more than weights|cannot be read)"):
        pipeline.load("cpu")
    assert not mark.exists()
    with suppress(RuntimeError):  # a bare pickle is no checkpoint, which torch sees too late
        torch.load(io.BytesIO(content), weights_only=False)
    assert mark.exists(), "the bomb is a dud"


@pytest.mark.parametrize(
    "expression",
    [
        "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "$@network_def.to(@device)",
        "$list(sorted(glob.glob(os.path.join(@dir, '*.nii.gz'))))",
        "$[{'image': i} for i in @list]",
        "$[1.5, 1.5, 1.5] if @options#highres else [3.0, 3.0, 3.0]",
        "$@bundle_root + '/models/' + @name",
        "$len(@labels) + @channels",
        "$monai.utils.CommonKeys.IMAGE",
        "$monai.data.utils.no_collation",
        "$monai.networks.nets.resnet.resnet50(spatial_dims=3,n_input_channels=1,conv1_t_stride=[2,2,1])",
        "$monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor(@net,3,False,[1,2],None)",
        "$@detector.set_box_selector_parameters(score_thresh=0.02,nms_thresh=0.22,detections_per_img=300)",
        "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))",
        "$torch.load(@path, map_location=torch.device('cpu'))",
        "$@first + @second",
        "$not @raw",
        "$None",
        "$np.float32",
        '$f"{@bundle_root}/models"',
    ],
)
def test_what_published_bundles_say_is_allowed(expression: str) -> None:
    config = {"imports": ["$import glob", "$import os"], "key": expression}
    assert examine(config, "inference.json").problems == []


def test_a_refusal_names_file_key_and_fix() -> None:
    found = examine({"a": {"b": ["$os.system('x')"]}, "imports": ["$import os"]}, "bundle/configs/inference.json")
    assert [problem.field for problem in found.problems] == ["bundle/configs/inference.json: a::b::0"]
    assert "os.system is not on the list" in found.problems[0].problem
    assert "ainode.yaml" in found.problems[0].fix


def test_own_code_runs_where_it_is_trusted(tmp_path: Path, mark: Path) -> None:
    source = f"import torch\nopen({str(mark)!r}, 'w').close()\nclass Net(torch.nn.Conv3d):\n    pass\n"
    network = threshold_network()[0] | {"_target_": "scripts.net.Net"}
    scripts = {"scripts/__init__.py": "", "scripts/net.py": source}
    directory = write_version(tmp_path / "version", segmentation_config(network_def=network), scripts=scripts)
    assert problems(directory) != []
    assert problems(directory, trust_code=True) == []
    open_version(directory, trust_code=True).load("cpu")
    assert mark.exists()
    assert not list(directory.rglob("*.pyc"))


def test_two_bundles_with_scripts_of_one_name_do_not_meet(tmp_path: Path) -> None:
    import sys

    for name, bias in (("one", 1.0), ("two", 2.0)):
        source = f"import torch\nclass Net(torch.nn.Conv3d):\n    bundle = {bias}\n"
        network = threshold_network()[0] | {"_target_": "scripts.net.Net"}
        scripts = {"scripts/__init__.py": "", "scripts/net.py": source}
        directory = write_version(tmp_path / name, segmentation_config(network_def=network), scripts=scripts)
        pipeline: Any = open_version(directory, trust_code=True)
        pipeline.load("cpu")
        assert pipeline._engine._runner.network.bundle == bias
    assert not [name for name in sys.modules if name.split(".")[0] == "scripts"]
    assert not [path for path in sys.path if str(tmp_path) in path]
