"""Files over HTTPS, and by nothing else. Proxies and certificates are those of the environment."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from pydantic import BaseModel, ValidationError

from node.domain.errors import InvalidInput, PeerUnreachable, StorageFull
from pipelines.weights import FileDigest

_CHUNK = 1 << 20
_MOST_JSON_BYTES = 16 << 20
_AUTHORIZATION = "Authorization"
_PASSING = (408, 429)  # request time-out, too many requests

Answer = TypeVar("Answer", bound=BaseModel)


class Https:
    """Reads from HTTPS servers. Credentials go to the server that they are for, never to one that it redirects to.

    Args:
        timeout_seconds: how long a server may be silent.
    """

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._opener = build_opener(HTTPSHandler(context=ssl.create_default_context()), _HttpsOnly())

    def read(self, address: str, form: type[Answer], *, authorization: str | None = None) -> Answer:
        """What a server answers in JSON.

        Args:
            authorization: the value of that header.

        Raises:
            InvalidInput: it is not of this form, or the server refuses.
            PeerUnreachable: the server does not answer.
        """
        with self._opened(address, authorization) as answer:
            text = answer.read(_MOST_JSON_BYTES)
        try:
            return form.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            problem = f"{address} is not what this kind of server answers: {where}: {first['msg']}"
            raise InvalidInput("source", problem, "Check the server's address in the settings") from None

    def save(self, address: str, target: Path, *, most: int, authorization: str | None = None) -> FileDigest:
        """Fetch a file to ``target``, which is not there yet.

        Args:
            most: bytes that it may have.

        Raises:
            InvalidInput: the server refuses.
            PeerUnreachable: the server does not answer, or not to the end.
            StorageFull: there is more than ``most``.
        """
        digest, size = hashlib.sha256(), 0
        with self._opened(address, authorization) as answer, target.open("xb") as file:
            while chunk := answer.read(_CHUNK):
                size += len(chunk)
                if size > most:
                    raise StorageFull(f"{address} has more than models.max_mb leaves for it, {most >> 20} MiB")
                file.write(chunk)
                digest.update(chunk)
            if answer.length:
                raise PeerUnreachable(f"{address} ended {answer.length} bytes early. Try again")
        return FileDigest(digest.hexdigest(), size)

    @contextmanager
    def _opened(self, address: str, authorization: str | None) -> Iterator[HTTPResponse]:
        check_scheme(address)
        request = Request(address)  # noqa: S310 - https alone
        if authorization is not None:
            request.add_unredirected_header(_AUTHORIZATION, authorization)
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as answer:
                yield answer
        except HTTPError as error:
            error.close()
            raise _refusal(address, error) from None
        except (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            fix = "Check the address, the proxy (HTTPS_PROXY, NO_PROXY) and the trusted certificates (SSL_CERT_FILE)"
            raise PeerUnreachable(f"{address} cannot be read: {reason}. {fix}") from None


def check_scheme(address: str) -> None:
    """Let HTTPS pass.

    Raises:
        InvalidInput: it is anything else.
    """
    if urlsplit(address).scheme != "https":
        raise InvalidInput("source", f"{address} is not fetched", "Only https:// is; or download it yourself")


class _HttpsOnly(HTTPRedirectHandler):
    """Follows no redirection to anything but HTTPS."""

    def redirect_request(self, request: Request, *arguments: object) -> Request | None:
        address = str(arguments[-1])
        if urlsplit(address).scheme != "https":
            raise InvalidInput("source", f"redirects to {address}", "Only https:// is fetched")
        following = super().redirect_request(request, *arguments)  # type: ignore[arg-type]
        authorization = request.get_header(_AUTHORIZATION)
        if following is not None and authorization and urlsplit(address).netloc == urlsplit(request.full_url).netloc:
            following.add_unredirected_header(_AUTHORIZATION, authorization)
        return following


def _refusal(address: str, error: HTTPError) -> InvalidInput | PeerUnreachable:
    said = f"{address}: {error.code} {error.reason}"
    if error.code in (401, 403):
        return InvalidInput("source", said, "Check the name, and in the settings models.hub_token or mlflow_token")
    if 400 <= error.code < 500 and error.code not in _PASSING:
        return InvalidInput("source", said, "Check name and version, and in the settings models.hub or mlflow_uri")
    return PeerUnreachable(f"{said}. Try again later, or ask who runs that server")
