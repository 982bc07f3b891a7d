"""The settings as text, before they have types: a tree, and where in the file or environment each key of it stands.

Every scalar is text until the type of its key reads it. So ``007`` stays a PatientID, ``NO`` stays a country, and a
value means the same in the file and in the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from config.neighbours import PeerSettings, StowSettings
from config.section import Section
from config.settings import Settings
from config.values import Problem, did_you_mean
from node.domain.errors import InvalidSettings

PREFIX = "AINODE_"
CONFIG_VARIABLE = "AINODE_CONFIG"
# Read by the test suite, never by the node.
TEST_PREFIX = "AINODE_TEST_"

Location: TypeAlias = tuple[str | int, ...]


@dataclass
class Source:
    """The tree, where each of its keys stands (``node.yaml line 7`` or a variable), and what is wrong so far."""

    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[Location, str] = field(default_factory=dict)
    problems: list[tuple[str, Problem]] = field(default_factory=list)

    def report(self, problem: Problem) -> None:
        """Note a problem under the place of its key, or of the nearest key above it that was written."""
        above = (problem.path[:n] for n in range(len(problem.path), -1, -1))
        place = next((self.places[path] for path in above if path in self.places), "")
        key = dotted(problem.path)
        self.problems.append((": ".join(part for part in (place, key) if part) or "settings", problem))

    def error(self) -> InvalidSettings:
        """All problems as one error, one line each."""
        if len(self.problems) == 1:
            where, problem = self.problems[0]
            return InvalidSettings(where, problem.problem, problem.fix)
        lines = [f"\n  {where}: {problem.problem}. {problem.fix}" for where, problem in self.problems]
        return InvalidSettings("settings", f"{len(self.problems)} problems", "".join(lines))


class _Loader(yaml.SafeLoader):
    """Refuses aliases: they would put one value on two lines, or inside itself."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the next node, if it is not an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*name)", problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)


def dotted(path: Location) -> str:
    """``routes[0].when.Modality``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def read_file(file: Path | None) -> Source:
    """Read a YAML file; None gives an empty source.

    Raises:
        InvalidSettings: the file cannot be read, is no YAML, or is no mapping.
    """
    source = Source()
    if file is None:
        return source
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        fix = f"Name a readable file with --config or {CONFIG_VARIABLE}"
        raise InvalidSettings(str(file), error.strerror or str(error), fix) from None
    except UnicodeDecodeError:
        raise InvalidSettings(str(file), "is not UTF-8", "Save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidSettings(f"{file}{line}", f"cannot be read: {error.problem}", "Mend the line") from None
    except yaml.YAMLError as error:
        raise InvalidSettings(str(file), f"cannot be read: {error}", "Mend the file") from None
    if root is None:
        return source
    if not isinstance(root, yaml.MappingNode):
        raise InvalidSettings(f"{file} line 1", "is no mapping", "Begin with a section, for instance `node:`")
    source.tree = _plain(root, (), source, str(file))
    return source


def _plain(node: yaml.Node, path: Location, source: Source, name: str) -> Any:
    """Turn a YAML node into dicts, lists, text and None, noting lines and duplicate keys."""
    source.places.setdefault(path, f"{name} line {node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, source, name)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), source, name) for index, item in enumerate(node.value)]
    is_null = isinstance(node, yaml.ScalarNode) and node.style is None and node.value in ("", "~", "null")
    return None if is_null else node.value


def _mapping(node: yaml.MappingNode, path: Location, source: Source, name: str) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        here = (*path, key)
        if key in mapping:
            first = source.places[here].rpartition(" ")[2]
            source.problems.append(
                (
                    f"{name} line {line}: {dotted(here)}",
                    Problem(here, f"is there since line {first}", "Keep one of them"),
                )
            )
            continue
        source.places[here] = f"{name} line {line}"
        mapping[key] = _plain(value_node, here, source, name)
    return mapping


def override(source: Source, environ: Mapping[str, str]) -> None:
    """Lay the ``AINODE_*`` variables over the tree; an unknown one becomes a problem of the source."""
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable.startswith(TEST_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        path = _variable_path(variable, source.tree)
        if path is None:
            fix = did_you_mean(variable, _known_variables(source.tree)) or "Nest with two underscores: AINODE_API__PORT"
            source.problems.append((variable, Problem((), "unknown variable", fix)))
        elif environ[variable]:
            _place(source, path, variable, environ[variable])


def _variable_path(variable: str, tree: Mapping[str, Any]) -> tuple[str, ...] | None:
    """``AINODE_PEERS__PACS__PORT`` is ``peers.PACS.port``; a peer keeps the spelling of the file where it is there."""
    section, *keys = variable.removeprefix(PREFIX).split("__")
    section = section.lower()
    match section, keys:
        case "peers", [name, key] if name and key.lower() in PeerSettings.model_fields:
            spelt = (known for known in _peer_names(tree) if known.casefold() == name.casefold())
            return section, next(spelt, name), key.lower()
        case "peers", [name, part, key] if name and part.lower() == "stow" and key.lower() in StowSettings.model_fields:
            spelt = (known for known in _peer_names(tree) if known.casefold() == name.casefold())
            return section, next(spelt, name), "stow", key.lower()
        case _, [key] if key.lower() in _section_keys(section):
            return section, key.lower()
    return None


def _place(source: Source, path: tuple[str, ...], variable: str, value: str) -> None:
    branch = source.tree
    for key in path[:-1]:
        branch[key] = branch[key] if branch.get(key) is not None else {}
        if not isinstance(branch[key], dict):
            return  # the file has no section there: reported with its line when the types are checked
        branch = branch[key]
    branch[path[-1]] = value
    source.places[path] = variable


def _section_keys(section: str) -> Iterable[str]:
    """The keys of a section that has fixed ones; none for ``peers`` and ``routes``."""
    known = Settings.model_fields.get(section)
    annotation = known.annotation if known else None
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, Section) else ()


def _peer_names(tree: Mapping[str, Any]) -> list[str]:
    peers = tree.get("peers")
    return list(peers) if isinstance(peers, dict) else []


def _known_variables(tree: Mapping[str, Any]) -> list[str]:
    sections = [f"{PREFIX}{s}__{key}" for s in Settings.model_fields for key in _section_keys(s)]
    keys = [*PeerSettings.model_fields, *(f"STOW__{key}" for key in StowSettings.model_fields)]
    peers = [f"{PREFIX}PEERS__{name}__{key}" for name in _peer_names(tree) for key in keys]
    return [CONFIG_VARIABLE, *(variable.upper() for variable in (*sections, *peers))]
