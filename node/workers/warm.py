"""Pipelines that stay loaded between jobs, the latest used ones, within a budget of memory."""

from __future__ import annotations

from pathlib import Path

from node.domain.model import ModelVersion
from pipelines.contract import Pipeline


class Warm:
    """Pipelines by their version.

    What a version takes is counted by the size of its files, most of which are weights; an installed one counts as
    nothing.

    Args:
        budget_bytes: beyond it the one that was not used for longest is dropped; the latest used is always kept.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._kept: dict[ModelVersion, tuple[Pipeline, int]] = {}

    def take(self, model: ModelVersion) -> Pipeline | None:
        """Take one out, to use it or to be rid of it; None where it is not here."""
        return self._kept.pop(model, (None, 0))[0]

    def keep(self, model: ModelVersion, pipeline: Pipeline, directory: Path | None) -> None:
        """Put one in, as the latest used; ``directory`` holds its files."""
        size = 0 if directory is None else sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
        self._kept.pop(model, None)
        self._kept[model] = pipeline, size
        while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self._budget:
            del self._kept[next(iter(self._kept))]
