"""``ainode pipelines new``: a project with a small pipeline that runs, is tested and is there to be changed."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated

import typer

import pipelines
from node.domain.errors import InvalidInput

# Its name is none that Python could import: what lies below are no modules of ours.
_TEMPLATES = Path(pipelines.__path__[0]) / "scaffold.in"
_IN_PATHS = "NAME"
_SUFFIX = ".in"
# The lines of the templates fit in theirs with names up to this long.
_LONGEST_NAME = 30


def new(
    name: Annotated[str, typer.Argument(help="What the pipeline is called, for instance bone_ct.")],
    folder: Annotated[
        Path, typer.Option("--in", metavar="DIR", help="Where the project is made.", exists=True, file_okay=False)
    ] = Path(),
) -> None:
    """Write a project with a small pipeline that runs, to be changed into yours."""
    project = scaffold(name, folder)
    typer.echo(f"{project} is written: a pipeline that measures bone, with its test. Next:")
    typer.echo(f"  python -m pip install -e {project}")
    typer.echo(f"  python -m pytest {project}")
    typer.echo(f"  ainode run {name} STUDY_DIR --out out")


def scaffold(name: str, folder: Path) -> Path:
    """Write the project ``folder/name``; returns it.

    Raises:
        InvalidInput: the name cannot be that of a pipeline, or ``folder/name`` is there already.
    """
    _check(name)
    project = folder / name
    try:
        project.mkdir()
    except FileExistsError:
        raise InvalidInput(
            "NAME", f"{project} is there already", "Choose another name, or another folder with --in"
        ) from None
    words = {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "class_name": "".join(part.capitalize() for part in name.split("_")) + "Pipeline",
    }
    for template in sorted(_TEMPLATES.rglob(f"*{_SUFFIX}")):
        relative = template.relative_to(_TEMPLATES).as_posix()
        path = project / relative.replace(_IN_PATHS, name).removesuffix(_SUFFIX)
        path.parent.mkdir(exist_ok=True)
        path.write_text(Template(template.read_text("utf-8")).substitute(words), "utf-8")
    return project


def _check(name: str) -> None:
    """The name is that of a package, of a distribution, and of a model."""
    from pipelines.registry import available

    if not re.fullmatch("[a-z](_?[a-z0-9])*", name) or keyword.iskeyword(name) or len(name) > _LONGEST_NAME:
        fix = f"Use a to z, 0 to 9 and _ between them, a letter first, at most {_LONGEST_NAME}, and no word of Python"
        raise InvalidInput("NAME", f"{name!r} cannot name a pipeline", f"{fix}; for instance bone_ct")
    if name in available():
        raise InvalidInput("NAME", f"a pipeline {name} is installed already", "Choose another name")
    found = find_spec(name)
    # A folder without code is found too, as a namespace without origin; that is nobody's package.
    if found is not None and found.origin is not None:
        raise InvalidInput("NAME", f"Python has a module {name} already ({found.origin})", "Choose another name")
