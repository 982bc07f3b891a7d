"""Where the files of a version lie, and what they may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.domain.errors import InvalidModel
from node.domain.model import ModelVersion
from node.ports import InstanceFiles
from node.repositories import Transaction
from pipelines import weights


@dataclass(frozen=True)
class Located:
    """Where a version lies, None for an installed one, and whether code that it brings may run."""

    directory: Path | None
    trust_code: bool


class Locate:
    """Finds the files of a version, and what they may do.

    Args:
        public_keys: Ed25519, PEM: who may sign.
        require_signature: refuse what none of them signed.
    """

    def __init__(
        self,
        read: Transaction,
        files: InstanceFiles,
        public_keys: Sequence[Path] = (),
        *,
        require_signature: bool = False,
    ) -> None:
        self._read = read
        self._files = files
        self._public_keys = public_keys
        self._require_signature = require_signature

    def __call__(self, model: ModelVersion) -> Located:
        """Find one version.

        Raises:
            InvalidModel: it has to be signed by a key that is trusted, and is not.
        """
        with self._read() as tx:
            known = tx.versions.get(model)
        if known is None or known.path is None:
            return Located(None, trust_code=True)
        directory = self._files.absolute(known.path)
        if self._require_signature:
            weights.check_signature(directory, self._keys())
        return Located(directory, known.trusted or self.is_signed(directory))

    def is_signed(self, directory: Path) -> bool:
        """Whether a key that is trusted signed the version in a directory."""
        try:
            weights.check_signature(directory, self._keys())
        except InvalidModel:
            return False
        return True

    def _keys(self) -> list[bytes]:
        return [path.read_bytes() for path in self._public_keys]
