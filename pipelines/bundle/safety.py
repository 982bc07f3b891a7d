"""What a bundle's configuration would run, judged before anything of it is run.

A configuration is code: ``_target_`` names a class or function to call, and text that begins with ``$`` is Python. The
check reads both, evaluates nothing and imports nothing. It is strict where it cannot tell, and holds for configurations
that nobody vouches for; one that is trusted is not asked.

The references of MONAI (``@network``) are replaced as `monai.bundle.ReferenceResolver` replaces them, so that what is
judged is the very text that is evaluated.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from node.domain.errors import InvalidModel
from pipelines.bundle.language import (
    BUILTINS,
    IMPORTS,
    REFUSED_ATTRIBUTE_PREFIXES,
    REFUSED_ATTRIBUTES,
    allowed,
)

REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
_REFERENCES = "__local_refs"
# What MONAI gives every expression, under these names.
_GLOBALS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
_TRUST = "Use what docs/bundles.md lists, override the key in ainode.yaml, or trust its code (--trust-code)"
_MODES = ("default", "callable")
_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Call, ast.keyword, ast.Starred,
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp,
    ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.Lambda, ast.arguments, ast.arg, ast.JoinedStr,
    ast.FormattedValue, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


@dataclass
class Use:
    """What a configuration uses: dotted paths in expressions, targets, and what is wrong with it, in order."""

    paths: dict[str, str] = field(default_factory=dict)  # to the key that uses it
    targets: dict[str, str] = field(default_factory=dict)
    problems: list[InvalidModel] = field(default_factory=list)


def is_import(text: str) -> bool:
    """Whether MONAI would take this expression for an import statement."""
    return text.startswith("$") and imported(text) is not None


def imported(text: str) -> tuple[str, str] | None:
    """(name, dotted path) that an import expression binds; None where it is no import.

    As MONAI does it: the first statement counts, and its first name.
    """
    try:
        body = ast.parse(text[1:]).body
    except (SyntaxError, ValueError):
        return None
    match body:
        case [ast.Import(names=[first, *_]), *_]:
            return first.asname or first.name, first.name
        case [ast.ImportFrom(module=module, names=[first, *_]), *_]:
            return first.asname or first.name, f"{module}.{first.name}"
    return None


def may_import(text: str) -> bool:
    """Whether an import expression stays; others are dropped before anything is evaluated."""
    found = imported(text)
    return found is not None and found[1].split(".")[0] in IMPORTS


def examine(config: Mapping[str, Any], file: str) -> Use:
    """Judge a configuration whose macros and relative references are resolved.

    Args:
        config: what would be evaluated, and only that; its ``imports`` are those that stay.
        file: its name, for the problems.
    """
    use = Use()
    names = dict(_GLOBALS)
    for text in config.get("imports") or ():
        found = imported(text)
        if found is not None:
            names[found[0]] = found[1]
    for key, value in config.items():
        if key != "imports":
            for found_key, problem in _walk(key, value, names, use):
                use.problems.append(InvalidModel(f"{file}: {found_key}", problem, _TRUST))
    return use


def _walk(key: str, value: Any, names: Mapping[str, str], use: Use) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for problem in _component(value):
            yield f"{key}::_target_", problem
        if isinstance(value.get("_target_"), str):
            use.targets[value["_target_"]] = f"{key}::_target_"
    if isinstance(value, (dict, list)):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _walk(f"{key}::{name}", below, names, use)
    elif isinstance(value, str) and value.startswith("$"):
        for problem in _Expression(names, use.paths, key).problems(value):
            yield key, problem
    elif isinstance(value, str) and value.startswith("%"):
        yield key, f"the macro {value!r} stands within a macro, which MONAI does not resolve"
    elif isinstance(value, str) and REFERENCE.fullmatch(value) and _to_import(value[1:]):
        yield key, f"{value!r} refers to a module"


def _component(value: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a ``_target_``; what remains to be seen is whether a bare name is MONAI's."""
    if "_target_" not in value:
        return
    target, mode = value["_target_"], value.get("_mode_", "default")
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", target):
        yield f"{target!r} is no name of a class or function"
    elif hasattr(builtins, target) or not allowed(target if "." in target else f"monai.transforms.{target}"):
        yield f"{target!r} is not on the list of what a bundle may call"
    if mode not in _MODES or "_debug_" in value:
        yield "_mode_ or _debug_ asks for a debugger"


def _to_import(reference: str) -> bool:
    return reference.split("::", maxsplit=1)[0] == "imports"


class _Expression:
    """Judges one ``$`` expression; ``paths`` collects the dotted paths that it uses."""

    def __init__(self, names: Mapping[str, str], paths: dict[str, str], key: str) -> None:
        self._names = names
        self._paths = paths
        self._key = key
        self._bound: frozenset[str] = frozenset()

    def problems(self, text: str) -> Iterator[str]:
        if is_import(text):
            yield f"{text!r} imports a module outside of the key imports"
            return
        shown = f"in {text!r}: "
        try:
            tree = ast.parse(resolved(text)[1:], mode="eval")
        except (SyntaxError, ValueError, RecursionError) as error:
            yield f"{shown}no expression ({error})"
            return
        nodes = list(ast.walk(tree))
        self._bound = frozenset(_bound_names(nodes))
        taken = self._bound & ({*self._names, *BUILTINS, _REFERENCES})
        if taken:
            yield f"{shown}{', '.join(sorted(taken))} is given another meaning"
            return
        odd = [node for node in nodes if not isinstance(node, _NODES)]
        if odd:
            yield f"{shown}{type(odd[0]).__name__} is not allowed"
            return
        for problem in self._visit(tree):
            yield shown + problem

    def _visit(self, node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Attribute() | ast.Name() if (path := self._path(node)) is not None:
                yield from self._judge(path)
                return
            case ast.Attribute(attr=name):
                if name in REFUSED_ATTRIBUTES or name.startswith(REFUSED_ATTRIBUTE_PREFIXES):
                    yield f"the attribute {name} is not allowed"
            case ast.Subscript(value=ast.Name(id=name), slice=key) if name == _REFERENCES:
                if not (isinstance(key, ast.Constant) and isinstance(key.value, str)) or _to_import(key.value):
                    yield "it refers to a module"
                return
            case ast.Name(id=name):
                if name not in self._bound and name not in BUILTINS:
                    yield f"the name {name} is not allowed"
            case ast.Call(func=function, args=[path], keywords=[*named]) if self._path(function) == "torch.load":
                # Without weights_only, as it is by default, torch.load unpickles tensors and plain containers alone.
                if any(keyword.arg != "map_location" for keyword in named):
                    yield "torch.load takes a path and a map_location here"
                for child in (path, *named):
                    yield from self._visit(child)
                return
        for child in ast.iter_child_nodes(node):
            yield from self._visit(child)

    def _path(self, node: ast.AST) -> str | None:
        """The dotted path of a name that hangs on a module, spelt out; None for anything else."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in self._names:
            return ".".join([self._names[node.id], *reversed(parts)])
        return None

    def _judge(self, path: str) -> Iterator[str]:
        if not allowed(path):
            yield f"{path} is not on the list of what a bundle may use"
        elif is_module(path):
            yield f"{path} is a module: name what is meant in it"
        else:
            self._paths[path] = self._key


def _bound_names(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id


def references(text: str) -> list[str]:
    """The ids that a text of the configuration refers to, as MONAI finds them."""
    text = text.replace("#", "::")
    found = REFERENCE.findall(text)
    return [item[1:] for item in found if text.startswith("$") or text == item]


def resolved(text: str) -> str:
    """An expression as MONAI evaluates it: every reference is a look-up in its resolved content."""
    text = text.replace("#", "::")
    for item in sorted(REFERENCE.findall(text), key=len, reverse=True):
        text = text.replace(item, f"{_REFERENCES}['{item[1:]}']")
    return text


@cache
def is_module(path: str) -> bool:
    """Whether a dotted path names a module, by the files of its package; nothing is imported."""
    root, *parts = path.split(".")
    spec = importlib.util.find_spec(root)
    if not parts or spec is None:
        return True
    places = [Path(place, *parts) for place in spec.submodule_search_locations or ()]
    return any(place.is_dir() or place.with_suffix(".py").is_file() for place in places)
