"""A pipeline for streams of studies: quick, and told by a file what becomes of each study, by StudyInstanceUID."""

from __future__ import annotations

import json
import os
import signal
import time
from enum import StrEnum
from pathlib import Path

import numpy as np

from node.domain.errors import Refused
from node.domain.finding import Code, Findings, Measurement, Region
from node.domain.model import ModelVersion
from node.domain.study import StudyContent
from node.domain.volume import Volume
from pipelines.contract import Selection, Stage

FATES = "STREAM_FATES"  # the environment variable that names the file
_LUNG = Code("39607008", "SCT", "Lung")
_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")


class Fate(StrEnum):
    """What a study does to the process that runs it."""

    DIES_READING = "dies reading"
    DIES = "dies"
    DIES_ONCE = "dies once"
    HANGS = "hangs"
    HANGS_READING = "hangs reading"
    MEMORY = "takes more memory than there is"


def install(folder: Path, fates: dict[str, Fate]) -> dict[str, str]:
    """Make it known as the pipeline ``stream``; returns the environment that a node needs for it."""
    info = folder / "stream-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stream\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ainode.pipelines]\nstream = tests.stream_pipeline:StreamPipeline\n")
    (folder / "fates.json").write_text(json.dumps(fates))
    return {"PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}", FATES: str(folder / "fates.json")}


class StreamPipeline:
    """Finds everything above -500 HU."""

    model = ModelVersion("stream", "1.0", "5" * 64, "Stream")

    def __init__(self) -> None:
        self._file = Path(os.environ[FATES])
        self._fates: dict[str, str] = json.loads(self._file.read_text())
        self._study = ""

    def select(self, study: StudyContent) -> Selection:
        self._study = study.study_uid
        self._meet(Fate.DIES_READING, Fate.HANGS_READING)
        return Selection(study.series[0], "the first")

    def load(self, device: str) -> None:
        """Nothing to load."""

    def analyse(self, volume: Volume, stage: Stage) -> Findings:
        stage("infer")
        self._meet(Fate.DIES, Fate.DIES_ONCE, Fate.HANGS, Fate.MEMORY)
        mask = volume.voxels > -500
        if not mask.any():
            raise Refused("empty", "there is nothing in it")
        stage("measure")
        size = Measurement(
            "volume_ml", Code("118565006", "SCT", "Volume"), float(mask.sum()) * volume.voxel_ml,
            Code("ml", "UCUM", "milliliter"),
        )  # fmt: skip
        body = Region("body", "Body", mask, _ANATOMY, _LUNG, _LUNG, None, (200, 90, 60), (size,))
        return Findings(volume, Code("25045-6", "LN", "CT unspecified body region"), (body,), title="Stream")

    def _meet(self, *here: Fate) -> None:
        fate = self._fates.get(self._study)
        if fate not in here:
            return
        if fate in (Fate.HANGS, Fate.HANGS_READING):
            time.sleep(3600)
        if fate == Fate.MEMORY:
            np.ones(1 << 50, np.uint8)
        met = self._file.with_suffix(".met")
        if fate == Fate.DIES_ONCE:
            if met.exists():
                return
            met.touch()
        os.kill(os.getpid(), signal.SIGKILL)
