"""Bundles in the shape of MONAI's model zoo, with networks so small that their answer is known, and volumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage

from node.domain.volume import SliceSource, Volume
from pipelines.weights import Manifest, describe, digest_of_files, write_manifest

_A_GPU_IF_ANY = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"
SPLEEN = ["78961009", "SCT", "Spleen"]
SIDE: dict[str, Any] = {
    "title": "Ball",
    "procedure": ["25045-6", "LN", "CT unspecified body region"],
    "inputs": [{"modality": "CT"}],
    "labels": [{"label": 1, "key": "ball", "name": "Ball", "type": SPLEEN}],
}
INSIDE, OUTSIDE = 120.0, -40.0

_c, _s = np.cos(0.4), np.sin(0.4)
# Row and column cosines, spacing of slices, rows and columns in mm, shape, shear of the stack along the columns.
GRIDS: dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[int, ...], float]] = {
    "axial": ((1, 0, 0), (0, 1, 0), (2.0, 1.5, 1.5), (40, 60, 64), 0.0),
    "feet first, prone": ((1, 0, 0), (0, -1, 0), (2.0, 1.5, 1.5), (40, 60, 64), 0.0),
    "sagittal": ((0, 1, 0), (0, 0, -1), (2.0, 1.5, 1.5), (40, 60, 64), 0.0),
    "coronal": ((1, 0, 0), (0, 0, -1), (2.0, 1.5, 1.5), (40, 60, 64), 0.0),
    "oblique": ((_c, _s, 0), (-_s * _c, _c * _c, _s), (2.0, 1.5, 1.5), (44, 60, 64), 0.0),
    "tilted gantry": ((1, 0, 0), (0, 1, 0), (2.0, 1.5, 1.5), (40, 60, 64), float(np.tan(np.deg2rad(22)))),
    "anisotropic": ((1, 0, 0), (0, 1, 0), (5.0, 0.9, 0.7), (16, 100, 120), 0.0),
}


def volume(
    grid: str = "axial", *, inside: float = INSIDE, outside: float = OUTSIDE
) -> tuple[Volume, NDArray[np.bool_]]:
    """A volume with an ellipsoid off its middle, of three different axes, and the mask of it."""
    row, column, spacing, shape, shear = GRIDS[grid]
    row_cosines, column_cosines = np.array(row, float), np.array(column, float)
    affine = np.eye(4)
    affine[:3, 0] = spacing[0] * (np.cross(row_cosines, column_cosines) + shear * column_cosines)
    affine[:3, 1], affine[:3, 2] = column_cosines * spacing[1], row_cosines * spacing[2]
    affine[:3, 3] = (-31.0, 12.0, -407.0)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float)
    patient = index @ affine[:3, :3].T + affine[:3, 3]
    centre = affine[:3, :3] @ (np.array(shape) * (0.45, 0.4, 0.6)) + affine[:3, 3]
    mask = np.asarray((((patient - centre) / (14.0, 19.0, 24.0)) ** 2).sum(axis=-1) <= 1)
    sources = tuple(SliceSource(f"1.2.{k}", CTImageStorage) for k in range(shape[0]))
    voxels = np.where(mask, inside, outside).astype(np.float32)
    return Volume(voxels, affine, sources, f"1.2.3.{list(GRIDS).index(grid) + 1}", "1.2.3.5"), mask


def metadata(
    meanings: Mapping[str, str], *, channels: int = 1, spatial_dims: int = 3, type_: str = "image", modality: str = "CT"
) -> dict[str, Any]:
    """``metadata.json`` with the part that the node reads."""
    return {
        "version": "0.1.0",
        "monai_version": "1.4.0",
        "task": "Find the # of balls",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield",
                    "modality": modality,
                    "num_channels": channels,
                    "spatial_shape": [32] * spatial_dims,
                    "dtype": "float32",
                }
            },
            "outputs": {"pred": {"type": type_, "format": type_, "channel_def": dict(meanings)}},
        },
    }


def threshold_network() -> tuple[dict[str, Any], dict[str, Any]]:
    """A 1 × 1 × 1 convolution whose second channel wins above one half, and its weights."""
    import torch

    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    weight = torch.tensor([0.0, 20.0]).reshape(2, 1, 1, 1, 1)
    return network, {"weight": weight, "bias": torch.tensor([0.0, -10.0])}


def segmentation_config(**changes: Any) -> dict[str, Any]:
    """An inference configuration as the zoo's segmentation bundles have it; ``changes`` replace top-level keys."""
    config: dict[str, Any] = {
        "imports": ["$import glob", "$import os", "$import pandas as pd"],
        "bundle_root": "/somebody/elses/disk",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/data",
        "datalist": "$list(pd.read_csv(@dataset_dir + '/list.csv').image)",
        "device": _A_GPU_IF_ANY,
        "pixdim": "$[1.0] * 3",
        "network_def": threshold_network()[0],
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key", "reader": "ITKReader"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS", "labels": None},
                {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "@image_key",
                    "a_min": OUTSIDE,
                    "a_max": INSIDE,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "@image_key"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 4},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [48, 48, 48],
            "sw_batch_size": 2,
            "overlap": 0.25,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "@image_key",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            },
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": True,
        },
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
        "run": ["$@evaluator.run()"],
    }
    return config | changes


def write_version(
    root: Path,
    config: Mapping[str, Any],
    *,
    side: Mapping[str, Any] | None = None,
    described: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | bytes | None = None,
    scripts: Mapping[str, str] | None = None,
    as_yaml: bool = False,
) -> Path:
    """A registered version's directory: ``bundle/``, ``ainode.yaml`` and ``version.json``.

    ``weights`` are a state dict (written as the zoo does, below ``model``) or the bytes of ``models/model.pt``.
    """
    import torch

    for folder in ("configs", "models"):
        (root / "bundle" / folder).mkdir(parents=True)
    name, text = ("inference.yaml", yaml.safe_dump(dict(config))) if as_yaml else ("inference.json", json.dumps(config))
    (root / "bundle" / "configs" / name).write_text(text)
    (root / "bundle" / "configs" / "metadata.json").write_text(
        json.dumps(described or metadata({"0": "background", "1": "ball"}))
    )
    model = root / "bundle" / "models" / "model.pt"
    if isinstance(weights, bytes):
        model.write_bytes(weights)
    else:
        torch.save({"model": dict(weights or threshold_network()[1])}, model)
    for path, source in (scripts or {}).items():
        (root / "bundle" / path).parent.mkdir(exist_ok=True)
        (root / "bundle" / path).write_text(source)
    (root / "ainode.yaml").write_text(yaml.safe_dump(dict(SIDE if side is None else side)))
    register(root)
    return root


def register(root: Path) -> Manifest:
    """Write ``version.json`` for what lies in ``root``."""
    files = describe(root)
    manifest = Manifest(
        name="ball",
        version="1.0",
        title="Ball",
        kind="monai-bundle",
        qualification="RESEARCH",
        source="test",
        created_at="2026-01-02T03:04:05Z",
        files=files,
        digest=digest_of_files(files),
    )
    write_manifest(root, manifest)
    return manifest


def planar_config(**changes: Any) -> dict[str, Any]:
    """An inference configuration for images: bright is what lies above one half of the range of 12 bits."""
    config = segmentation_config()
    load, first, _, _, scale, typed = config["preprocessing"]["transforms"]
    scale |= {"a_min": 0, "a_max": 4095}
    resize = {"_target_": "Resized", "keys": "@image_key", "spatial_size": [32, 32], "mode": "nearest"}
    config["preprocessing"]["transforms"] = [load, first, scale, resize, typed]
    config["inferer"] = {"_target_": "SimpleInferer"}
    config["network_def"] = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    return config | changes


def planar_weights() -> dict[str, Any]:
    """Of the network of `planar_config`."""
    return {name: weight.reshape(weight.shape[:4]) for name, weight in threshold_network()[1].items()}


PLANAR_SIDE: dict[str, Any] = {
    **SIDE,
    "title": "Bright",
    "procedure": ["25045-6", "LN", "CT unspecified body region"],
    "inputs": [{"modality": ["DX", "CR"]}],
    "labels": [{"label": 1, "key": "bright", "name": "Bright", "type": SPLEEN, "measure": ["area_mm2", "mean"]}],
}


def write_planar_version(root: Path, config: Mapping[str, Any] | None = None, **given: Any) -> Path:
    """A registered version for radiographs: as `write_version`."""
    described = metadata({"0": "background", "1": "bright"}, spatial_dims=2, modality="DX")
    given = {"side": PLANAR_SIDE, "described": described, "weights": planar_weights(), **given}
    return write_version(root, planar_config() if config is None else config, **given)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Twice the overlap over the sum."""
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))
