"""The pipeline: CT lung densitometry. torch and MONAI are imported in ``load``, not with this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.domain.errors import OutOfMemory, Unavailable
from node.domain.finding import Findings
from node.domain.model import ModelVersion
from node.domain.study import StudyContent
from node.domain.volume import Volume
from pipelines.contract import Selection, Stage
from pipelines.lung_density_ct.manifest import NAME, model_version
from pipelines.lung_density_ct.selection import select

if TYPE_CHECKING:
    import torch


class LungDensityCT:
    """Lung volumes, mean density, LAA-950 and Perc15; needs no weights. See MODEL_CARD.md."""

    def __init__(self) -> None:
        self._device: torch.device | None = None

    @property
    def model(self) -> ModelVersion:
        """Name, version and the digest of the code."""
        return model_version()

    def select(self, study: StudyContent) -> Selection:
        """Choose the best axial chest CT series; see `selection` for the rules."""
        return select(study)

    def load(self, device: str) -> None:
        """Import the framework and prove that the device is there.

        Raises:
            Unavailable: torch or MONAI is missing, or there is no such device.
        """
        try:
            from pipelines.lung_density_ct import measure, segment  # noqa: F401
            from pipelines.runtime import device_of
        except ModuleNotFoundError as error:
            raise Unavailable(f"pipeline {NAME} needs the module {error.name!r}, which is missing") from error
        self._device = device_of(device)

    def analyse(self, volume: Volume, stage: Stage, *others: Volume) -> Findings:
        """Segment the lungs and measure them.

        Raises:
            Refused: there are no lungs in the volume.
            OutOfMemory: the device or the host had too little.
            Unavailable: called before ``load``.
        """
        if self._device is None:
            raise Unavailable(f"pipeline {NAME} was not loaded to a device before it was asked to analyse")
        import torch

        from pipelines.lung_density_ct.measure import findings
        from pipelines.lung_density_ct.segment import segment

        try:
            stage("segment")
            with torch.inference_mode():
                lungs = segment(volume, self._device)
            stage("measure")
            return findings(volume, lungs)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory(f"pipeline {NAME}, volume of {volume.shape} on {self._device}: {error}") from error
