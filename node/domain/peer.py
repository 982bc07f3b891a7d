"""A DICOM neighbour: may it send to us, do we send to it, and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network


class Verify(StrEnum):
    """How we make sure that a peer has what it answered with success."""

    NONE = "none"
    COMMITMENT = "commitment"  # it takes the responsibility: storage commitment (PS3.4 annex J)
    QUERY = "query"  # it lists the instance: C-FIND, or QIDO-RS of a peer that is sent to by DICOMweb


@dataclass(frozen=True)
class Peer:
    """One neighbour, as configured.

    ``name`` is our word for it, ``ae_title`` is its own. ``quiet_seconds`` overrides the node's quiet time for studies
    that this peer sends. ``networks`` are where it may call from; empty is the addresses of ``host`` alone.
    ``certificate_subjects`` (RFC 4514, for instance ``CN=CT1,O=Hospital``) are whose certificates it may show; empty
    is any that the CA signed. ``max_associations`` is how many it may hold with us at once. ``tls``: we call it by TLS.
    ``query``: we may ask it by C-FIND how many instances a study has. ``profile`` names what it gets of a result;
    ``associations`` is how many are sent over at once. What was delivered is verified by ``verify``; what is not within
    ``verify_seconds`` is sent again. ``stow`` is the address of its DICOMweb service where it is sent to by STOW-RS and
    not by C-STORE.
    """

    name: str
    ae_title: str
    host: str
    port: int | None = None
    receive: bool = False
    send: bool = False
    query: bool = False
    quiet_seconds: float | None = None
    max_pdu: int = 131072
    timeout_seconds: float = 30.0
    networks: tuple[Network, ...] = ()
    certificate_subjects: tuple[str, ...] = ()
    max_associations: int | None = None
    tls: bool = False
    profile: str = "full"
    associations: int = 1
    verify: Verify = Verify.NONE
    verify_seconds: float = 3600.0
    stow: str | None = None

    @property
    def reports(self) -> bool:
        """Whether it may call us to report what it committed to, even where it may not send."""
        return self.send and self.verify is Verify.COMMITMENT
