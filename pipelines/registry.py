"""Model version to pipeline: installed ones by the entry point group ``ainode.pipelines``, registered ones from files.

The module behind an entry point has to import without its framework: torch and MONAI belong into ``load`` and what it
calls. So the dispatcher learns a model's version in a process that never holds torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol, cast

from node.domain.errors import InvalidModel, NotFound, Unavailable
from node.domain.model import ModelVersion
from pipelines.contract import Pipeline
from pipelines.weights import verify

GROUP = "ainode.pipelines"


class Kind(Protocol):
    """A module that runs the registered versions of one kind."""

    def open_version(self, directory: Path, *, trust_code: bool) -> Pipeline:
        """The pipeline of a version whose files have been verified. Imports no framework."""
        ...

    def problems(self, directory: Path, *, trust_code: bool) -> list[str]:
        """What is wrong with a version that is to be added, by file and key."""
        ...


# The kind that a manifest names, and the module that runs it.
KINDS = {"monai-bundle": "pipelines.bundle"}


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


def kind(name: str) -> Kind:
    """The module of a kind.

    Raises:
        Unavailable: it cannot be imported.
        InvalidModel: there is no such kind.
    """
    if name not in KINDS:
        raise InvalidModel("version.json: kind", f"{name!r} is not known", f"Known: {', '.join(KINDS)}")
    try:
        return cast(Kind, import_module(KINDS[name]))
    except ImportError as error:
        raise Unavailable(f"models of the kind {name} cannot be run: {error}") from error


def open_version(model: ModelVersion, directory: Path | None, *, trust_code: bool = False) -> Pipeline:
    """The pipeline of exactly this version; the files of a registered one are verified first.

    Args:
        directory: of a registered version; None for an installed one.
        trust_code: whether Python code in the version may run.

    Raises:
        InvalidModel: its files are not those that were registered, or it is another version than the one wanted.
        NotFound, Unavailable: as `create`.
    """
    if directory is None:
        pipeline = create(model.name)
    else:
        pipeline = kind(verify(directory).kind).open_version(directory, trust_code=trust_code)
    if pipeline.model != model:
        problem = f"the job is pinned to {model.label}, here is {pipeline.model.label}"
        raise InvalidModel("version", problem, "Restart the node after an upgrade")
    return pipeline


def _entry_point(name: str) -> EntryPoint:
    points = entry_points(group=GROUP, name=name)
    if not points:
        known = ", ".join(available()) or "none is installed"
        raise NotFound(f"no pipeline is named {name!r}; known: {known}")
    return next(iter(points))
