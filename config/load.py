"""Reads the settings once: one YAML file, then the environment over it; says where each mistake stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.neighbours import PeerSettings
from config.profiles import ProfileSettings
from config.settings import ConditionSettings, RouteSettings, Settings
from config.source import CONFIG_VARIABLE, Location, override, read_file
from config.values import Problem, did_you_mean

DEFAULT_FILE = Path("node.yaml")
_SECRETS = frozenset({"token", "url", "dicomweb_token", "hub_token", "mlflow_token"})  # no other keys have these names
_FIXES = {
    "missing": "Add it",
    "bool_parsing": "Write true or false",
    "int_parsing": "Write a whole number",
    "float_parsing": "Write a number",
    "tuple_type": "Write a list, for instance [PACS]",
    "string_type": "Write a text",
    "string_pattern_mismatch": "See config/node.example.yaml for what it may hold",
}
_SECTION_WANTED = ("dict_type", "mapping_type", "model_type", "model_attributes_type")


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Args:
        path: the YAML file. None means the file that ``AINODE_CONFIG`` names, else ``node.yaml`` in the working
            directory if there is one, else the defaults alone.
        environ: ``AINODE_API__PORT=9000`` sets ``api.port``. An empty variable counts as not set, ``AINODE_TEST_*``
            belongs to the tests, and every other unknown ``AINODE_*`` is refused.

    Raises:
        InvalidSettings: lists every problem found, each with its file and line (or variable), key and fix.
    """
    source = read_file(_chosen(path, environ))
    override(source, environ)
    # A section whose keys are all commented out is an empty one.
    tree = {key: value for key, value in source.tree.items() if value is not None or key not in Settings.model_fields}
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            for problem in _problems(details):
                source.report(problem)
        raise source.error() from None
    if source.problems:
        raise source.error()
    return settings


def _chosen(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return path
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _problems(details: ErrorDetails) -> Iterator[Problem]:
    """What pydantic found, in this project's words; a secret's value is never repeated."""
    path = tuple(part for part in details["loc"] if part != "[key]")
    kind, context = details["type"], details.get("ctx", {})
    if kind == "refused":
        for problem in cast("tuple[Problem, ...]", context["problems"]):
            yield Problem((*path, *problem.path), problem.problem, problem.fix)
    elif kind == "extra_forbidden":
        known = _keys_at(path[:-1])
        fix = did_you_mean(str(path[-1]), known) or f"The keys here are {', '.join(known)}"
        yield Problem(path, "unknown key", fix)
    elif kind == "literal_error":
        choices = re.findall(r"'(\w+)'", str(context["expected"]))
        yield Problem(path, f"{details['input']!r} is not known here", f"Write one of {', '.join(choices)}")
    elif kind in _SECTION_WANTED:
        yield Problem(path, "is no section", f"Write keys below it: {', '.join(_keys_at(path)) or 'NAME: ...'}")
    else:
        secret = path[-1:] and path[-1] in _SECRETS
        shown = f"{details['input']!r}: " if isinstance(details["input"], str) and not secret else ""
        yield Problem(
            path, shown + details["msg"][0].lower() + details["msg"][1:], _FIXES.get(kind, "Change the value")
        )


def _keys_at(path: Location) -> list[str]:
    """The keys that the section at ``path`` may have, as the file spells them."""
    model: type[BaseModel]
    match path:
        case ():
            model = Settings
        case ("peers", _):
            model = PeerSettings
        case ("profiles", _):
            model = ProfileSettings
        case ("routes", _):
            model = RouteSettings
        case ("routes", _, "when", _):
            model = ConditionSettings
        case (str(section),):
            annotation = Settings.model_fields[section].annotation
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                return []
            model = annotation
        case _:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]
