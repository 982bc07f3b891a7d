"""A bundle's own Python: importable while its bundle is at work, and only then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


class OwnCode:
    """The packages that lie in a bundle, mostly ``scripts``; several bundles of one process have them of one name."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._names = frozenset(path.name for path in bundle.iterdir() if path.is_dir() and any(path.rglob("*.py")))
        self._loaded: dict[str, ModuleType] = {}

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Put the bundle first on the path, with the modules that were imported from it before."""
        aside = self._take()
        writes = sys.dont_write_bytecode
        # A version's directory never changes: bytecode in it would be an added file.
        sys.dont_write_bytecode = True
        sys.modules.update(self._loaded)
        sys.path.insert(0, str(self._bundle))
        try:
            yield
        finally:
            sys.path.remove(str(self._bundle))
            sys.dont_write_bytecode = writes
            self._loaded = self._take()
            sys.modules.update(aside)

    def _take(self) -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.split(".")[0] in self._names]
        return {name: sys.modules.pop(name) for name in names}
