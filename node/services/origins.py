"""Where a peer may call from: the addresses of its host, or the networks that the settings give it instead."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from node.domain.peer import Peer

log = logging.getLogger(__name__)

Address: TypeAlias = IPv4Address | IPv6Address
_NOWHERE: frozenset[Address] = frozenset()


class Names:
    """The addresses of host names, as the resolver gives them; the last known ones stand while it gives none.

    Args:
        seconds: for how long an answer, or its absence, is kept.
    """

    def __init__(
        self,
        *,
        seconds: float = 60.0,
        lookup: Callable[[str], Iterable[str]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._lookup = lookup or _lookup
        self._now = now
        self._known: dict[str, tuple[float, frozenset[Address]]] = {}

    def __call__(self, host: str) -> frozenset[Address]:
        """Every address of a host name; that of an IP literal is itself. Empty where the name is unknown."""
        expires, addresses = self._known.get(host, (0.0, _NOWHERE))
        if host not in self._known or self._now() >= expires:
            try:
                addresses = frozenset(map(address_of, self._lookup(host)))
            except OSError as error:
                log.warning("host %r of a peer cannot be resolved: %s", host, error)
            self._known[host] = (self._now() + self._seconds, addresses)
        return addresses


class Origins:
    """Says whether a caller's address is that of a peer. Called from several threads at once.

    Args:
        addresses_of: gives the addresses of a host name.
    """

    def __init__(self, addresses_of: Callable[[str], frozenset[Address]] | None = None) -> None:
        self._addresses_of = addresses_of or Names()

    def misfit(self, peer: Peer, caller: str) -> str | None:
        """What would let the address in, for a person who reads the log; None where it is the peer's.

        Args:
            caller: where the connection comes from, IPv4 or IPv6; anything else is refused.
        """
        where = f"peers.{peer.name}"
        try:
            address = address_of(caller)
        except ValueError:
            return f"{caller!r} is no address: let the proxy that says so, one of api.proxies, send one"
        if peer.networks:
            if any(address in network for network in peer.networks):
                return None
            return f"If this is the peer, add {address} to {where}.networks"
        expected = self._addresses_of(peer.host)
        if address in expected:
            return None
        at = " or ".join(sorted(map(str, expected))) or "no address that the resolver knows"
        host = peer.host if at == peer.host else f"{peer.host} ({at})"
        return (
            f"{where}.host is {host}. If this is the peer (behind NAT, or with a second interface), "
            f"set {where}.networks to [{address}]"
        )


def address_of(text: str) -> Address:
    """An address without zone; that of an IPv4 caller on an IPv6 socket (``::ffff:10.0.0.5``) as IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _lookup(host: str) -> set[str]:
    return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
