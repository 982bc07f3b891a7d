"""A published, trained network as a bundle: MeshNet, from layers and weights of TensorFlow.js (one shard, float32)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom import dcmread

from node.domain.volume import SliceSource, Volume
from tests.bundles import metadata, segmentation_config


def network_of(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """The network as an expression of a configuration, and its weights."""
    model = json.loads((folder / "model.json").read_text())
    (manifest,) = model["weightsManifest"]
    values = np.frombuffer((folder / manifest["paths"][0]).read_bytes(), "<f4")
    arrays: dict[str, np.ndarray] = {}
    for weight in manifest["weights"]:
        size = int(np.prod(weight["shape"]))
        arrays[weight["name"]], values = values[:size].reshape(weight["shape"]), values[size:]
    layers: list[str] = []
    state: dict[str, torch.Tensor] = {}
    for layer in model["modelTopology"]["model_config"]["config"]["layers"]:
        settings = layer["config"]
        if layer["class_name"] == "Activation":
            layers.append(f"torch.nn.{ {'relu': 'ReLU', 'elu': 'ELU', 'gelu': 'GELU'}[settings['activation']] }()")
        if layer["class_name"] != "Conv3D":
            continue
        kernel = arrays[f"{settings['name']}/kernel"]  # depth, height, width, in, out
        (dilation,) = set(settings["dilation_rate"])
        padding = dilation * (kernel.shape[0] // 2)
        number = len(layers)
        layers.append(
            f"torch.nn.Conv3d({kernel.shape[3]}, {kernel.shape[4]}, {kernel.shape[0]}, "
            f"dilation={dilation}, padding={padding})"
        )
        state[f"{number}.weight"] = torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2).copy())
        state[f"{number}.bias"] = torch.from_numpy(arrays[f"{settings['name']}/bias"].copy())
    return f"$torch.nn.Sequential({', '.join(layers)})", state


def config_of(network: str, axcodes: str) -> dict[str, Any]:
    """An inference configuration: conform to 256 voxels of 1 mm, scale, run on the whole, and invert."""
    config = segmentation_config(network_def=network, inferer={"_target_": "SimpleInferer"}, pixdim=[1.0, 1.0, 1.0])
    transforms = config["preprocessing"]["transforms"]
    transforms[2]["axcodes"] = axcodes
    transforms[4] = {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [256, 256, 256]}
    scale = {"lower": 2, "upper": 98, "b_min": 0.0, "b_max": 1.0, "clip": True}
    transforms.insert(5, {"_target_": "ScaleIntensityRangePercentilesd", "keys": "image"} | scale)
    return config


def described() -> dict[str, Any]:
    """``metadata.json`` of a network for grey and white matter."""
    return metadata({"0": "background", "1": "white matter", "2": "grey matter"}, modality="MR")


def volume_of(folder: Path) -> Volume:
    """A series of single-frame MR images, by its headers alone."""
    images = [dcmread(path) for path in folder.iterdir() if path.suffix == ".dcm"]
    cosines = np.array(images[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(*cosines)
    images.sort(key=lambda image: float(normal @ np.array(image.ImagePositionPatient, float)))
    first, last = (np.array(images[n].ImagePositionPatient, float) for n in (0, -1))
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(images) - 1)
    affine[:3, 1] = cosines[1] * float(images[0].PixelSpacing[0])
    affine[:3, 2] = cosines[0] * float(images[0].PixelSpacing[1])
    affine[:3, 3] = first
    sources = tuple(SliceSource(str(image.SOPInstanceUID), str(image.SOPClassUID)) for image in images)
    voxels = np.stack([image.pixel_array for image in images]).astype(np.float32)
    return Volume(voxels, affine, sources, str(images[0].SeriesInstanceUID), "1.2.3", unit="1")
