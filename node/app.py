"""The composition root: builds every object from the settings, starts the stages and stops them.

Start: the schema, then what a crash left behind (leases of dead processes), then the receiver, and beside it rows for
what lies on disk without one; then everything that only reads what it wrote. Stop, in this order: the receiver (nothing
new is acknowledged), the inbox (rows of what was), the ticker (settling, routing, delivering), the worker (its job goes
back to the queue), the API last, so that an administrator can watch. Each may die at any point instead: the next start
does the same work.
"""

from __future__ import annotations

import fcntl
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from config.settings import Sync
from node.core import Core
from node.dicom.admission import Admission
from node.dicom.query import related_instances
from node.dicom.scp import StorageSCP
from node.dicom.scu import StorageSender
from node.domain.errors import InvalidSettings
from node.domain.instance import Answer, Incoming, Instance
from node.domain.peer import Peer
from node.domain.study import Released
from node.observe.metrics import Metrics
from node.schedule import Ticker
from node.services.assemble import Assemble
from node.services.deliver import Deliver
from node.services.dispatch import Dispatch
from node.services.evidence import Evidence
from node.services.inbox import Inbox
from node.services.receive import Receive
from node.services.recover import Recover
from node.services.work import Work
from node.stopping import Stop
from node.workers.supervise import Supervised
from pipelines.registry import model_version

log = logging.getLogger(__name__)

_TICK = timedelta(seconds=0.5)
_LOOK = timedelta(seconds=0.1)  # for studies to judge: hints in memory, so that nothing is read where there are none
_SWITCH_SECONDS = 0.0005
_RECOVER_EVERY = timedelta(seconds=15)


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


class Receiver:
    """Receive, index, settle, route."""

    def __init__(self, core: Core, metrics: Metrics) -> None:
        settings = core.settings
        self._core = core
        self._queried = {p.ae_title: p for p in core.peers.values() if p.query}
        self._evidence = self._new_evidence() if settings.assemble.evidence else None
        self._assemble = Assemble(
            core.database.write,
            core.database.read,
            core.clock,
            default=timedelta(seconds=settings.assemble.quiet_seconds),
            quiet={p.ae_title: timedelta(seconds=p.quiet_seconds) for p in core.peers.values() if p.quiet_seconds},
            evidence=self._evidence,
        )
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
        self._receive = Receive(
            core.files,
            self._row,
            self._is_ours,
            self._inbox.put,
            core.clock,
            on_answered=metrics.answered,
            max_bytes=settings.node.max_object_mb << 20,
        )
        self.scp = StorageSCP(
            settings.node.ae_title,
            settings.node.host,
            settings.node.port,
            self._receive.store,
            lambda calling: False,
            begin=self._receive.begin,
            admit=Admission(
                settings.node.ae_title, core.peers.values(), accept_unknown=settings.node.accept_unknown_peers
            ),
            tls=core.tls.server if core.tls is not None else None,
            on_reject=metrics.rejected,
            on_released=self._released,
            max_associations=settings.node.max_associations,
        )
        if not settings.node.accept_unknown_peers and not any(p.receive for p in core.peers.values()):
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

    def _being_sent(self, study_uid: str) -> bool:
        return self.scp.being_sent(study_uid)

    def _released(self, calling: str, study_uids: frozenset[str]) -> None:
        self._inbox.put(Released(calling, study_uids, self._core.clock.now()))

    def _row(self, sop_instance_uid: str) -> Instance | None:
        with self._core.database.read() as tx:
            return tx.instances.get(sop_instance_uid)

    def _is_ours(self, series_uid: str) -> bool:
        with self._core.database.read() as tx:
            return tx.instances.is_result_series(series_uid)

    def start(self, ticker: Ticker) -> None:
        """Clean up after the last run, then listen.

        Raises:
            InvalidSettings: the address is in use or not ours.
        """
        # An association gives up the interpreter lock at every system call; while rows are written it would wait 5 ms
        # each time to have it back.
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._core.files.sweep()
        recover = self._core.recover()
        recover.leases()
        self._dispatch.renew()
        self._inbox.start()
        try:
            self.scp.start()
        except OSError as error:
            at = f"{self._core.settings.node.host}:{self._core.settings.node.port}"
            raise InvalidSettings(
                "node.port", f"cannot listen on {at}: {error.strerror}", "Choose a free one"
            ) from None
        self._rebuilding = threading.Thread(target=self._rebuild, args=(recover,), name="rebuild", daemon=True)
        self._core.checks.append(
            lambda: "the index is being rebuilt from disk" if self._rebuilding.is_alive() else None
        )
        self._rebuilding.start()
        ticker.every(_TICK, "settle", self._settle)
        if self._evidence is not None:
            ticker.every(_LOOK, "evidence", partial(self._judge, self._evidence, None))
            for peer in self._queried.values():
                ticker.every(_LOOK, f"evidence of {peer.name}", partial(self._judge, self._evidence, peer))
        ticker.every(_RECOVER_EVERY, "recover", recover.leases)

    @contextmanager
    def not_listening(self) -> Iterator[Callable[[Incoming], Answer]]:
        """Keep what is fetched instead of sent here; the rows are written when it ends."""
        self._core.files.sweep()
        self._inbox.start()
        try:
            yield self._receive.store
        finally:
            self._inbox.stop()

    def _rebuild(self, recover: Recover) -> None:
        """Beside the receiver, because a large archive takes minutes to walk through."""
        try:
            recover.index(self._assemble)
        except Exception:
            log.exception("the index could not be rebuilt from disk; the next start tries again")

    def _judge(self, evidence: Evidence, peer: Peer | None) -> None:
        if evidence.judge(peer):
            self._dispatch.route()

    def _settle(self) -> None:
        self._assemble.settle()
        self._dispatch.route()

    def stop(self) -> None:
        """Acknowledge nothing more, and write the rows of what was."""
        self.scp.stop()
        self._inbox.stop()


def couriers(core: Core, ticker: Ticker) -> None:
    """One outbox for every peer that is sent to, each on its own tick."""
    deliver = core.settings.deliver
    sender = StorageSender(core.settings.node.ae_title, core.tls)
    for peer in senders(core):
        outbox = Deliver(
            core.database.write,
            core.clock,
            core.files,
            sender,
            peer,
            owner=core.owner,
            lease=timedelta(seconds=deliver.lease_seconds),
            retry=timedelta(seconds=deliver.retry_seconds),
            retry_max=timedelta(seconds=deliver.retry_max_seconds),
            give_up=timedelta(days=deliver.give_up_days),
        )
        ticker.every(_TICK, f"deliver to {peer.name}", outbox.deliver)


def senders(core: Core) -> list[Peer]:
    """The peers that are sent to."""
    return [p for p in core.peers.values() if p.send]


def new_ticker(core: Core) -> Ticker:
    """A ticker with a thread for every peer that it waits for, and some for the node itself."""
    return Ticker(threads=len(senders(core)) + sum(p.query for p in core.peers.values()) + 4)


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
    ticker.start()
    stop.wait()
    ticker.stop()
    core.close()


def api(core: Core, stop: Stop) -> None:
    """Run the admin API alone."""
    from node.web import WebServer

    web = WebServer(core, core.metrics())
    web.start()
    stop.wait()
    web.stop()
    core.close()


def work(core: Core, stop: Stop) -> None:
    """Claim and run jobs until ``stop`` is set."""
    from node.workers.local import LocalEngine

    settings = core.settings.work
    engine = LocalEngine(log_level=core.settings.log.level, log_format=core.settings.log.format)
    worker = Work(
        core.database.write,
        core.database.read,
        core.clock,
        core.files,
        engine,
        core.provenance,
        owner=core.owner,
        device=settings.device,
        attempts=settings.attempts,
        lease=timedelta(seconds=settings.lease_seconds),
        timeout=timedelta(seconds=settings.timeout_seconds),
        retry=timedelta(seconds=settings.retry_seconds),
        stopping=stop.is_set,
    )
    engine.warm()
    try:
        while not stop.is_set():
            try:
                idle = not worker.work()
            except Exception:
                log.exception("the worker failed outside of a job; it goes on")
                idle = True
            if idle:
                stop.wait(_TICK.total_seconds())
    finally:
        engine.close()


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
        worker.start()
        ticker.every(timedelta(seconds=1), "worker", worker.keep)
        ticker.start()
        from node.web import WebServer

        web = WebServer(core, counted)
        stack.callback(web.stop)
        stack.callback(worker.stop)
        stack.callback(ticker.stop)
        stack.callback(receiver.stop)
        web.start()
        core.checks.append(worker.problem)
        ready()
        stop.wait()
        log.info("stopping")
