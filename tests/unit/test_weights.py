"""A version is exactly its files: what is missing, added or changed is told, and a signature is held to its key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from node.domain.errors import InvalidModel
from pipelines.weights import check_signature, describe, digest_of_files, read_manifest, sign, verify
from tests.bundles import register


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """A registered version of two files."""
    root = tmp_path / "version"
    (root / "bundle").mkdir(parents=True)
    (root / "bundle" / "model.pt").write_bytes(b"weights")
    (root / "ainode.yaml").write_text("title: Ball\n")
    register(root)
    return root


def keys() -> tuple[bytes, bytes]:
    """An Ed25519 key pair, PEM: private, public."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_what_was_registered_verifies(version: Path) -> None:
    manifest = verify(version)
    assert manifest.model.label == f"ball@1.0 ({manifest.digest[:12]})"
    assert set(manifest.files) == {"bundle/model.pt", "ainode.yaml"}


def test_the_digest_depends_on_names_and_contents_alone(version: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    (copy / "bundle").mkdir(parents=True)
    for name in ("ainode.yaml", "bundle/model.pt"):
        (copy / name).write_bytes((version / name).read_bytes())
    assert digest_of_files(describe(copy)) == read_manifest(version).digest
    (copy / "ainode.yaml").rename(copy / "ainode2.yaml")
    assert digest_of_files(describe(copy)) != read_manifest(version).digest


def test_a_changed_file_is_told(version: Path) -> None:
    (version / "bundle" / "model.pt").write_bytes(b"weighty")
    with pytest.raises(InvalidModel, match=r"bundle/model.pt: has changed since registration"):
        verify(version)


def test_a_missing_file_is_told(version: Path) -> None:
    (version / "bundle" / "model.pt").unlink()
    with pytest.raises(InvalidModel, match=r"bundle/model.pt: is missing"):
        verify(version)


@pytest.mark.parametrize("name", ["bundle/scripts.py", "bundle/__pycache__/scripts.pyc"])
def test_an_added_file_is_told(name: str, version: Path) -> None:
    (version / name).parent.mkdir(exist_ok=True)
    (version / name).write_text("")
    with pytest.raises(InvalidModel, match=rf"{name}: was added after registration"):
        verify(version)


def test_a_link_is_told(version: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"weights")
    (version / "bundle" / "model.pt").unlink()
    (version / "bundle" / "model.pt").symlink_to(tmp_path / "other.pt")
    with pytest.raises(InvalidModel, match="is no plain file"):
        verify(version)


def test_a_manifest_that_names_another_digest_is_told(version: Path) -> None:
    fields = json.loads((version / "version.json").read_text())
    (version / "version.json").write_text(json.dumps(fields | {"digest": "0" * 64}))
    with pytest.raises(InvalidModel, match=r"version.json: digest: is not that of the files"):
        verify(version)


@pytest.mark.parametrize("text", ["", "[]", '{"name": "ball"}', '{"files": {}, "colour": "red"}'])
def test_what_is_no_manifest_is_told(text: str, version: Path) -> None:
    (version / "version.json").write_text(text)
    with pytest.raises(InvalidModel, match=r"version.json: is no manifest"):
        verify(version)


def test_a_signature_is_that_of_a_key_the_node_trusts(version: Path) -> None:
    private, public = keys()
    _, other = keys()
    with pytest.raises(InvalidModel, match="signature: is missing"):
        check_signature(version, [public])
    signed = sign(version, private)
    assert signed.signature is not None
    assert verify(version) == signed
    assert check_signature(version, [other, public]) == signed.signature.key_id
    with pytest.raises(InvalidModel, match="which the node does not trust"):
        check_signature(version, [other])


@pytest.mark.parametrize("field", ["name", "version", "qualification", "digest"])
def test_a_signed_manifest_that_was_changed_is_told(field: str, version: Path) -> None:
    private, public = keys()
    sign(version, private)
    fields = json.loads((version / "version.json").read_text())
    (version / "version.json").write_text(json.dumps(fields | {field: "PRODUCT"}))
    with pytest.raises(InvalidModel, match="the manifest was changed"):
        check_signature(version, [public])


def test_what_is_no_key_is_told(version: Path) -> None:
    elliptic = generate_private_key(SECP256R1())
    pem = elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for wrong in (b"no key", pem):
        with pytest.raises(InvalidModel, match="private key: is no unencrypted Ed25519 key"):
            sign(version, wrong)
    sign(version, keys()[0])
    with pytest.raises(InvalidModel, match="public key: is no unencrypted Ed25519 key"):
        check_signature(version, [b"no key"])


def test_a_version_that_does_not_verify_is_not_signed(version: Path) -> None:
    (version / "ainode.yaml").write_text("title: Cube\n")
    with pytest.raises(InvalidModel, match=r"ainode.yaml: has changed"):
        sign(version, keys()[0])
