"""Bundles of two dimensions: one image at a time, or the images of several studies in one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from node.domain.errors import InvalidModel, Refused
from node.domain.finding import Findings, Shape
from pipelines.bundle import open_version, problems
from pipelines.contract import BatchPipeline
from pipelines.read.selected import read
from tests.builders import study_of, tiny_series
from tests.bundles import PLANAR_SIDE, dice, metadata, planar_config, write_planar_version
from tests.radiographs import angiogram, gradient, radiograph

pytestmark = pytest.mark.filterwarnings("ignore:inverse has been called but no invertible transforms:UserWarning")


def bright(rows: int = 64, columns: int = 96) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """A radiograph with a bright rectangle off its middle, and where that is."""
    pixels = np.full((rows, columns), 500, np.uint16)
    pixels[rows // 4 : rows // 2, columns // 2 : 3 * columns // 4] = 3500
    return pixels, pixels > 2000


def opened(directory: Path, *, trust_code: bool = False) -> BatchPipeline:
    assert problems(directory, trust_code=trust_code) == []
    pipeline = open_version(directory, trust_code=trust_code)
    assert isinstance(pipeline, BatchPipeline)
    pipeline.load("cpu")
    return pipeline


def run(directory: Path, *paths: Path, trust_code: bool = False) -> Findings:
    pipeline = opened(directory, trust_code=trust_code)
    selection = pipeline.select(study_of(paths))
    assert selection.planar
    volume, *others = read(selection)
    return pipeline.analyse(volume, lambda stage: None, *others)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return write_planar_version(tmp_path / "version")


@pytest.mark.parametrize("inverts", [True, False])
def test_a_mask_comes_back_on_the_radiograph(tmp_path: Path, inverts: bool) -> None:
    config = planar_config()
    if not inverts:
        del config["postprocessing"]["transforms"][1]
    pixels, mask = bright()
    path = radiograph(tmp_path / "a", pixels)
    (region,) = run(write_planar_version(tmp_path / "version", config), path).regions
    assert np.array_equal(region.mask[0], mask)
    measured = {m.key: m for m in region.measurements}
    assert measured["area_mm2"].value == pytest.approx(mask.sum() * 0.2 * 0.1)
    assert measured["mean"].value == 3500
    assert measured["mean"].name.meaning == "Pixel value"


def test_an_image_without_spacing_has_no_area(tmp_path: Path, version: Path) -> None:
    findings = run(version, radiograph(tmp_path / "a", bright()[0], ImagerPixelSpacing=None))
    assert [m.key for m in findings.regions[0].measurements] == ["mean"]
    assert any("no spacing" in note for note in findings.notes)


def test_pictures_show_the_range_of_the_image(tmp_path: Path, version: Path) -> None:
    findings = run(version, radiograph(tmp_path / "a", bright()[0]))
    assert findings.window == (2000, 3000)


def test_every_frame_goes_through_the_network(tmp_path: Path) -> None:
    config = planar_config()
    config["preprocessing"]["transforms"][2]["a_max"] = 50
    side = PLANAR_SIDE | {"inputs": [{"modality": "XA"}]}
    version = write_planar_version(tmp_path / "version", config, side=side)
    (region,) = run(version, angiogram(tmp_path / "xa")).regions
    mask = np.asarray(region.mask)
    assert mask.all(axis=(1, 2)).tolist() == [False, False, True, True]
    assert not mask[:2].any()


def _classes(tmp_path: Path, **changes: Any) -> Path:
    config = planar_config(
        network_def="$torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2))"
    )
    config["postprocessing"]["transforms"] = [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]
    names = ("dark", "bright")
    labels = [
        {"channel": n, "key": name, "name": name, "type": [name.upper(), "99AINODE", name]}
        for n, name in enumerate(names)
    ]
    weights = {"2.weight": torch.tensor([[0.0], [10.0]]), "2.bias": torch.tensor([0.0, -5.0])}
    described = metadata({"0": "dark", "1": "bright"}, spatial_dims=2, type_="probabilities", modality="DX")
    side = PLANAR_SIDE | {"labels": labels, "ignore": []} | changes
    return write_planar_version(tmp_path / "classes", config, side=side, described=described, weights=weights)


@pytest.mark.parametrize(("value", "said"), [(500, "dark"), (3500, "bright")])
def test_a_radiograph_is_classified(tmp_path: Path, value: int, said: str) -> None:
    findings = run(_classes(tmp_path), radiograph(tmp_path / "a", np.full((40, 40), value, np.uint16)))
    assert [e.value.meaning for e in findings.evaluations] == [said]


def test_a_run_of_frames_has_no_one_class(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the image has 4 frames"):
        run(_classes(tmp_path, inputs=[{"modality": "XA"}]), angiogram(tmp_path / "xa"))


def test_images_of_several_studies_go_as_one_batch_and_say_what_each_says_alone(tmp_path: Path, version: Path) -> None:
    sizes = ((64, 96), (64, 96), (50, 40))
    paths = [radiograph(tmp_path / str(n), bright(*size)[0]) for n, size in enumerate(sizes)]
    pipeline = opened(version)
    batch = [read(pipeline.select(study_of([path]))) for path in paths]
    stages: list[str] = []
    found = pipeline.analyse_batch(batch, stages.append)
    assert stages == ["preprocess", "infer", "postprocess", "measure"]
    for size, (volume,), findings in zip(sizes, batch, found, strict=True):
        assert isinstance(findings, Findings)
        alone = pipeline.analyse(volume, lambda stage: None)
        assert findings.summary() == alone.summary()
        assert np.array_equal(findings.regions[0].mask, alone.regions[0].mask)
        assert dice(findings.regions[0].mask[0], bright(*size)[1]) > 0.9


def test_a_bad_image_of_a_batch_fails_alone(tmp_path: Path) -> None:
    # What the network gives for a bright image has no meaning in the side file.
    side = PLANAR_SIDE | {"labels": [PLANAR_SIDE["labels"][0] | {"label": 2}], "unlisted": "refuse", "ignore": [0]}
    described = metadata({"0": "background", "2": "bright"}, spatial_dims=2, modality="DX")
    pipeline = opened(write_planar_version(tmp_path / "version", side=side, described=described))
    dark = np.full((64, 96), 500, np.uint16)
    paths = [radiograph(tmp_path / str(n), pixels) for n, pixels in enumerate((dark, bright()[0]))]
    batch = [read(pipeline.select(study_of([path]))) for path in paths]
    good, bad, few = pipeline.analyse_batch([*batch, (*batch[0], *batch[0])], lambda stage: None)
    assert isinstance(good, Findings)
    assert isinstance(bad, InvalidModel)
    assert isinstance(few, Refused)


def test_which_image_is_taken(tmp_path: Path, version: Path) -> None:
    raw = radiograph(tmp_path / "raw", gradient(), PresentationIntentType="FOR PROCESSING", InstanceNumber=1)
    lateral = radiograph(tmp_path / "lat", gradient(), ViewPosition="LL", InstanceNumber=2)
    frontal = radiograph(tmp_path / "pa", gradient(), ViewPosition="PA", InstanceNumber=3)
    study = study_of(
        [raw, lateral, frontal], [radiograph(tmp_path / "us", gradient(), SeriesInstanceUID="1.2.9", Modality="US")]
    )

    def taken(view: list[str]) -> list[Path]:
        side = PLANAR_SIDE | {"inputs": [{"modality": "DX", "view": one} for one in view] or [{"modality": "DX"}]}
        place = tmp_path / f"v{len(list(tmp_path.iterdir()))}"
        pipeline = open_version(write_planar_version(place, side=side), trust_code=False)
        selection = pipeline.select(study)
        assert dict(selection.not_taken) == {"1.2.9": "Modality is US, not DX"}
        return [each.instances[0].path for each in (selection.series, *selection.more)]

    assert taken([]) == [lateral]
    assert taken(["PA"]) == [frontal]  # the other one is raw
    assert taken(["LL", "PA"]) == [lateral, frontal]


def test_a_slice_of_ct_where_the_side_file_says_two_dimensions(tmp_path: Path) -> None:
    side = PLANAR_SIDE | {"inputs": [{"modality": "CT"}], "dimensions": 2}
    pipeline = open_version(write_planar_version(tmp_path / "version", side=side), trust_code=False)
    paths = tiny_series(tmp_path / "ct")[:3]
    assert len(read(pipeline.select(study_of(paths)))) == 1
    side = {key: value for key, value in side.items() if key != "dimensions"}
    pipeline = open_version(write_planar_version(tmp_path / "stack", side=side), trust_code=False)
    assert not pipeline.select(study_of(paths)).planar


def test_an_image_has_no_volume(tmp_path: Path) -> None:
    side = PLANAR_SIDE | {"measure": ["volume_ml"]}
    (problem,) = problems(write_planar_version(tmp_path / "version", side=side))
    assert problem.startswith("ainode.yaml: measure: an image has no volume_ml")


_BRIGHTEST = """
import torch
from monai.inferers import Inferer

class Brightest(Inferer):
    def __init__(self, detector):
        super().__init__()

    def __call__(self, inputs, network, *args, **kwargs):
        where = [torch.nonzero(image[0] > 0.5).float() for image in inputs]
        return [
            {
                "box": torch.cat([w.min(0).values, w.max(0).values])[None],
                "label": torch.tensor([0]),
                "label_scores": torch.tensor([0.9]),
            }
            for w in where
        ]
"""


@pytest.mark.parametrize("mode", ["xyxy", "ccwh", "xxyy"])
@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_a_box_lies_on_what_it_was_drawn_around(mode: str, turned: bool, tmp_path: Path) -> None:
    config = planar_config(inferer={"_target_": "scripts.boxes.Brightest", "detector": "@network"})
    steps = config["preprocessing"]["transforms"]
    steps[3] |= {"spatial_size": [192, 160]}  # of 96 columns and 64 rows: each by another factor
    if turned:
        steps.insert(3, {"_target_": "Rotate90d", "keys": "image"})
        steps.insert(3, {"_target_": "Flipd", "keys": "image", "spatial_axis": 0})
    clip = {"_target_": "ClipBoxToImaged", "box_keys": "box", "label_keys": "label", "box_ref_image_keys": "image"}
    convert = {"_target_": "ConvertBoxModed", "box_keys": "box", "src_mode": "xyxy", "dst_mode": mode}
    config["postprocessing"]["transforms"] = [clip, convert]
    label = {"label": 0, "key": "nodule", "name": "Nodule", "type": ["27925004", "SCT", "Nodule"]}
    pixels, mask = bright()
    version = write_planar_version(
        tmp_path / "version",
        config,
        side=PLANAR_SIDE | {"labels": [label | {"measure": ["area_mm2"]}]},
        described=metadata({}, spatial_dims=2, type_="object", modality="DX"),
        scripts={"scripts/boxes.py": _BRIGHTEST},
    )
    (mark,) = run(version, radiograph(tmp_path / "a", pixels), trust_code=True).marks
    where = np.argwhere(mask)
    assert mark.shape is Shape.BOX
    assert mark.confidence == pytest.approx(0.9)
    assert mark.points[:, 0].tolist() == [-0.5, 0.5]
    assert np.abs(mark.points[0, 1:] - where.min(axis=0)).max() <= 1
    assert np.abs(mark.points[1, 1:] - where.max(axis=0)).max() <= 1
    (area,) = mark.measurements
    assert area.value == pytest.approx(mask.sum() * 0.2 * 0.1, rel=0.15)


def test_several_image_keys_take_a_series_each(tmp_path: Path) -> None:
    """As bundles of several views or contrasts have it: keys of their own, joined by a transform."""
    config = planar_config()
    load, first, scale, resize, typed = config["preprocessing"]["transforms"]
    keys = ["frontal", "lateral"]
    joined = {"_target_": "ConcatItemsd", "keys": keys, "name": "image", "dim": 0}
    steps = [step | {"keys": keys} for step in (load, first, scale, resize)]
    config["preprocessing"]["transforms"] = [*steps, joined, typed]
    config["network_def"] = config["network_def"] | {"in_channels": 2}
    config["postprocessing"]["transforms"] = [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "Resized", "keys": "pred", "spatial_size": [96, 64], "mode": "nearest"},
    ]
    # Bright only where both are.
    weights = {"weight": torch.tensor([[0.0, 0.0], [10.0, 10.0]])[..., None, None], "bias": torch.tensor([0.0, -15.0])}
    side = PLANAR_SIDE | {"inputs": [{"modality": "DX", "view": "PA"}, {"modality": "DX", "view": "LL"}]}
    pixels, mask = bright()
    half = pixels.copy()
    half[: 64 * 3 // 8] = 500
    frontal = radiograph(tmp_path / "pa", pixels)
    lateral = radiograph(tmp_path / "ll", half, ViewPosition="LL")
    version = write_planar_version(tmp_path / "version", config, side=side, weights=weights)
    (region,) = run(version, frontal, lateral).regions
    assert np.array_equal(region.mask[0], mask & (half > 2000))
