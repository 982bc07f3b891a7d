"""Whether certificate files can be used, told file by file."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path


def problems(cert: Path, key: Path, ca: Path) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the files, as (``cert``, ``key`` or ``ca``; problem; fix)."""
    unreadable = [
        found for name, path in (("cert", cert), ("key", key), ("ca", ca)) if (found := _unreadable(name, path))
    ]
    if unreadable:
        yield from unreadable
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, path in (("cert", cert), ("ca", ca)):
        try:
            context.load_verify_locations(path)
        except ssl.SSLError:
            unreadable.append((name, f"{path} holds no certificate", "Give a PEM file: -----BEGIN CERTIFICATE-----"))
    if unreadable:
        yield from unreadable
        return
    try:
        # With a callback OpenSSL fails over an encrypted key, where it would ask the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError:
        yield (
            "key",
            f"{key} is not the key of {cert}, or is encrypted",
            "Give the certificate's own key, unencrypted PEM",
        )


def _unreadable(name: str, path: Path) -> tuple[str, str, str] | None:
    try:
        path.read_bytes()
    except OSError as error:
        return name, f"{path} cannot be read: {error.strerror}", "Name a PEM file that the node's user can read"
    return None
