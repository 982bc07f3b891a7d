"""The neighbours, as settings."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

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
    Subject,
    Text,
    Token,
    refuse,
)
from node.domain.peer import Verify


class PeerSettings(Section):
    """One DICOM neighbour. ``max_pdu`` in bytes. Whoever shows ``dicomweb_token`` stores as this peer by STOW-RS.

    ``profile`` names what it gets of a result, ``associations`` is how many are sent over at once. ``verify_seconds``:
    so long after it was delivered, or a commitment to it was asked for, an instance may wait to be verified before it
    is sent again.
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

    @model_validator(mode="after")
    def _what_is_called_needs_a_port(self) -> Self:
        for name, wanted in (("send", self.send), ("query", self.query)):
            if wanted and self.port is None:
                raise refuse(
                    Problem((), f"{name} is true but there is no port", "Add the port that this peer listens on")
                )
        return self
