"""What a registered model version is made of, and whether it still is: digests of its files, and signatures.

A version is a directory that is written once. ``version.json`` beside its files is their manifest; the version is named
by a digest over all of them, so a changed, missing or added file is another version, and is not loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from node.domain.errors import InvalidModel
from node.domain.model import ModelVersion

MANIFEST = "version.json"
_REGISTER_AGAIN = "Register the version again from its source"


@dataclass(frozen=True)
class FileDigest:
    """SHA-256 in hex, and bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Signature:
    """Ed25519 (RFC 8032) over the manifest without its signature, base64.

    ``key_id`` is the beginning of the SHA-256 of the raw public key, in hex.
    """

    key_id: str
    value: str


@dataclass(frozen=True)
class Manifest:
    """``version.json``. ``files`` are all others of the directory, by path relative to it, with ``/``."""

    name: str
    version: str
    title: str
    kind: str
    qualification: str
    source: str
    created_at: str
    files: Mapping[str, FileDigest]
    digest: str
    signature: Signature | None = None

    @property
    def model(self) -> ModelVersion:
        """What a job is pinned to."""
        return ModelVersion(self.name, self.version, self.digest, self.title)

    def signed_bytes(self) -> bytes:
        """What a signature is made over: every field but the signature, as JSON with sorted keys."""
        fields = asdict(replace(self, signature=None))
        del fields["signature"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def describe(directory: Path) -> dict[str, FileDigest]:
    """Digest every file below ``directory``, the manifest aside, by relative path.

    Raises:
        InvalidModel: something in it is no plain file (a link would let its content change from outside).
    """
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()) or not name.isprintable():
            raise InvalidModel(repr(name), "is no plain file with a plain name", "Put the file itself in its place")
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                files[name] = FileDigest(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
    return files


def digest_of_files(files: Mapping[str, FileDigest]) -> str:
    """The name of a version: SHA-256, in hex, over ``path NUL sha256 LF`` of every file, in order of path."""
    lines = (f"{path}\0{file.sha256}\n" for path, file in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write ``version.json``."""
    (directory / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n", "utf-8")


def read_manifest(directory: Path) -> Manifest:
    """Read ``version.json``; nothing is compared with the files.

    Raises:
        InvalidModel: it is missing or no manifest.
    """
    try:
        fields: dict[str, Any] = json.loads((directory / MANIFEST).read_text("utf-8"))
        files = {name: FileDigest(**file) for name, file in fields.pop("files").items()}
        signature = fields.pop("signature", None)
        return Manifest(**fields, files=files, signature=Signature(**signature) if signature else None)
    except OSError as error:
        raise InvalidModel(MANIFEST, f"cannot be read: {error.strerror}", _REGISTER_AGAIN) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidModel(MANIFEST, f"is no manifest of a version ({error})", _REGISTER_AGAIN) from error


def verify(directory: Path) -> Manifest:
    """Hold every file against the manifest, and the manifest against its digest.

    Raises:
        InvalidModel: a file is missing, was added or has changed; the text names the first.
    """
    manifest = read_manifest(directory)
    found = describe(directory)
    for name in sorted({*manifest.files, *found}):
        if name not in found:
            raise InvalidModel(name, "is missing", _REGISTER_AGAIN)
        if name not in manifest.files:
            raise InvalidModel(name, "was added after registration", "Remove it, or register a new version with it")
        if found[name] != manifest.files[name]:
            raise InvalidModel(
                name,
                f"has changed since registration: sha256 {found[name].sha256[:16]}…, "
                f"registered was {manifest.files[name].sha256[:16]}…",
                _REGISTER_AGAIN,
            )
    if digest_of_files(manifest.files) != manifest.digest:
        raise InvalidModel(f"{MANIFEST}: digest", "is not that of the files", _REGISTER_AGAIN)
    return manifest


def sign(directory: Path, private_key_pem: bytes) -> Manifest:
    """Verify the version and sign its manifest, in place.

    Raises:
        InvalidModel: the files do not verify, or the key is no unencrypted Ed25519 key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    manifest = verify(directory)
    try:
        key = load_pem_private_key(private_key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise _no_key("private") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key("private")
    value = base64.b64encode(key.sign(manifest.signed_bytes())).decode()
    signed = replace(manifest, signature=Signature(_key_id(key.public_key().public_bytes_raw()), value))
    write_manifest(directory, signed)
    return signed


def check_signature(directory: Path, public_keys_pem: Iterable[bytes]) -> str:
    """Whether one of these keys signed the manifest; the files are held against it by `verify`.

    Returns:
        The id of the key that signed.

    Raises:
        InvalidModel: it is not signed, not by one of these keys, or was changed since; or a key is none.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    manifest = read_manifest(directory)
    where = f"{MANIFEST}: signature"
    if manifest.signature is None:
        raise InvalidModel(where, "is missing", "Sign the version with a key that the node trusts")
    for pem in public_keys_pem:
        try:
            key = load_pem_public_key(pem)
        except ValueError as error:
            raise _no_key("public") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _no_key("public")
        if _key_id(key.public_bytes_raw()) != manifest.signature.key_id:
            continue
        try:
            key.verify(base64.b64decode(manifest.signature.value), manifest.signed_bytes())
        except (InvalidSignature, ValueError) as error:
            raise InvalidModel(where, "does not fit: the manifest was changed", _REGISTER_AGAIN) from error
        return manifest.signature.key_id
    raise InvalidModel(
        where, f"is by key {manifest.signature.key_id}, which the node does not trust", "Trust that key, or sign again"
    )


def _key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]


def _no_key(kind: str) -> InvalidModel:
    return InvalidModel(
        f"{kind} key", "is no unencrypted Ed25519 key in PEM", "Make one with: openssl genpkey -algorithm ed25519"
    )
