"""The composition root: builds every object from the settings, starts the stages and stops them.

Start: the schema, then what a crash left behind (a removal half-way, leases of dead processes), then the receiver, and
beside it rows for what lies on disk without one; then everything that only reads what it wrote. Stop, in this order:
the receiver (nothing new is acknowledged), the inbox (rows of what was), the ticker (settling, routing, delivering),
the worker (its job goes back to the queue), the API last, so that an administrator can watch. Each may die at any
point instead: the next start does the same work.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from config.settings import Settings, Sync, dicomweb_tokens
from node import served
from node.core import Core
from node.dicom.query import related_instances
from node.dicom.request_commitment import StorageCommitmentSCU
from node.dicom.scu import StorageSender
from node.dicom.verifier import QueryVerifier
from node.dicomweb.qido import QidoVerifier
from node.dicomweb.sender import StowSender
from node.dicomweb.server import Connection, Server
from node.domain.errors import InvalidSettings
from node.domain.instance import Answer, Incoming
from node.domain.peer import Peer, Verify
from node.domain.study import Released
from node.front import Told, new_front, new_receive
from node.observe.metrics import Metrics
from node.schedule import Ticker
from node.services.breaker import Breaker
from node.services.deliver import Deliver
from node.services.dispatch import Dispatch
from node.services.evidence import Evidence
from node.services.inbox import Inbox
from node.services.outbox import Outbox
from node.services.recover import Recover
from node.services.request_commitment import RequestCommitments
from node.services.stow import Stow
from node.services.verify import VerifyByQuery
from node.stopping import Stop
from node.workers.supervise import Supervised
from pipelines.registry import model_version

log = logging.getLogger(__name__)

_TICK = timedelta(seconds=0.5)
_KEEP = timedelta(seconds=1)  # a process that died is started again
_LOOK = timedelta(seconds=0.1)  # for studies to judge: hints in memory, and one small query
_RECOVER_EVERY = timedelta(seconds=15)
_PRUNE_EVERY = timedelta(minutes=10)
_REBUILD_AGAIN_SECONDS = 5.0


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: two receivers that index one directory would each redo the other's work."""
    with (data_dir / "node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidSettings(
                "node.data_dir",
                f"{data_dir} is in use by a running node",
                "Stop it, or give this one another directory",
            ) from None
        yield


def is_running(data_dir: Path) -> bool:
    """Whether a node holds the data directory."""
    try:
        with only_one(data_dir):
            return False
    except InvalidSettings:
        return True


class Receiver:
    """Receive, index, settle, route."""

    def __init__(self, core: Core, metrics: Metrics) -> None:
        settings = core.settings
        self._core = core
        self._stopped = threading.Event()
        self._queried = {p.ae_title: p for p in core.peers.values() if p.query}
        self._evidence = self._new_evidence() if settings.assemble.evidence else None
        self._assemble = core.assemble(self._evidence)
        self._dispatch = Dispatch(
            core.database.write,
            core.database.read,
            core.clock,
            core.files,
            core.routes,
            model_version,
            node=core.node_uid,
        )
        self._inbox = Inbox(self._assemble.index)
        told = Told(self._inbox.put, metrics.answered, metrics.rejected, self._released)
        self._receive = new_receive(core, told)
        self._front = new_front(core, self._receive, told)
        self.stow = Stow(self._receive.begin, self._released, core.has_room, max_open=settings.node.max_associations)
        senders = [p for p in core.peers.values() if p.receive] or dicomweb_tokens(settings)
        if not settings.node.accept_unknown_peers and not senders:
            log.warning("no peer may send: set receive: true on one, or node.accept_unknown_peers")
        if settings.node.sync is Sync.NONE:
            log.warning("node.sync is none: a power cut loses objects that were answered with success")

    def _new_evidence(self) -> Evidence:
        core = self._core
        count = partial(related_instances, ae_title=core.settings.node.ae_title, tls=core.tls)
        return Evidence(
            core.database.write,
            core.database.read,
            core.clock,
            core.files,
            queried=self._queried,
            count=count,
            being_sent=self._being_sent,
        )

    def _released(self, calling: str, study_uids: frozenset[str]) -> None:
        self._inbox.put(Released(calling, study_uids, self._core.clock.now()))

    def start(self, ticker: Ticker) -> None:
        """Clean up after the last run, then listen.

        Raises:
            InvalidSettings: the address is in use or not ours.
        """
        self._core.files.sweep()
        recover, prune = self._core.recover(), self._core.prune(self._being_sent)
        prune.recover()
        recover.leases()
        self._core.rollouts().refresh()
        self._dispatch.renew()
        self._inbox.start()
        self._front.start()
        for process in self._front.processes:
            ticker.every(_KEEP, process.stage, process.keep)
            self._core.checks.append(process.problem)
        self._rebuilding = threading.Thread(target=self._rebuild, args=(recover,), name="rebuild", daemon=True)
        self._core.checks.append(
            lambda: "the index is being rebuilt from disk" if self._rebuilding.is_alive() else None
        )
        self._rebuilding.start()
        served.keep_up(self._core, ticker, lambda: not self._rebuilding.is_alive())
        ticker.every(_TICK, "settle", self._settle)
        if self._evidence is not None:
            ticker.every(_LOOK, "evidence", partial(self._judge, self._evidence, None))
            for peer in self._queried.values():
                ticker.every(_LOOK, f"evidence of {peer.name}", partial(self._judge, self._evidence, peer))
        ticker.every(_RECOVER_EVERY, "recover", recover.leases)
        ticker.every(_PRUNE_EVERY, "prune", lambda: self._rebuilding.is_alive() or prune.prune())

    def _being_sent(self, study_uid: str) -> bool:
        return self._front.being_sent(study_uid) or self.stow.being_sent(study_uid)

    @contextmanager
    def not_listening(self) -> Iterator[Callable[[Incoming], Answer]]:
        """Keep what is fetched or comes by DICOMweb, without a DICOM port; the last rows are written when it ends.

        What settles and routes it is a receiver that listens.
        """
        self._core.files.sweep()
        self._inbox.start()
        try:
            yield self._receive.store
        finally:
            self.stow.stop()
            self._inbox.stop()

    def _rebuild(self, recover: Recover) -> None:
        """Beside the receiver, because a large archive takes minutes to walk through."""
        while not self._stopped.is_set():
            try:
                recover.index(self._assemble)
                return
            except Exception:
                log.exception("the index could not be rebuilt from disk (is it full?), trying again")
            self._stopped.wait(_REBUILD_AGAIN_SECONDS)

    def _judge(self, evidence: Evidence, peer: Peer | None) -> None:
        if evidence.judge(peer):
            self._dispatch.route()

    def _settle(self) -> None:
        self._assemble.settle()
        self._dispatch.route()

    def stop(self) -> None:
        """Acknowledge nothing more, and write the rows of what was."""
        self._stopped.set()
        self._front.stop()
        self.stow.stop()
        self._inbox.stop()


def couriers(core: Core, ticker: Ticker) -> None:
    """For every peer that is sent to as many couriers as it may have associations, each on its own tick."""
    patience, lease = served.patience(core), timedelta(seconds=core.settings.deliver.lease_seconds)
    by_dicom, by_web = StorageSender(core.settings.node.ae_title, core.tls), StowSender(servers(core.settings))
    database, clock = core.database, core.clock
    for peer in senders(core):
        sender = by_dicom if peer.stow is None else by_web
        breaker = Breaker(database.write, clock, sender, peer, patience)
        outbox = Outbox(database.write, database.write_unsynced, database.read, clock, peer, breaker, patience, lease)
        for number in range(peer.associations):
            courier = Deliver(outbox, core.files, sender, owner=core.owner)
            ticker.every(_TICK, f"deliver to {peer.name}, {number + 1}", courier.deliver)


def verifiers(core: Core, ticker: Ticker) -> None:
    """For every peer that verifies, a look for what it was sent, on its own tick."""
    node, database, patience = core.settings.node, core.database, served.patience(core)
    query, commitment = QueryVerifier(node.ae_title, core.tls), StorageCommitmentSCU(node.ae_title, core.tls)
    stored_at = servers(core.settings)
    search = QidoVerifier(lambda p: Connection(stored_at[p.name], name=p.name, timeout=p.timeout_seconds))
    reports = served.take_reports(core)
    for peer in verified(core):
        look: VerifyByQuery | RequestCommitments
        if peer.verify is Verify.QUERY:
            by = query if peer.stow is None else search
            look = VerifyByQuery(database.write, database.read, core.clock, by, peer, patience)
        else:
            look = RequestCommitments(database.write, database.read, core.clock, commitment, reports, peer, patience)
        ticker.every(_TICK, f"verify at {peer.name}", look.verify)


def servers(settings: Settings) -> dict[str, Server]:
    """The DICOMweb services that are stored at, by the peer's name. They hold secrets: never log them."""
    return {
        name: Server(
            stow.url,
            token=stow.token.get_secret_value() if stow.token is not None else None,
            cert=stow.cert,
            key=stow.key,
            ca=stow.ca,
        )
        for name, peer in settings.peers.items()
        if (stow := peer.stow) is not None
    }


def senders(core: Core) -> list[Peer]:
    """The peers that are sent to."""
    return [p for p in core.peers.values() if p.send]


def verified(core: Core) -> list[Peer]:
    """The peers at which what they were sent is looked for."""
    return [p for p in senders(core) if p.verify is not Verify.NONE]


def new_ticker(core: Core) -> Ticker:
    """A ticker with a thread for every peer that it waits for, and some for the node itself."""
    waited_for = sum(p.associations for p in senders(core)) + len(verified(core)) + len(served.called(core))
    waited_for += sum(p.query for p in core.peers.values())
    return Ticker(threads=waited_for + core.settings.node.receivers + 5)


def receive(core: Core, stop: Stop) -> None:
    """Run the receiver alone: receive, settle, route."""
    ticker = new_ticker(core)
    receiver = Receiver(core, core.metrics())
    receiver.start(ticker)
    ticker.start()
    stop.wait()
    receiver.stop()
    ticker.stop()
    core.close()


def deliver(core: Core, stop: Stop) -> None:
    """Run the outboxes alone."""
    ticker = new_ticker(core)
    couriers(core, ticker)
    verifiers(core, ticker)
    ticker.start()
    stop.wait()
    ticker.stop()
    core.close()


def api(core: Core, stop: Stop) -> None:
    """Run the admin API alone; what it stores by DICOMweb is settled by the receiver, which is another process."""
    from node.web import WebServer

    counted = core.metrics()
    receiver = Receiver(core, counted)
    web = WebServer(core, counted, receiver.stow)
    with receiver.not_listening():
        web.start()
        stop.wait()
    web.stop()
    core.close()


def serve(core: Core, stop: Stop, *, ready: Callable[[], None] = lambda: None) -> None:
    """Run every stage until ``stop`` is set; the worker runs as a process of its own, so that torch stays out of here.

    Args:
        ready: called when the receiver listens and the API answers.
    """
    with ExitStack() as stack:
        stack.enter_context(only_one(core.data_dir))
        stack.callback(core.close)
        counted = core.metrics()
        ticker = new_ticker(core)
        receiver = Receiver(core, counted)
        worker = Supervised("worker", core.config)
        receiver.start(ticker)
        couriers(core, ticker)
        verifiers(core, ticker)
        worker.start()
        ticker.every(_KEEP, "worker", worker.keep)
        ticker.start()
        from node.web import WebServer

        web = WebServer(core, counted, receiver.stow)
        stack.callback(web.stop)
        stack.callback(worker.stop)
        stack.callback(ticker.stop)
        stack.callback(receiver.stop)
        web.start()
        core.checks.append(worker.problem)
        models = core.models()
        core.checks.append(lambda: "; ".join(models.problems()) or None)
        ready()
        stop.wait()
        log.info("stopping")
