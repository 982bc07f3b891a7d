"""``ainode.yaml``: each mistake is told by its key with what mends it, and it chooses the series."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom.dataset import Dataset

from node.domain.errors import InvalidModel, Refused
from node.domain.finding import Code
from node.domain.study import StudyContent
from pipelines.bundle import problems
from pipelines.bundle.select import select
from pipelines.bundle.sidefile import SeriesRule, read_side_file
from pipelines.phantom import SeriesOptions
from tests.builders import change, study_of, tiny_series
from tests.bundles import SIDE, SPLEEN, metadata, segmentation_config, write_version

LABEL = SIDE["labels"][0]


def read(folder: Path, **changes: Any) -> Any:
    (folder / "ainode.yaml").write_text(yaml.safe_dump(SIDE | changes))
    return read_side_file(folder)


def test_a_side_file_is_read(tmp_path: Path) -> None:
    side = read(tmp_path, labels=[LABEL | {"laterality": [7771000, "SCT", "Left"], "colour": [1, 2, 3]}])
    assert side.labels[0].type == Code("78961009", "SCT", "Spleen")
    assert side.labels[0].laterality == Code("7771000", "SCT", "Left")


def test_the_examples_of_the_guide_hold(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "bundles.md").read_text()
    first, *others = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "ainode.yaml").write_text(first)
    assert read_side_file(tmp_path).title == "Spleen CT"
    for other in others:
        read(tmp_path, **yaml.safe_load(other))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"titel": "Ball"}, "titel: unknown key"),
        ({"title": ""}, "title: String should have at least 1 character"),
        ({"procedure": [1, "LN", "Something"]}, r"procedure: 1 is not in CID 100; write for instance \[25045-6"),
        ({"procedure": "CT"}, r"procedure: is no code; write \[value, scheme, meaning\]"),
        ({"inputs": []}, "inputs: Tuple should have at least 1 item"),
        ({"inputs": [{}]}, r"inputs\[0\].modality: is missing; add it"),
        (
            {"inputs": [{"modality": "CT", "description": "("}]},
            r"inputs\[0\].description\[0\]: is no regular expression",
        ),
        ({"inputs": [{"modality": "CT", "orientation": "odd"}]}, r"inputs\[0\].orientation: 'odd' .* 'axial'"),
        ({"labels": [LABEL | {"type": [1, 2]}]}, r"labels\[0\].type: is no code"),
        ({"labels": [LABEL | {"channel": 1}]}, r"labels\[0\]: has neither or both of label and channel"),
        ({"labels": [LABEL, LABEL]}, "labels have the key 'ball' twice"),
        ({"labels": [LABEL, {"channel": 2, "key": "b", "name": "B", "type": SPLEEN}]}, "labels mix label and channel"),
        ({"labels": [LABEL | {"key": "The Ball"}]}, r"labels\[0\].key: String should match pattern"),
        ({"labels": [LABEL | {"measure": ["weight"]}]}, r"labels\[0\].measure\[0\]: 'weight' .* 'volume_ml'"),
        ({"axcodes": "LPX"}, "axcodes: is no orientation; write three letters"),
        ({"axcodes": "LLS"}, "axcodes: is no orientation"),
        ({"qualification": "CE"}, "qualification: 'CE' is not known here; write one of 'RESEARCH'"),
        ({"window": [40, 0]}, r"window\[1\]: Input should be greater than 0"),
    ],
)
def test_a_mistake_is_told_by_its_key(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=rf"^ainode.yaml: {said}"):
        read(tmp_path, **changes)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"title: .*; window\[1\]: .*; colour: unknown key"):
        read(tmp_path, title="", window=[1, -1], colour="red")


@pytest.mark.parametrize("text", ["title: [", "- a\n- b\n", ""])
def test_what_is_no_side_file_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "ainode.yaml").write_text(text)
    with pytest.raises(InvalidModel, match=r"^ainode.yaml: "):
        read_side_file(tmp_path)


def test_problems_name_file_and_key(tmp_path: Path) -> None:
    described = metadata({"0": "background", "1": "ball", "2": "box"}, channels=2)
    config = segmentation_config(network_def={"_target_": "os.system"}, pixdim="$open('x')")
    directory = write_version(
        tmp_path / "version", config, side=SIDE | {"inputs": SIDE["inputs"] * 3}, described=described
    )
    (directory / "bundle" / "models" / "model.pt").unlink()
    fields = [problem.split(": ")[:2] for problem in problems(directory)]
    assert fields == [
        ["ainode.yaml", "inputs"],
        ["ainode.yaml", "labels"],
        ["bundle/configs/inference.json", "pixdim"],
        ["bundle/configs/inference.json", "network_def::_target_"],
        ["bundle/models", "holds no weights. Add the weights to bundle/models, as .pt, .pth, .safetensors"],
    ]
    assert "metadata.json names output 2 'box', which has no entry" in problems(directory)[1]


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        ("bundle", "bundle: is missing"),
        ("ainode.yaml", "ainode.yaml: cannot be read"),
        ("bundle/configs/metadata.json", "bundle/configs/metadata.json: cannot be read"),
        ("bundle/configs/inference.json", "bundle/configs: holds no inference configuration"),
    ],
)
def test_what_is_missing_is_a_problem(remove: str, said: str, tmp_path: Path) -> None:
    directory = write_version(tmp_path / "version", segmentation_config())
    path = directory / remove
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert [problem[: len(said)] for problem in problems(directory)] == [said]


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_broken_configuration_is_a_problem(text: str, tmp_path: Path) -> None:
    directory = write_version(tmp_path / "version", segmentation_config())
    (directory / "bundle" / "configs" / "inference.json").write_text(text)
    (problem,) = problems(directory)
    assert problem.startswith("bundle/configs/inference.json: ")


@pytest.mark.parametrize("key", ["network_def", "preprocessing"])
def test_a_configuration_without_a_needed_key_is_a_problem(key: str, tmp_path: Path) -> None:
    config = segmentation_config()
    del config[key]
    if key == "network_def":
        del config["network"], config["evaluator"]["network"]
    else:
        config["dataset"] = {}
        config["postprocessing"] = {"_target_": "Compose", "transforms": []}
    (problem,) = problems(write_version(tmp_path / "version", config))
    assert f": {'network' if key == 'network_def' else key}: is missing" in problem


def test_an_override_that_leads_nowhere_is_a_problem(tmp_path: Path) -> None:
    side = SIDE | {"overrides": {"inferer#roi#0": 1}}
    (problem,) = problems(write_version(tmp_path / "version", segmentation_config(), side=side))
    assert problem.startswith("ainode.yaml: overrides.inferer#roi#0: names no place")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyContent:
    """Four series: a chest CT, the same enhanced, a coronal one without a body part, and an MR."""
    root = tmp_path_factory.mktemp("study")
    headers: dict[str, dict[str, Any]] = {
        "plain": {"SeriesDescription": "Thorax 2.0 B30f", "SeriesNumber": 2},
        "enhanced": {"SeriesDescription": "Thorax KM", "SeriesNumber": 3, "ContrastBolusAgent": "Agent"},
        "coronal": {"SeriesDescription": "cor", "BodyPartExamined": None, "StudyDescription": None, "SeriesNumber": 4},
        "mr": {"Modality": "MR", "SeriesDescription": "t2 tse", "SeriesNumber": 5},
    }
    series = []
    for name, header in headers.items():
        header["SeriesInstanceUID"] = f"1.2.3.{header['SeriesNumber']}"
        paths = tiny_series(root / name, SeriesOptions(header=header))[:4]
        for path in paths if name == "coronal" else ():
            change(path, _coronal)
        series.append(paths)
    return study_of(*series)


def _coronal(dataset: Dataset) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("rule", "number"),
    [
        ({"modality": "CT"}, 2),
        ({"modality": "CT", "contrast": True}, 3),
        ({"modality": "CT", "contrast": False, "orientation": "axial"}, 2),
        ({"modality": "CT", "orientation": "coronal"}, 4),
        ({"modality": "CT", "description": "KM"}, 3),
        ({"modality": "CT", "exclude": ["b\\d0f", "cor"]}, 3),
        ({"modality": "CT", "body_part": "abdomen"}, 4),
        ({"modality": "MR", "description": ["T2", "FLAIR"]}, 5),
    ],
)
def test_a_rule_takes_the_series_it_describes(rule: dict[str, Any], number: int, study: StudyContent) -> None:
    selection = select(study, [SeriesRule.model_validate(rule)])
    assert selection.series.series_uid == f"1.2.3.{number}"
    assert len(selection.not_taken) == 3
    assert all(reason for _, reason in selection.not_taken)


def test_several_rules_take_different_series(study: StudyContent) -> None:
    selection = select(study, [SeriesRule(modality="CT", orientation="axial")] * 2 + [SeriesRule(modality="MR")])
    assert [s.series_uid for s in (selection.series, *selection.more)] == ["1.2.3.2", "1.2.3.3", "1.2.3.5"]
    assert dict(selection.not_taken) == {"1.2.3.4": "its planes are not axial"}


def test_where_none_fits_each_is_told(study: StudyContent) -> None:
    rules = [SeriesRule(modality="CT"), SeriesRule(modality="CT", min_slices=5, max_thickness_mm=3)]
    with pytest.raises(Refused) as caught:
        select(study, rules)
    assert caught.value.code == "no-suitable-series"
    assert "for input 2 of 2" in caught.value.reason
    assert "series 1.2.3.2: 4 slices; at least 5 are needed" in caught.value.reason
    assert "series 1.2.3.5: Modality is MR, not CT" in caught.value.reason
