"""One bearer token (RFC 6750) for all that holds data."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from admin_api.deps import Services

_BEARER = HTTPBearer(auto_error=False, scheme_name="token", description="The token that `ainode token` prints.")


def require_token(
    services: Services, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> None:
    """Let a request with the right token pass, and answer 401 to every other."""
    given = "" if credentials is None else credentials.credentials
    if not secrets.compare_digest(given.encode(), services.token.encode()):
        problem = "is missing" if credentials is None else "is wrong"
        raise HTTPException(401, problem, headers={"WWW-Authenticate": 'Bearer realm="ainode"'})


def _actor(request: Request) -> str:
    host = request.client.host if request.client else "unknown host"
    return f"api from {host}"


# Who asks, as it is written on events. With one token for all, the address is all that is known.
Actor = Annotated[str, Depends(_actor)]
