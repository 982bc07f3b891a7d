"""Certificates for tests of TLS, made by the ``openssl`` command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests import peers


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    cert: Path
    key: Path


class Authority:
    """A CA in a directory of its own; ``pem`` is its certificate."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.pem, self._key = directory / "ca.pem", directory / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=CA", "-keyout", self._key, "-out", self.pem
        )

    def issue(
        self, name: str, *, subject: str | None = None, days: int = 2, key: str = "ec", host: str = "localhost"
    ) -> Pair:
        """A certificate for ``host`` and 127.0.0.1, of subject ``/O=Hospital/CN=<name>``; days < 0: expired."""
        request, extensions = self._directory / f"{name}.csr", self._directory / "extensions"
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        kind = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256") if key == "ec" else ("rsa:2048",)
        subject = subject or f"/O=Hospital/CN={name}"
        _openssl("req", "-newkey", *kind, "-nodes", "-utf8", "-subj", subject, "-keyout", pair.key, "-out", request)
        extensions.write_text(f"subjectAltName=DNS:{host},IP:127.0.0.1\n")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self._key, "-days", str(days)),
            *("-extfile", extensions, "-out", pair.cert),
        )
        return pair


def _openssl(*words: str | Path) -> None:
    subprocess.run([peers.program("openssl"), *words], check=True, capture_output=True)
