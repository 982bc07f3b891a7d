"""DICOM over TLS, by the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 annex B.12).

TLS 1.2 with the cipher suites that RFC 9325 section 4.2 recommends, and TLS 1.3; nothing older is spoken. Peers of the
BCP 195 profiles before it (B.9, B.10) and of the modified one (B.13) have cipher suites in common with it. Both sides
show a certificate, and both verify the other's against one CA file.
"""

from __future__ import annotations

import logging
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeAlias

log = logging.getLogger(__name__)

# Those of RFC 9325 for TLS 1.2. DHE is not among them, and PS3.15 B.13 forbids it where its key length cannot be set.
# Level 2 of OpenSSL refuses RSA keys under 2048 bits and SHA-1 signatures.
_TLS_1_2_CIPHERS = (
    "@SECLEVEL=2:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)

# RFC 4514 section 3; other types keep the name that OpenSSL gives them.
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
# Modification time, size and inode of each file; None where it is missing.
_Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class _Contexts:
    """What one state of the files gives."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    client_of_any_host: ssl.SSLContext


class Certificates:
    """Our certificate, its key and the CA of our peers; read again when a file has changed.

    The new files serve the next connection; running ones go on. Files that cannot be used (half written, key of another
    certificate) are logged as an error, and the contexts in use stay.

    Args:
        cert: PEM, our certificate and the intermediate ones above it.
        key: PEM, its key, not encrypted.
        ca: PEM, the certificates that sign those of our peers.
        require_client_certificate: refuse callers without one. One that is shown is verified in any case.

    Raises:
        OSError: a file cannot be read or used (``ssl.SSLError`` is one).
    """

    def __init__(self, cert: Path, key: Path, ca: Path, *, require_client_certificate: bool = True) -> None:
        self._cert, self._key, self._ca = cert, key, ca
        self._require_client_certificate = require_client_certificate
        self._lock = Lock()
        self._stamp = self._stamp_now()
        self._contexts = self._load()

    def server(self) -> ssl.SSLContext:
        """The present context for accepting connections."""
        return self._present().server

    def client(self, *, check_host: bool = True) -> ssl.SSLContext:
        """The present context for calling.

        Args:
            check_host: the peer's certificate has to be issued for the host that is called. Without it any that
                the CA signed will do, and the caller has to look at its subject.
        """
        contexts = self._present()
        return contexts.client if check_host else contexts.client_of_any_host

    def _present(self) -> _Contexts:
        with self._lock:
            stamp = self._stamp_now()
            if stamp != self._stamp:
                self._stamp = stamp  # first, so that a broken file is told once, not at every connection
                try:
                    self._contexts = self._load()
                    log.info("certificates read again from %s, %s and %s", self._cert, self._key, self._ca)
                except OSError as error:
                    log.error("changed certificates cannot be used, the old ones stay: %s", error)
            return self._contexts

    def _stamp_now(self) -> _Stamp:
        return tuple(map(_stamp, (self._cert, self._key, self._ca)))

    def _load(self) -> _Contexts:
        server = self._context(ssl.PROTOCOL_TLS_SERVER)
        server.verify_mode = ssl.CERT_REQUIRED if self._require_client_certificate else ssl.CERT_OPTIONAL
        client, any_host = self._context(ssl.PROTOCOL_TLS_CLIENT), self._context(ssl.PROTOCOL_TLS_CLIENT)
        any_host.check_hostname = False
        return _Contexts(server, client, any_host)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_TLS_1_2_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION  # RFC 9325 section 3.5
        context.load_cert_chain(self._cert, self._key, password=_no_password)
        context.load_verify_locations(self._ca)
        return context


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _no_password() -> str:
    """Given to OpenSSL for an encrypted key: it fails then, where it would ask the terminal."""
    return ""


def certificate_subject(connection: ssl.SSLSocket) -> str | None:
    """The subject of the other side's verified certificate, None where it showed none.

    As text of RFC 4514, the way ``openssl x509 -noout -subject -nameopt RFC2253`` prints it: ``CN=CT1,O=Hospital``.
    """
    certificate = connection.getpeercert()
    if not certificate:
        return None
    names: tuple[tuple[tuple[str, str], ...], ...] = certificate["subject"]  # type: ignore[assignment]
    return ",".join(
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in name) for name in reversed(names)
    )


def _escaped(value: str) -> str:
    """RFC 4514 section 2.4."""
    return re.sub(r'[,+"\\<>;]|^[ #]| $', lambda special: "\\" + special.group(), value)
