"""A model version from its source to the list of versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from node.domain.errors import InvalidInput, InvalidModel
from node.domain.model import Acquired, KnownVersion, Qualification
from node.ports import Clock
from node.services.models import BUNDLE, Models, compose
from pipelines import weights

_METADATA = "configs/metadata.json"


class Staging(Protocol):
    """Where versions are made and kept."""

    def staging(self) -> AbstractContextManager[Path]: ...
    def acquire(self, source: str, into: Path, *, sha256: str | None = None) -> Acquired: ...
    def place(self, staged: Path, name: str, digest: str) -> str: ...


@dataclass(frozen=True)
class Source:
    """What is to be added. Name, version and title default to what the bundle's own metadata say.

    ``side_file`` is the site's ainode.yaml; ``golden`` a folder with ``input`` and ``expected.json``; ``sha256`` that
    of the zip file, or of all files of a directory or from a registry. ``trusted`` allows Python code in it.
    """

    address: str
    name: str | None = None
    version: str | None = None
    title: str | None = None
    kind: str = "monai-bundle"
    side_file: Path | None = None
    golden: Path | None = None
    sha256: str | None = None
    trusted: bool = False


class Register:
    """Adds versions from a directory, a zip file, an HTTPS address or a registry.

    Args:
        installed: the names of installed pipelines. A version that is to take the place of one says so.
    """

    def __init__(
        self, clock: Clock, files: Staging, models: Models, installed: Callable[[], Container[str]] = frozenset
    ) -> None:
        self._clock = clock
        self._files = files
        self._models = models
        self._installed = installed

    def add(self, source: Source, *, who: str, why: str) -> KnownVersion:
        """Copy, digest and register. A directory that is a version already (it has a manifest) is taken as it is.

        Raises:
            InvalidInput: the source cannot be used; names the option.
            InvalidModel: it cannot run; names file and key.
            PeerUnreachable, StorageFull: it cannot be fetched.
        """
        with self._files.staging() as directory:
            staged = directory / "version"
            bundle = directory / "acquired"
            acquired = self._files.acquire(source.address, bundle, sha256=source.sha256)
            if (bundle / weights.MANIFEST).is_file():
                bundle.rename(staged)
            else:
                staged.mkdir()
                bundle.rename(staged / BUNDLE)
                self._compose(staged, source, acquired)
            return self._models.add(
                staged, self._files, source=acquired.source, trusted=source.trusted, who=who, why=why
            )

    def _compose(self, staged: Path, source: Source, acquired: Acquired) -> None:
        said = _metadata(staged / BUNDLE / _METADATA)
        name = source.name or acquired.name
        if source.name is None and name in self._installed():
            fix = f"Give another with --name; or --name {name}, if it is to take the place of that pipeline"
            raise InvalidInput("name", f"{name} is an installed pipeline", fix)
        version = source.version or str(said.get("version", ""))
        if not version:
            raise InvalidInput("version", f"{_METADATA} has none", "Give one with --version")
        compose(
            staged,
            name=name,
            version=version,
            title=source.title or str(said.get("name", name)),
            source=acquired.source,
            created_at=self._clock.now().isoformat(),
            qualification=Qualification.RESEARCH,
            side_file=source.side_file,
            golden=source.golden,
            kind_of=source.kind,
        )


def _metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InvalidModel(_METADATA, f"is no JSON: {error}", "Mend it and add the bundle again") from None
    return said if isinstance(said, dict) else {}
