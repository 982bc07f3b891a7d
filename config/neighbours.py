"""The neighbours, as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from config import certificates
from config.section import Section
from config.values import (
    CIDR,
    AETitle,
    Count,
    OneOrMore,
    Port,
    Positive,
    Problem,
    ProfileName,
    Secret,
    Subject,
    Text,
    Token,
    WebURL,
    refuse,
)
from node.domain.peer import Verify

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class StowSettings(Section):
    """Where a peer is sent to by DICOMweb (STOW-RS), and what its server wants to see. PEM files."""

    url: WebURL
    token: Secret | None = None
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    @model_validator(mode="after")
    def _secrets_are_safe_and_files_are_good(self) -> Self:
        problems: list[Problem] = []
        parts = urlsplit(self.url)
        if self.token is not None and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            problems.append(
                Problem(("token",), "would be sent without TLS", "Give an address that begins with https://")
            )
        if (self.cert is None) != (self.key is None):
            missing = "cert" if self.cert is None else "key"
            problems.append(Problem((missing,), "is not set, and the other of cert and key is", "Set both, or neither"))
        elif self.cert is not None and self.key is not None:
            found = certificates.problems(self.cert, self.key, self.ca or self.cert)
            problems += [Problem((name,), said, fix) for name, said, fix in found]
        if problems:
            raise refuse(*problems)
        return self


class PeerSettings(Section):
    """One DICOM neighbour. ``max_pdu`` in bytes. Whoever shows ``dicomweb_token`` stores as this peer by STOW-RS.

    ``profile`` names what it gets of a result, ``associations`` is how many are sent over at once. ``verify_seconds``:
    so long after it was delivered, or a commitment to it was asked for, an instance may wait to be verified before it
    is sent again. ``stow``: it is sent to by DICOMweb.
    """

    ae_title: AETitle
    host: Text
    port: Port | None = None
    receive: bool = False
    send: bool = False
    query: bool = False
    quiet_seconds: Positive | None = None
    max_pdu: Annotated[int, Field(ge=4096)] = 131072
    timeout_seconds: Positive = 30
    networks: OneOrMore[CIDR] = ()
    certificate_subjects: OneOrMore[Subject] = ()
    max_associations: Count | None = None
    tls: bool = False
    dicomweb_token: Token | None = None
    profile: ProfileName = "full"
    associations: Annotated[int, Field(ge=1, le=8)] = 1
    verify: Verify = Verify.NONE
    verify_seconds: Positive = 3600
    stow: StowSettings | None = None

    @model_validator(mode="after")
    def _what_is_called_needs_a_port(self) -> Self:
        for name, wanted in (("send", self.send and self.stow is None), ("query", self.query)):
            if wanted and self.port is None:
                raise refuse(
                    Problem((), f"{name} is true but there is no port", "Add the port that this peer listens on")
                )
        if self.verify is Verify.COMMITMENT and self.port is None and self.send:
            fix = "Add the port that this peer listens on, or set verify to query"
            raise refuse(Problem(("verify",), "is commitment, which is asked for by DIMSE, and there is no port", fix))
        return self
