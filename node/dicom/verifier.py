"""Whether a peer holds what it was sent: C-FIND at IMAGE level in the Study Root model (PS3.4 annex C)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from node.dicom.query import finding, listed
from node.dicom.tls import Certificates
from node.domain.peer import Peer
from node.domain.verification import Wanted, elsewhere, held


class QueryVerifier:
    """Implements ``node.ports.Verifier``.

    Args:
        ae_title: ours, the calling one.
        tls: for peers that are called by TLS.
    """

    def __init__(self, ae_title: str, tls: Certificates | None = None) -> None:
        self._ae_title = ae_title
        self._tls = tls

    def held(self, peer: Peer, wanted: Sequence[Wanted]) -> set[str]:
        """As ``Verifier``; over one association."""
        with finding(peer, self._ae_title, self._tls) as find:
            return held(wanted, partial(listed, find))

    def elsewhere(self, peer: Peer, wanted: Sequence[Wanted]) -> dict[str, tuple[str, str]]:
        """As ``Verifier``, by a relational query (PS3.4 C.4.1.3.2.1), which not every peer answers."""
        with finding(peer, self._ae_title, self._tls) as find:
            return elsewhere(wanted, partial(listed, find, "", ""))
