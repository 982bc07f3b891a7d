"""MONAI's detectors as an inferer, and their boxes on the grid of a Volume."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.transforms.dictionary import ConvertBoxModed, ConvertBoxToStandardModed
from monai.data.box_utils import convert_box_to_standard_mode
from monai.inferers.inferer import Inferer
from monai.transforms.compose import Compose
from numpy.typing import NDArray

from node.domain.volume import Volume
from pipelines.bundle.place import index_map
from pipelines.bundle.sidefile import SideFile

if TYPE_CHECKING:
    from pipelines.bundle.engine import Boxes


class DetectorInferer(Inferer):
    """Runs a detector of MONAI's; for bundles that bring a class of their own for it, by an override of ``inferer``.

    The sliding window is used where the image is larger than one window.
    """

    def __init__(self, detector: RetinaNetDetector) -> None:
        super().__init__()
        self.detector = detector

    def __call__(self, inputs: Any, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Boxes, labels and scores for each image; ``inputs`` is a list of tensors, (channels, *spatial)."""
        self.detector.eval()
        window = getattr(self.detector.inferer, "roi_size", None)
        larger = window is not None and any(image[0].numel() >= int(np.prod(window)) for image in inputs)
        return self.detector(inputs, use_inferer=larger)


@dataclass(frozen=True, eq=False)
class Box:
    """``corners``: (2, 3), lowest and highest corner, in the index of the image that was analysed.

    In an image of two dimensions the third is that of its one slice, -0.5 to 0.5.
    """

    corners: NDArray[np.float64]
    label: int
    score: float


def boxes_of(item: dict[str, Any], postprocessing: Compose | None) -> list[Box]:
    """The boxes of one image, highest score first.

    Args:
        item: boxes, labels and scores, by the keys that detectors and bundles use.
        postprocessing: what was applied to ``item``: it says in which mode the boxes are.
    """
    boxes, labels, scores = (_array(item, *names) for names in (("box", "boxes"), ("label", "labels"), _SCORES))
    if not boxes.size:
        return []
    mode = _mode(postprocessing, dimensions=boxes.shape[1] // 2)
    corners = np.asarray(convert_box_to_standard_mode(torch.from_numpy(boxes), mode=mode), np.float64)
    corners = corners.reshape(len(boxes), 2, -1)
    if corners.shape[2] == 2:
        corners = np.concatenate([corners, np.broadcast_to([[-0.5], [0.5]], (len(boxes), 2, 1))], axis=2)
    found = [Box(corners[n], int(labels.reshape(-1)[n]), float(scores.reshape(-1)[n])) for n in range(len(corners))]
    return sorted(found, key=lambda box: -box.score)


_SCORES = ("label_scores", "score", "scores", "box_scores")


def _array(item: dict[str, Any], *names: str) -> NDArray[np.float32]:
    for name in names:
        if name in item:
            value = item[name]
            return np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value, np.float32)
    return np.zeros(0, np.float32)


def _mode(postprocessing: Compose | None, *, dimensions: int) -> Any:
    standard = "xyxy" if dimensions == 2 else "xyzxyz"
    mode: Any = standard
    for transform in postprocessing.transforms if postprocessing is not None else ():
        if isinstance(transform, ConvertBoxModed):
            mode = transform.converter.dst_mode
        elif isinstance(transform, ConvertBoxToStandardModed):
            mode = standard
    return mode


def on_volume(found: Boxes, volume: Volume, side: SideFile) -> list[tuple[int, float, NDArray[np.float64]]]:
    """(label, score, corners) of every box with at least ``side.min_score``, highest score first.

    ``corners`` (2, 3) are the lowest and the highest, in the index of ``volume``. On a grid that is oblique to the
    image that was analysed they are those of the upright box around the oblique one. A box beside the volume is left
    out.
    """
    to_volume = np.linalg.inv(index_map(found.affine, volume)).astype(np.float64)
    boxes = boxes_of(found.item, found.postprocessing)
    placed = [(box, _corners(box, to_volume)) for box in boxes if box.score >= side.min_score]
    upper = np.array(volume.shape) - 0.5
    return [
        (box.label, box.score, corners)
        for box, corners in placed
        if (corners[1] > -0.5).all() and (corners[0] < upper).all()
    ]


def _corners(box: Box, to_volume: NDArray[np.float64]) -> NDArray[np.float64]:
    corners = np.array(list(product(*box.corners.T)))
    around = corners @ to_volume[:3, :3].T + to_volume[:3, 3]
    low, high = around.min(axis=0), around.max(axis=0)
    # A box thinner than a voxel is drawn as one, or it could not be seen.
    thin = high - low < 1
    middle = (low + high) / 2
    return np.array([np.where(thin, middle - 0.5, low), np.where(thin, middle + 0.5, high)])
