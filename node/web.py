"""The admin API on a thread of its own."""

from __future__ import annotations

import logging
import socket
import threading

import uvicorn

from admin_api.app import create_app
from admin_api.deps import AdminServices, Dicomweb, InstalledPipeline
from config.settings import dicomweb_tokens
from node import __version__
from node.core import Core
from node.domain.errors import AinodeError, InvalidSettings
from node.observe.metrics import Metrics
from node.services.origins import Origins
from node.services.requeue import Requeue
from node.services.stow import Stow
from pipelines.registry import available, model_version

log = logging.getLogger(__name__)

_STOP_SECONDS = 10


def pipelines() -> list[InstalledPipeline]:
    """Every installed pipeline with its version, or why it cannot be had."""
    installed = []
    for name in available():
        try:
            installed.append(InstalledPipeline(name, model_version(name)))
        except AinodeError as error:
            installed.append(InstalledPipeline(name, unavailable=str(error)))
    return installed


def dicomweb(core: Core, stow: Stow) -> Dicomweb:
    """The peers that may store by DICOMweb, and the service that they store into."""
    tokens = dicomweb_tokens(core.settings)
    return Dicomweb(stow, Origins(), {token: core.peers[name] for name, token in tokens.items()})


class WebServer:
    """Serves the admin API, the status page and DICOMweb."""

    def __init__(self, core: Core, counted: Metrics, stow: Stow) -> None:
        self._address = (core.settings.api.host, core.settings.api.port)
        services = AdminServices(
            queries=core.queries(),
            requeue=Requeue(core.database.write, core.clock),
            routes=core.routes,
            pipelines=pipelines,
            models=core.models(),
            rollouts=core.rollouts(),
            register=core.register(),
            replay=core.replay(),
            prune=core.prune(),
            metrics=counted.render,
            readiness=core.problems,
            version=__version__,
            token=core.token,
            dicomweb=dicomweb(core, stow),
        )
        config = uvicorn.Config(
            create_app(services),
            log_config=None,
            access_log=False,
            lifespan="off",
            forwarded_allow_ips=[str(network) for network in core.settings.api.proxies],
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Listen, then serve on a thread.

        Raises:
            InvalidSettings: the address is in use or not ours.
        """
        host, port = self._address
        try:
            self._socket = socket.create_server((host, port), family=_family(host), backlog=128)
        except OSError as error:
            problem = f"cannot listen on {host}:{port}: {error.strerror or error}"
            raise InvalidSettings("api.port", problem, "Choose an address of this machine and a free port") from None
        self._thread.start()
        log.info("the admin API listens on http://%s:%d/", host, port)

    def _run(self) -> None:
        assert self._socket is not None
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Answer what was asked, then end."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        if self._socket is not None:
            self._socket.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
