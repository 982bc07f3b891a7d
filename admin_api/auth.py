"""Bearer tokens (RFC 6750): one for all that holds data, and one for each peer that may store.

Neither opens what the other does.
"""

from __future__ import annotations

import logging
import secrets
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from admin_api.deps import Dicomweb, Services
from admin_api.errors import Refusal
from node.domain.peer import Peer

log = logging.getLogger(__name__)

_BEARER = HTTPBearer(auto_error=False, scheme_name="token", description="The token that `ainode token` prints.")


def require_token(
    services: Services, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> None:
    """Let a request with the right token pass, and answer 401 to every other."""
    given = "" if credentials is None else credentials.credentials
    if not secrets.compare_digest(given.encode(), services.token.encode()):
        problem = "is missing" if credentials is None else "is wrong"
        raise _unauthorized(problem, "Send 'Authorization: Bearer TOKEN'; 'ainode token' prints it")


_PEER_BEARER = HTTPBearer(auto_error=False, scheme_name="peer", description="The `dicomweb_token` of a peer.")
PeerCredentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_PEER_BEARER)]


def sender_of(dicomweb: Dicomweb | None, credentials: HTTPAuthorizationCredentials | None, address: str) -> Peer:
    """The peer that a request comes from, by its token; it has to call from where the peer may call from.

    Raises:
        Refusal: 401 or 403.
    """
    given = "" if credentials is None else credentials.credentials
    tokens = {} if dicomweb is None else dicomweb.tokens
    # All of them are compared, so that the time tells nothing.
    found = [peer for token, peer in tokens.items() if secrets.compare_digest(given.encode(), token.encode())]
    if dicomweb is None or not found:
        problem = "is missing" if credentials is None else "is that of no peer"
        raise _unauthorized(problem, "Send 'Authorization: Bearer TOKEN' with the dicomweb_token of a peer")
    if (fix := dicomweb.origins.misfit(found[0], address)) is not None:
        log.warning("STOW-RS of %s from %s refused: address not allowed. %s", found[0].name, address, fix)
        raise Refusal(403, None, f"{address} is not allowed", "Ask the node's administrator: its log names the setting")
    return found[0]


def _unauthorized(problem: str, fix: str) -> Refusal:
    return Refusal(401, "Authorization", problem, fix, {"WWW-Authenticate": 'Bearer realm="ainode"'})


def _actor(request: Request) -> str:
    host = request.client.host if request.client else "unknown host"
    return f"api from {host}"


# Who asks, as it is written on events. With one token for all, the address is all that is known.
Actor = Annotated[str, Depends(_actor)]
