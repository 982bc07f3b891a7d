"""A kind of model for tests: a bundle is one JSON file with a threshold, and what it finds is the volume below it.

``load`` in the JSON file is an error that loading raises.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from node.domain.errors import OutOfMemory
from node.domain.finding import Code, Findings
from node.domain.model import ModelVersion
from node.domain.study import StudyContent
from node.domain.volume import Volume
from pipelines.contract import Selection, Stage
from pipelines.weights import read_manifest
from tests.builders_results import region

KIND = "threshold"
_FILE = Path("bundle") / "threshold.json"


class Threshold:
    """Everything below a threshold."""

    def __init__(self, model: ModelVersion, content: dict[str, Any]) -> None:
        self.model = model
        self._content = content

    def select(self, study: StudyContent) -> Selection:
        return Selection(study.series[0], "the first")

    def load(self, device: str) -> None:
        match self._content.get("load"):
            case "memory":
                raise OutOfMemory("the device has too little memory")
            case str() as problem:
                raise RuntimeError(problem)

    def analyse(self, volume: Volume, stage: Stage, *others: Volume) -> Findings:
        stage("threshold")
        found = region("low", "Low", volume.voxels < self._content["below"])
        return Findings(volume, Code("25045-6", "LN", "CT unspecified body region"), (found,), title="Low")


def open_version(directory: Path, *, trust_code: bool) -> Threshold:
    return Threshold(read_manifest(directory).model, json.loads((directory / _FILE).read_text()))


def problems(directory: Path, *, trust_code: bool) -> list[str]:
    try:
        json.loads((directory / _FILE).read_text())["below"]
    except (OSError, ValueError, KeyError) as error:
        return [f"{_FILE}: below: {type(error).__name__}"]
    return []
