"""The last check before a configuration is evaluated: what its names stand for, now that MONAI is there.

`safety` judges the text. Here each dotted path is followed to the object it names, which has to be defined in a package
of the list itself: a module may well have imported something else under a name of its own.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from monai.bundle.config_item import ComponentLocator

from node.domain.errors import InvalidModel
from pipelines.bundle.language import FUNCTIONS, allowed
from pipelines.bundle.safety import Use

_FIX = "Use what docs/bundles.md lists, override the key in ainode.yaml, or trust its code (--trust-code)"


def confirm(use: Use, file: str) -> None:
    """Hold every name that a configuration uses against what it stands for.

    Raises:
        InvalidModel: a name stands for nothing, for a module, or for something that is not on the list.
    """
    locator = ComponentLocator()
    for path, key in use.paths.items():
        _confirm(path, f"{file}: {key}")
    for target, key in use.targets.items():
        if "." in target:
            _confirm(target, f"{file}: {key}")
            continue
        modules = locator.get_component_module_name(target)
        if not modules:
            raise InvalidModel(f"{file}: {key}", f"MONAI has no {target!r}", "Write a name that this MONAI has")
        _confirm(f"{modules if isinstance(modules, str) else modules[0]}.{target}", f"{file}: {key}")


def _confirm(path: str, where: str) -> None:
    if path in FUNCTIONS:
        return
    found, origin = _follow(path, where)
    if isinstance(found, ModuleType) or not allowed(origin):
        raise InvalidModel(where, f"{path} is {origin}, which is not on the list of what a bundle may use", _FIX)


def _follow(path: str, where: str) -> tuple[Any, str]:
    """The object that a path names, and where the first on the way that is no module was defined."""
    root, *parts = path.split(".")
    found: Any = importlib.import_module(root)
    name, origin = root, ""
    for part in parts:
        if isinstance(found, ModuleType):
            if not hasattr(found, part):
                try:
                    importlib.import_module(f"{name}.{part}")
                except ImportError:
                    raise InvalidModel(where, f"there is no {path}", "Write a name that this MONAI has") from None
            name = f"{name}.{part}"
        found = getattr(found, part, None)
        if isinstance(found, ModuleType):
            if found.__name__ != name:
                raise InvalidModel(where, f"{name} is the module {found.__name__}", _FIX)
        elif not origin:
            module, own = getattr(found, "__module__", None), getattr(found, "__qualname__", part)
            origin = f"{module}.{own}" if module else name
    return found, origin or name
