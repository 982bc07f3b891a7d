"""A registered bundle as a pipeline. Torch and MONAI come with ``load``, by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from node.domain.errors import InvalidModel, Unavailable
from node.domain.finding import Findings
from node.domain.model import ModelVersion
from node.domain.study import StudyContent
from node.domain.volume import Volume
from pipelines.bundle import findings
from pipelines.bundle.config import parts, read_config, read_metadata
from pipelines.bundle.metadata import data_format
from pipelines.bundle.select import select
from pipelines.bundle.sidefile import Kind, read_side_file
from pipelines.contract import Selection, Stage
from pipelines.weights import read_manifest

BUNDLE = "bundle"


class BundlePipeline:
    """A MONAI bundle, unedited, with its side file.

    Args:
        directory: of the registered version; its files have been verified.
        trust_code: whether the bundle's own Python, and TorchScript, may run.

    Raises:
        InvalidModel: the side file, the configuration or the manifest is wrong.
    """

    def __init__(self, directory: Path, *, trust_code: bool) -> None:
        self._model = read_manifest(directory).model
        self._bundle = directory / BUNDLE
        self._trust_code = trust_code
        self._side = read_side_file(directory)
        self._data = data_format(read_metadata(self._bundle))
        self._kind = self._side.kind_of(self._data.kind)
        self._planar = self._side.planar(self._data.spatial_dims)
        self._engine: Any = None

    @property
    def model(self) -> ModelVersion:
        """Name, version and the digest over all files."""
        return self._model

    @property
    def batches(self) -> bool:
        """Images of several studies go through the network together."""
        return self._planar

    def select(self, study: StudyContent) -> Selection:
        """Choose the series, or the images, that the side file asks for."""
        return select(study, self._side.inputs, planar=self._planar)

    def load(self, device: str) -> None:
        """Build the network on ``device`` and load its weights; does nothing when it is there already.

        Raises:
            InvalidModel: the configuration asks for what it may not, or cannot be built, or the weights do not fit.
            Unavailable: torch or MONAI, or what the bundle needs beside them, is missing, or there is no such device.
        """
        if self._engine is not None:
            return
        config, file = read_config(self._bundle, self._side.overrides)
        wanted = parts(config, file, trust_code=self._trust_code)
        try:
            engine = importlib.import_module("pipelines.bundle.engine")
            runtime = importlib.import_module("pipelines.runtime")
        except ModuleNotFoundError as error:
            raise Unavailable(f"model {self._model.name} needs the module {error.name!r}, which is missing") from error
        self._engine = engine.Engine(
            self._bundle,
            wanted,
            self._side,
            self._data,
            runtime.device_of(device),
            kind=self._kind,
            planar=self._planar,
            trust_code=self._trust_code,
        )

    def analyse(self, volume: Volume, stage: Stage, *others: Volume) -> Findings:
        """Run the bundle and put what it says into the words of the side file.

        Raises:
            Refused: the series do not fit together.
            InvalidModel: what came out has no meaning in the side file.
            OutOfMemory: the device or the host had too little.
            Unavailable: called before ``load``.
        """
        (found,) = self.analyse_batch([(volume, *others)], stage)
        if isinstance(found, Exception):
            raise found
        return found

    def analyse_batch(self, batch: Sequence[Sequence[Volume]], stage: Stage) -> Sequence[Findings | Exception]:
        """Run the bundle on several studies at once; one that fails fails alone.

        Raises:
            OutOfMemory: the device or the host had too little.
            Unavailable: called before ``load``.
        """
        if self._engine is None:
            raise Unavailable(f"model {self._model.name} was not loaded to a device before it was asked to analyse")
        results = self._engine.run(batch, stage)
        stage("measure")
        return [
            result if isinstance(result, Exception) else self._said(result, volumes[0])
            for result, volumes in zip(results, batch, strict=True)
        ]

    def _said(self, result: Any, volume: Volume) -> Findings | Exception:
        try:
            return self._findings(result, volume)
        except Exception as error:  # noqa: BLE001  (given to whoever asked for this study)
            return error

    def _findings(self, result: Any, volume: Volume) -> Findings:
        match self._kind:
            case Kind.SEGMENTATION:
                return findings.segmentation(result, volume, self._side, self._data)
            case Kind.CLASSIFICATION:
                return findings.classification(result, volume, self._side, self._data)
            case Kind.DETECTION:
                boxes = importlib.import_module("pipelines.bundle.detection").on_volume(result, volume, self._side)
                return findings.detection(boxes, volume, self._side)
        raise InvalidModel("ainode.yaml: kind", f"{self._kind} is not known", "Write another kind")
