"""The FastAPI application, built from the services that it is handed."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from admin_api import pages
from admin_api.auth import require_token
from admin_api.deps import AdminServices
from admin_api.errors import INVALID, UNAUTHORIZED, answer_errors
from admin_api.headers import SecurityHeaders
from admin_api.routes import aside, deliveries, dicomweb, jobs, metrics, models, routing, status, studies
from node.domain.errors import InvalidSettings

API_PREFIX = "/api/v1"


def create_app(services: AdminServices) -> FastAPI:
    """The application.

    Open are ``/healthz``, ``/readyz``, the pages (``/``, ``/docs``: they hold no data, their scripts ask for the
    token) and ``/openapi.json``; DICOMweb needs the token of a peer, everything else that of the API. No other origin
    may call it (no CORS).

    Raises:
        InvalidSettings: the token is empty.
    """
    if not services.token:
        raise InvalidSettings("api.token", "is empty", "Set a token of 16 or more characters, or leave the key out")
    app = FastAPI(
        title="ainode admin API",
        version=services.version,
        summary="What an ainode holds and does, and another chance for what is dead.",
        docs_url=None,  # FastAPI's own page loads its script from a server on the internet
        redoc_url=None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.services = services
    app.add_middleware(SecurityHeaders)
    answer_errors(app)
    app.include_router(status.probes)
    app.include_router(pages.router)
    app.include_router(dicomweb.router)
    guarded = [Depends(require_token)]
    app.include_router(metrics.router, dependencies=guarded, responses=UNAUTHORIZED)
    for each in (status, studies, jobs, deliveries, routing, models, aside):
        answers = UNAUTHORIZED | INVALID
        app.include_router(each.router, prefix=API_PREFIX, dependencies=guarded, responses=answers)
    return app
