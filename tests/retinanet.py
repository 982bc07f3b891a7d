"""A bundle with MONAI's RetinaNet on a volume: `python -m tests.retinanet DIRECTORY`, which prints the boxes as JSON.

MONAI's RetinaNet imports torchvision's Python, and uses none of its compiled operators. Those load only beside the
very build of torch that they were made for; without them torchvision stumbles over two names that they would have
declared. So they are declared here, for a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.domain.volume import Volume
from tests.bundles import SIDE, SPLEEN, metadata, segmentation_config, volume, write_version

# Where `.ci/run` puts torchvision, without torch; an installed one is taken as well.
TORCHVISION = Path(__file__).resolve().parents[1] / ".cache" / "torchvision"
_OVERRIDE = {"inferer": {"_target_": "pipelines.bundle.detection.DetectorInferer", "detector": "@detector"}}


def is_there() -> bool:
    """Whether torchvision can be had."""
    return (TORCHVISION / "torchvision").is_dir() or importlib.util.find_spec("torchvision") is not None


def config() -> dict[str, Any]:
    """As the zoo's nodule detector, smaller: parameters are told to the detector before it runs."""
    found = segmentation_config(
        device="$torch.device('cpu')",
        anchors={
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            "feature_map_scales": [1, 2],
            "base_anchor_shapes": [[6, 8, 4], [8, 6, 5]],
        },
        backbone="$monai.networks.nets.resnet.resnet10(spatial_dims=3,n_input_channels=1,conv1_t_stride=[2,2,1])",
        extractor="$monai.apps.detection.networks.retinanet_network."
        "resnet_fpn_feature_extractor(@backbone,3,False,[1],None)",
        network_def={
            "_target_": "RetinaNet",
            "spatial_dims": 3,
            "num_classes": 1,
            "num_anchors": 2,
            "feature_extractor": "@extractor",
            "size_divisible": [16, 16, 8],
        },
        detector={"_target_": "RetinaNetDetector", "network": "@network", "anchor_generator": "@anchors"},
        detector_ops=[
            "$@detector.set_target_keys(box_key='box', label_key='label')",
            "$@detector.set_box_selector_parameters(score_thresh=0.0,topk_candidates_per_level=10,detections_per_img=3)",
        ],
        inferer={"_target_": "scripts.detection_inferer.RetinaNetInferer", "detector": "@detector"},
    )
    del found["evaluator"]["postprocessing"]
    found["evaluator"]["_requires_"] = "@detector_ops"
    found["postprocessing"]["transforms"] = [
        {"_target_": "ClipBoxToImaged", "box_keys": "box", "label_keys": "label", "box_ref_image_keys": "image"},
        {"_target_": "AffineBoxToWorldCoordinated", "box_keys": "box", "box_ref_image_keys": "image"},
        {"_target_": "ConvertBoxModed", "box_keys": "box", "src_mode": "xyzxyz", "dst_mode": "cccwhd"},
        {"_target_": "DeleteItemsd", "keys": ["image"]},
    ]
    return found


def small() -> Volume:
    """A corner of the volume: what weights find that nobody trained is there as well."""
    whole, _ = volume()
    return replace(whole, voxels=whole.voxels[:16, :32, :32], sources=whole.sources[:16])


def _main(directory: Path) -> None:
    import torch

    torch.set_num_threads(1)  # more only wait for each other where other tests run
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # Beside an installed one, which then is of this very torch, this folder is not there.
    sys.path.insert(0, str(TORCHVISION))
    from monai.apps.detection.networks.retinanet_network import RetinaNet, resnet_fpn_feature_extractor
    from monai.networks.nets.resnet import resnet10

    from pipelines.bundle import open_version, problems

    torch.manual_seed(3)
    backbone = resnet10(spatial_dims=3, n_input_channels=1, conv1_t_stride=[2, 2, 1])
    extractor = resnet_fpn_feature_extractor(backbone, 3, False, [1], None)
    write_version(
        directory,
        config(),
        side=SIDE
        | {
            "labels": [{"label": 0, "key": "ball", "name": "Ball", "type": SPLEEN, "measure": []}],
            "overrides": _OVERRIDE,
            "min_score": 0.0,
        },
        described=metadata({}, type_="object"),
        weights=dict(RetinaNet(3, 1, 2, extractor, (16, 16, 8)).state_dict()),
    )
    assert problems(directory) == []
    pipeline = open_version(directory, trust_code=False)
    pipeline.load("cpu")
    found = small()
    marks = pipeline.analyse(found, lambda name: None).marks
    sys.stdout.write(json.dumps([{"score": mark.confidence, "points": mark.points.tolist()} for mark in marks]))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _main(Path(sys.argv[1]))
