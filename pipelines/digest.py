"""The digest that names a model version: over the files that make it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType


def digest_of(*packages: ModuleType) -> str:
    """SHA-256, in hex, over the name and the content of every file of these packages, in order of name.

    Bytecode is left out: it depends on the interpreter, not on the version.
    """
    digest = hashlib.sha256()
    for package in packages:
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            content = path.read_bytes()
            # Lengths keep the boundary between a name and its content: no two sets of files give one stream.
            name = f"{package.__name__}/{path.relative_to(root).as_posix()}"
            digest.update(f"{len(name)} {name} {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()
