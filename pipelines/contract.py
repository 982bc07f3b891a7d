"""What a pipeline is: three calls, no DICOM output, no database.

``select`` chooses what to read, or says why nothing here is for it. ``load`` brings weights to the device, once.
``analyse`` turns a Volume into Findings. Any of them may raise ``Refused`` ("not for this model", with the reason).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from node.domain.finding import Findings
from node.domain.model import ModelVersion
from node.domain.study import SeriesContent, StudyContent
from node.domain.volume import Volume

# ``stage("segment")`` marks the start of a stage, for the timeline.
Stage = Callable[[str], None]

# Stages that leave the device to another job. In every other stage a job has it for itself.
BESIDE_THE_DEVICE = frozenset({"select", "read", "load", "preprocess", "postprocess", "measure", "compose", "check"})


@dataclass(frozen=True)
class Selection:
    """The series to read, why it was taken, and why each other series was not (SeriesInstanceUID, reason).

    Findings lie on the grid of ``series``. ``more`` are read as well where a model wants several, for instance the
    contrasts of an MR study.

    ``planar``: the model wants images, not volumes. Every instance is then read by itself: the first of ``series`` is
    what findings lie on, all others follow it. A ``SeriesContent`` may hold some instances of its series only.
    """

    series: SeriesContent
    reason: str
    not_taken: tuple[tuple[str, str], ...] = field(default=())
    more: tuple[SeriesContent, ...] = field(default=())
    planar: bool = False


@runtime_checkable
class Pipeline(Protocol):
    """A pipeline; the entry point group ``ainode.pipelines`` names a factory without arguments."""

    @property
    def model(self) -> ModelVersion:
        """Name, version and digest; known without loading weights."""
        ...

    def select(self, study: StudyContent) -> Selection:
        """Choose the series. Raises ``Refused`` when none will do, with the reason for every one."""
        ...

    def load(self, device: str) -> None:
        """Make ready to analyse on ``device`` (``cpu``, ``cuda:0``). Called once per process."""
        ...

    def analyse(self, volume: Volume, stage: Stage, *others: Volume) -> Findings:
        """Analyse ``volume``, and ``others`` with it: what else the `Selection` asked for, in that order.

        Raises ``Refused`` when the content is not for this model.
        """
        ...


@runtime_checkable
class BatchPipeline(Pipeline, Protocol):
    """A pipeline that takes the images of several studies at once; ``batches`` says whether it wants to."""

    @property
    def batches(self) -> bool:
        """Whether jobs are to run together. Their selections are ``planar``; `select` is called in several threads."""
        ...

    def analyse_batch(self, batch: Sequence[Sequence[Volume]], stage: Stage) -> Sequence[Findings | Exception]:
        """Findings for each of ``batch``, as `analyse` gives them, or the error that is its own.

        Raises what is nobody's own, such as too little memory: each is then analysed by itself.
        """
        ...
