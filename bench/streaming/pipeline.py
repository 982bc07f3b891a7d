"""The pipeline of the stream: a small U-Net with random weights and sliding windows, run as a bundle's network is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from node.domain.finding import Code, Findings, Measurement, Region
from node.domain.model import ModelVersion
from node.domain.study import StudyContent
from node.domain.volume import Volume
from pipelines.contract import Selection, Stage

_LUNG = Code("39607008", "SCT", "Lung")
_WINDOW = (96, 96, 96)


def install(folder: Path) -> dict[str, str]:
    """Make it known as the pipeline ``bench``; returns the environment that a node needs for it."""
    info = folder / "bench-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ainode.pipelines]\nbench = streaming.pipeline:BenchPipeline\n")
    here = Path(__file__).resolve().parents[1]
    return {"PYTHONPATH": os.pathsep.join(map(str, (folder, here, here.parent)))}


class BenchPipeline:
    """Takes the first series, runs the network over all of it, and finds what is denser than air."""

    model = ModelVersion("bench", "1.0", "b" * 64, "Bench")

    def __init__(self) -> None:
        self._runner: Any = None

    def select(self, study: StudyContent) -> Selection:
        """The first series."""
        return Selection(study.series[0], "the first")

    def load(self, device: str) -> None:
        """Make the network."""
        if self._runner is not None:
            return
        import torch
        from monai.inferers.inferer import SlidingWindowInferer
        from monai.networks.nets.unet import UNet

        from pipelines.runtime import Runner, device_of

        torch.manual_seed(0)
        network = UNet(3, 1, 2, channels=(8, 16, 32, 64), strides=(2, 2, 2), num_res_units=1)
        self._runner = Runner(network, device_of(device))
        self._inferer = SlidingWindowInferer(_WINDOW, sw_batch_size=4, overlap=0.25)

    def analyse(self, volume: Volume, stage: Stage, *others: Volume) -> Findings:
        """Run the network; the finding does not depend on it, so that every study has one."""
        import torch

        stage("infer")
        with torch.inference_mode():
            self._runner(self._inferer, torch.from_numpy(volume.voxels)[None, None] / 1000).argmax(1).cpu()
        stage("measure")
        mask = np.greater(volume.voxels, -500)
        size = float(mask.sum()) * volume.voxel_ml
        measured = Measurement("volume_ml", Code("118565006", "SCT", "Volume"), size, Code("ml", "UCUM", "milliliter"))
        anatomy = Code("123037004", "SCT", "Anatomical Structure")
        body = Region("body", "Body", mask, anatomy, _LUNG, _LUNG, None, (200, 90, 60), (measured,))
        return Findings(volume, Code("25045-6", "LN", "CT unspecified body region"), (body,), title="Bench")
