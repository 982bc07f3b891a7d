"""The admin API of a ``House``, served over real HTTP, and a house in which everything has happened once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from admin_api.app import create_app
from admin_api.deps import AdminServices, Dicomweb, InstalledPipeline
from node.domain.instance import Aside, AsideReason
from node.domain.job import Job, JobInput, JobOutput, Outcome
from node.domain.model import INSTALLED, KnownVersion, VersionState
from node.domain.peer import Peer
from node.domain.retention import Keep
from node.domain.rollout import Rollout
from node.observe.metrics import Metrics
from node.services.queries import NodeFacts, Queries
from tests.house import CHEST, MODEL, PACS, House, everything, succeed

TOKEN = "a-token-for-tests-only"
VERSION = "0.1.0"
DONE, FAILED, REFUSED = "1.2.10", "1.2.20", "1.2.30"


class AdminHouse(House):
    """A house with its read side. ``problems`` and ``free_bytes`` can be set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.problems: list[str] = []
        self.dicomweb: Dicomweb | None = None
        self.free_bytes = 5_000_000_000
        self.peers = [Peer("CT1", "SCANNER1", "10.0.0.5", receive=True), PACS]
        facts = NodeFacts(
            VERSION, "AINODE", self.clock.now(), self.peers, lambda: self.free_bytes, lambda: self.problems
        )
        self.queries = Queries(self.database.read, self.clock, facts)
        self.metrics = Metrics(VERSION, self.peers, self.queries.snapshot)

    def app(self) -> FastAPI:
        """The API over this house."""
        return create_app(
            AdminServices(
                queries=self.queries,
                requeue=self.requeue,
                routes=[CHEST],
                models=self.models,
                rollouts=self.rollouts,
                register=self.register,
                replay=self.replay,
                pipelines=lambda: [
                    InstalledPipeline("lung", MODEL),
                    InstalledPipeline("nodules", unavailable="no weights"),
                ],
                prune=self.prune(Keep(studies=timedelta(days=30))),
                metrics=self.metrics.render,
                readiness=lambda: self.problems,
                version=VERSION,
                token=TOKEN,
                dicomweb=self.dicomweb,
            )
        )

    def job_of(self, study: str, *, instances: int = 2) -> Job:
        """A study received, settled and routed; its job."""
        self.assemble.index(
            [self.receive(f"{study}.1.{n}", study=study, series=f"{study}.1") for n in range(instances)]
        )
        self.clock.tick(11)
        self.assemble.settle()
        self.dispatch.route()
        with self.database.read() as tx:
            return tx.jobs.of_study(study)[-1]

    def live(self) -> None:
        """One study delivered but for one result that the peer rejected, one with a dead job, one refused, an object
        aside, and a model that leads."""
        self.job_of(DONE, instances=3)
        self.worker(succeed).work()
        self.sender.status = lambda path: 0xA900 if path.name.startswith("2.25.3") else 0
        self.clock.tick(2)
        everything(self.outbox())
        self.job_of(FAILED)
        self.worker(_fail).work()
        self.job_of(REFUSED)
        self.worker(_refuse).work()
        with self.database.write() as tx:
            tx.versions.add(KnownVersion(MODEL, INSTALLED, VersionState.READY, INSTALLED, self.clock.now()))
            tx.rollouts.put(Rollout(MODEL.name, MODEL))
        aside = Aside(AsideReason.CONFLICT, "other bytes", "aside/1", self.clock.now(), "CT1", f"{DONE}.1.0", DONE)
        self.assemble.index([aside])


def _fail(job: JobInput) -> JobOutput:
    return JobOutput(Outcome.FAILED, reason="<b>CheckFailed</b>: Rows is 0")


def _refuse(job: JobInput) -> JobOutput:
    return JobOutput(Outcome.REFUSED, reason="no series has enough slices")


@contextmanager
def serving(app: FastAPI, **options: Any) -> Iterator[str]:
    """Serve an application on a free port; gives its base URL. ``options`` are uvicorn's, for TLS for instance."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
