"""A bundle as MONAI runs it and as the node does: one network, one set of weights, one phantom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.weights import Manifest, describe, digest_of_files, write_manifest

_UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [16, 32, 64, 128],
    "strides": [2, 2, 2],
    "num_res_units": 2,
}
_DENSENET = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
_BODY = ["38266002", "SCT", "Entire body"]
_PROCEDURE = ["25045-6", "LN", "CT unspecified body region"]


def volume_bundle(root: Path) -> Path:
    """A segmentation bundle whose result are probabilities, as a registered version. Its weights are random."""
    keys: dict[str, Any] = {"keys": "image"}
    config = {
        "imports": ["$import time", "$import numpy"],
        "bundle_root": ".",
        "image": "",
        "out": "",
        "device": "$torch.device('cpu')",
        "network_def": _UNET,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **keys},
                {"_target_": "EnsureChannelFirstd", **keys},
                {"_target_": "Orientationd", **keys, "axcodes": "RAS"},
                {"_target_": "Spacingd", **keys, "pixdim": [2.0, 2.0, 2.0], "mode": "bilinear"},
                {"_target_": "ScaleIntensityRanged", **keys, "a_min": -1000, "a_max": 1000, "b_min": 0, "b_max": 1},
                {"_target_": "EnsureTyped", **keys},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "sw_batch_size": 4, "overlap": 0.25},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                },
            ],
        },
        "dataset": {"_target_": "Dataset", "data": [{"image": "@image"}], "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        # What SupervisedEvaluator does, without ignite: collate, infer, decollate, transform back.
        "predict": "$torch.inference_mode()(lambda batch: "
        "{**batch, 'pred': @inferer(batch['image'].to(@device), @network)})",
        "loop": "$lambda: [@postprocessing(each) for batch in @dataloader "
        "for each in monai.data.decollate_batch(@predict(batch))]",
        "results": "$[]",
        "initialize": [
            "$@network.load_state_dict(torch.load(@bundle_root + '/models/model.pt', weights_only=True)['model'])",
            "$@network.eval()",
        ],
        "run": [
            "$print('start', time.perf_counter(), time.process_time(), flush=True)",
            "$@results.extend(@loop())",
            "$print('end', time.perf_counter(), time.process_time(), flush=True)",
            "$numpy.save(@out, numpy.asarray(@results[0]['pred']))",
        ],
    }
    data_format = {
        "inputs": {"image": {"type": "image", "num_channels": 1, "spatial_shape": [96, 96, 96]}},
        "outputs": {"pred": {"type": "image", "format": "segmentation", "channel_def": {"0": "no", "1": "body"}}},
    }
    side = {
        "title": "Bench",
        "procedure": _PROCEDURE,
        "inputs": [{"modality": "CT"}],
        "labels": [{"channel": 1, "key": "body", "name": "Body", "type": _BODY}],
        "threshold": 0.5,
    }
    return _write(root, config, data_format, side)


def image_bundle(root: Path) -> Path:
    """A classification bundle for one slice of CT, as a registered version. Its weights are random."""
    keys: dict[str, Any] = {"keys": "image"}
    config = {
        "bundle_root": ".",
        "network_def": _DENSENET,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **keys},
                {"_target_": "EnsureChannelFirstd", **keys},
                {"_target_": "ScaleIntensityRanged", **keys, "a_min": -1000, "a_max": 1000, "b_min": 0, "b_max": 1},
                {"_target_": "Resized", **keys, "spatial_size": [128, 128]},
                {"_target_": "EnsureTyped", **keys},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
    }
    data_format = {
        "inputs": {"image": {"type": "image", "num_channels": 1, "spatial_shape": [128, 128]}},
        "outputs": {"pred": {"type": "probabilities", "channel_def": {"0": "no", "1": "yes"}}},
    }
    labels = [
        {"channel": n, "key": key, "name": key.title(), "type": [key.upper(), "99AINODE", key.title()]}
        for n, key in enumerate(("no", "yes"))
    ]
    side = {
        "title": "Bench",
        "procedure": _PROCEDURE,
        "dimensions": 2,
        "inputs": [{"modality": "CT"}],
        "labels": labels,
        "ignore": [],
    }
    return _write(root, config, data_format, side)


def _write(root: Path, config: dict[str, Any], data_format: dict[str, Any], side: dict[str, Any]) -> Path:
    import torch
    from monai.bundle import ConfigParser

    for folder in ("configs", "models"):
        (root / "bundle" / folder).mkdir(parents=True)
    (root / "bundle" / "configs" / "inference.json").write_text(json.dumps(config, indent=1))
    metadata = {"version": "1", "name": "bench", "network_data_format": data_format}
    (root / "bundle" / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.manual_seed(0)
    network = ConfigParser({"network": config["network_def"]}).get_parsed_content("network")
    torch.save({"model": network.state_dict()}, root / "bundle" / "models" / "model.pt")
    (root / "ainode.yaml").write_text(yaml.safe_dump(side))
    files = describe(root)
    write_manifest(
        root,
        Manifest(
            name="bench",
            version="1",
            title="Bench",
            kind="monai-bundle",
            qualification="RESEARCH",
            source="bench",
            created_at="2026-01-02T03:04:05Z",
            files=files,
            digest=digest_of_files(files),
        ),
    )
    return root


def nifti(series: Path, target: Path) -> None:
    """The phantom as MONAI's readers take it quickest, on the grid that the node reads: columns, rows, slices; RAS."""
    import nibabel

    from node.offline import study_of
    from pipelines.bundle.place import affine_ras
    from pipelines.read.volume import read_volume

    volume = read_volume(study_of(series).series[0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)), affine_ras(volume))
    nibabel.save(image, target)
