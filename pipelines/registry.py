"""Name to pipeline, by the entry point group ``ainode.pipelines``; imported late.

The module behind an entry point has to import without its framework: torch and MONAI belong into ``load`` and what it
calls. So the dispatcher learns a model's version in a process that never holds torch.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from node.domain.errors import NotFound, Unavailable
from node.domain.model import ModelVersion
from pipelines.contract import Pipeline

GROUP = "ainode.pipelines"


def available() -> dict[str, str]:
    """Installed pipelines: name to ``module:factory``. Imports none of them."""
    return {point.name: point.value for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def create(name: str) -> Pipeline:
    """Build a pipeline; nothing is loaded to a device yet.

    Raises:
        NotFound: no pipeline has this name; the text lists those there are.
        Unavailable: its code cannot be imported; the text says which module is missing, and for which pipeline.
    """
    point = _entry_point(name)
    try:
        factory = point.load()
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"pipeline {name} ({point.value}) needs the module {error.name!r}, which is missing"
        ) from error
    except (ImportError, AttributeError) as error:
        raise Unavailable(f"pipeline {name} ({point.value}) cannot be imported: {error}") from error
    pipeline = factory()
    if not isinstance(pipeline, Pipeline):
        raise Unavailable(f"pipeline {name}: {point.value} gives a {type(pipeline).__name__}, which is no Pipeline")
    return pipeline


def model_version(name: str) -> ModelVersion:
    """The version that ``create(name)`` would run. Raises as `create` does."""
    return create(name).model


def _entry_point(name: str) -> EntryPoint:
    points = entry_points(group=GROUP, name=name)
    if not points:
        known = ", ".join(available()) or "none is installed"
        raise NotFound(f"no pipeline is named {name!r}; known: {known}")
    return next(iter(points))
