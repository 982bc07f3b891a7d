"""A DICOMweb server over HTTP: one connection, requests that stream, answers of limited size."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.domain.errors import PeerUnreachable

_DICOM_JSON = "application/dicom+json"
_MOST_ANSWER_BYTES = 64 << 20
_MOST_DIGITS = 9  # of seconds; whoever waits has a limit far below


@dataclass(frozen=True)
class Server:
    """Where a peer's DICOMweb service is, and what it wants to see; ``token`` is secret and shown nowhere.

    ``cert`` and ``key`` are ours, ``ca`` is what signs its certificate: the system's authorities without it. PEM files,
    read anew for each connection, so that renewed ones need no restart.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For a TLS connection to it.

        Raises:
            OSError: a file cannot be used.
        """
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
        return context


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; ``body`` is what its JSON says, None where it is none.

    ``retry_after``: for how long the server asks to be left alone (RFC 9110 section 10.2.3), None where it does not
    say.
    """

    status: int
    reason: str
    body: Any
    retry_after: timedelta | None = None


class Connection:
    """One connection; a context manager.

    Args:
        name: of the peer, for errors.
        timeout: seconds that the server may be silent.

    Raises:
        PeerUnreachable: there is none.
    """

    def __init__(self, server: Server, *, name: str, timeout: float) -> None:
        address = urlsplit(server.url)
        self._name = f"{name} ({server.url})"
        self._path = address.path.rstrip("/")
        self._headers = {"Accept": _DICOM_JSON}
        if server.token is not None:
            self._headers["Authorization"] = f"Bearer {server.token}"
        try:
            self._http: HTTPConnection
            if address.scheme == "https":
                self._http = HTTPSConnection(address.netloc, timeout=timeout, context=server.context())
            else:
                self._http = HTTPConnection(address.netloc, timeout=timeout)
            self._http.connect()
        except OSError as error:
            raise PeerUnreachable(f"{self._name}: no connection: {error.strerror or error}") from None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> Answer:
        """Ask for a path below the server's URL.

        Raises:
            PeerUnreachable: the connection broke, or there was no answer in time.
        """
        return self._asked("GET", path, None, {})

    def post(self, path: str, body: Iterable[bytes], *, size: int, content_type: str) -> Answer:
        """Send a body of so many bytes to a path below the server's URL.

        Raises:
            PeerUnreachable: as ``get``.
        """
        return self._asked("POST", path, body, {"Content-Type": content_type, "Content-Length": str(size)})

    def _asked(self, method: str, path: str, body: Iterable[bytes] | None, headers: Mapping[str, str]) -> Answer:
        try:
            # Some refuse before they have read all, and close: what they said is there to be read.
            is_whole = False
            with suppress(BrokenPipeError, ConnectionResetError):
                self._http.request(method, self._path + path, body=body, headers={**self._headers, **headers})
                is_whole = True
            with self._http.getresponse() as answer:
                said = answer.read(_MOST_ANSWER_BYTES)
            if not is_whole:
                self._http.close()
            return Answer(answer.status, answer.reason, _json(said), _retry_after(answer))
        except (OSError, HTTPException) as error:
            self._http.close()  # the next request opens a new one
            raise PeerUnreachable(f"{self._name}: no answer: {error or type(error).__name__}") from None


def _retry_after(answer: HTTPResponse) -> timedelta | None:
    """A number of seconds, or a time, which is one of the server's clock where it tells that."""
    said = (answer.headers.get("Retry-After") or "").strip()
    if said.isascii() and said.isdigit():
        return timedelta(seconds=int(said[:_MOST_DIGITS]))
    at, now = _time(said), _time(answer.headers.get("Date") or "") or datetime.now(UTC)
    return None if at is None else max(at - now, timedelta(0))


def _time(said: str) -> datetime | None:
    """An HTTP-date (RFC 9110 section 5.6.7)."""
    try:
        at = parsedate_to_datetime(said)
    except ValueError:
        return None
    return at.replace(tzinfo=at.tzinfo or UTC)


def _json(said: bytes) -> Any:
    try:
        return json.loads(said)
    except ValueError:
        return None
