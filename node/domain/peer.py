"""A DICOM neighbour: may it send to us, do we send to it, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """One neighbour, as configured.

    ``name`` is our word for it, ``ae_title`` is its own. ``quiet_seconds`` overrides the node's quiet time for studies
    that this peer sends.
    """

    name: str
    ae_title: str
    host: str
    port: int | None = None
    receive: bool = False
    send: bool = False
    quiet_seconds: float | None = None
    max_pdu: int = 131072
    timeout_seconds: float = 30.0
