"""A model from an HTTPS address: with its digest, no larger than allowed, and never by plain HTTP."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from node.domain.errors import AinodeError, InvalidInput, PeerUnreachable, StorageFull
from node.files.models import ModelFiles
from tests.certificates import Authority
from tests.tls_server import serving

pytestmark = pytest.mark.peer


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; ``/to/ADDRESS`` redirects there."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose CA this machine trusts; it has ``model.zip``."""
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("server")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.pem))
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "model.zip", "w") as file:
        file.writestr("model/configs/metadata.json", "{}")
    with serving(partial(Handler, directory=str(served)), pair) as at:
        yield at


@pytest.fixture
def digest(address: str, tmp_path: Path) -> str:
    return hashlib.sha256((tmp_path / "served" / "model.zip").read_bytes()).hexdigest()


def files(tmp_path: Path, *, max_bytes: int = 1 << 20) -> ModelFiles:
    return ModelFiles(tmp_path / "var", max_bytes=max_bytes)


def test_a_download_is_held_to_its_digest(tmp_path: Path, address: str, digest: str) -> None:
    with files(tmp_path).staging() as staging:
        files(tmp_path).acquire(f"{address}/model.zip", staging / "ours", sha256=digest)
        assert (staging / "ours" / "configs" / "metadata.json").read_text() == "{}"
        assert [p.name for p in staging.iterdir()] == ["ours"]
        with pytest.raises(InvalidInput, match="has the digest"):
            files(tmp_path).acquire(f"{address}/model.zip", staging / "other", sha256="0" * 64)
        assert not (staging / "other").exists()


def test_a_download_has_a_largest_size(tmp_path: Path, address: str, digest: str) -> None:
    small = files(tmp_path, max_bytes=16)
    with small.staging() as staging, pytest.raises(StorageFull, match="has more than"):
        small.acquire(f"{address}/model.zip", staging / "ours", sha256=digest)


@pytest.mark.parametrize("there", ["http://localhost/model.zip", "file:///etc/passwd"])
def test_a_redirection_leads_to_https_alone(tmp_path: Path, address: str, digest: str, there: str) -> None:
    with files(tmp_path).staging() as staging:
        files(tmp_path).acquire(f"{address}/to/{address}/model.zip", staging / "ours", sha256=digest)
        with pytest.raises(AinodeError, match=r"redirects to|is not allowed"):
            files(tmp_path).acquire(f"{address}/to/{there}", staging / "other", sha256=digest)


def test_a_server_that_is_not_trusted_or_has_nothing_is_told(
    tmp_path: Path, address: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with files(tmp_path).staging() as staging:
        with pytest.raises(InvalidInput, match="404"):
            files(tmp_path).acquire(f"{address}/other.zip", staging / "ours", sha256=digest)
        monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path / "another").pem))
        with pytest.raises(PeerUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            files(tmp_path).acquire(f"{address}/model.zip", staging / "ours", sha256=digest)
