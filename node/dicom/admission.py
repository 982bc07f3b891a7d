"""Who may in: whether an association that a peer asks for is admitted (PS3.8 sections 7.1.1 and 9.3.4).

Called AE title, calling AE title, address and, with TLS, certificate subject have to be the configured ones. An AE
title alone proves nothing: whoever reaches the port can claim one.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from node.domain.peer import Peer
from node.services.origins import Address, Origins

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who asks for an association.

    Args:
        calling, called: AE titles of the A-ASSOCIATE-RQ, without padding.
        address: where the connection comes from, IPv4 or IPv6.
        certificate_subject: of the verified certificate (``node.dicom.tls.certificate_subject``); None without one.
        associations: how many others the calling AE title holds at this moment.
    """

    calling: str
    called: str
    address: str
    certificate_subject: str | None = None
    associations: int = 0


@dataclass(frozen=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21). ``text`` is one of a few constants, fit for a metric label."""

    result: int
    source: int
    reason: int
    text: str


# Permanent, by the service user. A stranger, a wrong address and a wrong certificate look alike to the caller: the
# standard has one reason for them, and which one it was is for the log alone.
CALLED_NOT_RECOGNISED = Rejection(1, 1, 7, "called AE title not recognised")
CALLING_NOT_RECOGNISED = Rejection(1, 1, 3, "calling AE title not recognised")
ADDRESS_NOT_ALLOWED = Rejection(1, 1, 3, "address not allowed")
CERTIFICATE_NOT_ALLOWED = Rejection(1, 1, 3, "certificate subject not allowed")
# Transient, by the service provider (presentation): the peer may try again.
TEMPORARY_CONGESTION = Rejection(2, 3, 1, "temporary congestion")
PEER_LIMIT_EXCEEDED = Rejection(2, 3, 2, "local limit exceeded for this peer")


class Admission:
    """Decides over callers; each rejection is logged with what would mend it.

    A calling AE title may belong to several peers: it is admitted if one of them fits.

    Args:
        our_ae_title: what callers have to call.
        peers: those with ``receive`` may call, and those that report what they committed to.
        accept_unknown: calling AE titles that belong to no such peer may call too, from anywhere. A known one
            still has to fit its peer.
        addresses_of: gives the addresses of a host name.
        has_room: whether associations are taken at this moment; those who may in are told of temporary congestion
            while they are not, and only they: to others it stays "not recognised".
    """

    def __init__(
        self,
        our_ae_title: str,
        peers: Iterable[Peer],
        *,
        accept_unknown: bool = False,
        addresses_of: Callable[[str], frozenset[Address]] | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._our_ae_title = our_ae_title
        self._accept_unknown = accept_unknown
        self._origins = Origins(addresses_of)
        self._has_room = has_room
        self._known: defaultdict[str, list[Peer]] = defaultdict(list)
        for peer in peers:
            self._known[peer.ae_title].append(peer)

    def __call__(self, caller: Caller) -> Rejection | None:
        """None where the association is admitted. Called from several threads at once."""
        refusal = self._refusal(caller) or self._congestion()
        if refusal is None:
            return None
        rejection, fix = refusal
        log.warning(
            "association of %r to %r from %s rejected: %s. %s",
            caller.calling,
            caller.called,
            caller.address,
            rejection.text,
            fix,
        )
        return rejection

    def may_store(self, calling: str) -> bool:
        """Whether an AE title that was admitted may send; else it is here to report alone."""
        return self._accept_unknown or any(peer.receive for peer in self._known.get(calling, []))

    def _congestion(self) -> tuple[Rejection, str] | None:
        if self._has_room():
            return None
        return TEMPORARY_CONGESTION, "Free space on the data directory, or lower node.min_free_mb"

    def _refusal(self, caller: Caller) -> tuple[Rejection, str] | None:
        """The rejection, and what would mend it."""
        if caller.called != self._our_ae_title:
            return CALLED_NOT_RECOGNISED, f"Let the sender call {self._our_ae_title}, or change node.ae_title"
        known = self._known.get(caller.calling, [])
        callers = [peer for peer in known if peer.receive or peer.reports]
        if not callers:
            if self._accept_unknown:
                return None
            fix = (
                f"Set peers.{known[0].name}.receive to true" if known else "Describe it under peers, with receive: true"
            )
            return CALLING_NOT_RECOGNISED, fix
        refusals = [self._misfit(peer, caller) for peer in callers]
        return None if None in refusals else refusals[0]

    def _misfit(self, peer: Peer, caller: Caller) -> tuple[Rejection, str] | None:
        """Why the caller is not this peer, or is one time too many."""
        if (fix := self._origins.misfit(peer, caller.address)) is not None:
            return ADDRESS_NOT_ALLOWED, fix
        where = f"peers.{peer.name}"
        if peer.certificate_subjects and caller.certificate_subject not in peer.certificate_subjects:
            shown = "it showed none" if caller.certificate_subject is None else f"it is {caller.certificate_subject!r}"
            return CERTIFICATE_NOT_ALLOWED, f"{shown}. If this is the peer, change {where}.certificate_subjects"
        if peer.max_associations is not None and caller.associations >= peer.max_associations:
            return PEER_LIMIT_EXCEEDED, f"It holds {caller.associations}: raise {where}.max_associations"
        return None
