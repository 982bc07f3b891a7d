"""The worker: for every device some lanes, each with a process that runs one job at a time.

While the job of one lane uses the device, that of another is read, or its results are written.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread

from node.core import Core
from node.domain.errors import AinodeError
from node.ports import Engine
from node.services.batches import Batches
from node.services.beside import Beside
from node.services.gate import Gate
from node.services.oversight import Oversight
from node.services.rollout import rollout_of
from node.services.work import Work
from node.stopping import Stop
from node.workers.local import Device, LocalEngine, WarmUp
from pipelines.registry import model_version

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_BESIDE_SECONDS = 1.0


def work(core: Core, stop: Stop) -> None:
    """Claim and run jobs until ``stop`` is set."""
    # Inherited by the processes that run jobs: what torch compiles is compiled once, not at every start.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(core.data_dir / "cache" / "torch"))
    lanes = [lane for n in range(len(core.settings.work.device)) for lane in _lanes(core, stop, n)]
    threads = [Thread(target=lane.run, name=lane.name) for lane in lanes]
    beside = {"notices": core.notices().give, "what came again": core.recompressed().look}
    threads += [Thread(target=_every_second, args=(call, stop, name), name=name) for name, call in beside.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _every_second(call: Callable[[], object], stop: Stop, name: str) -> None:
    """What has to be looked for in the database, whatever process wrote it."""
    while not stop.is_set():
        try:
            call()
        except Exception:
            log.exception("%s failed; it is looked at again", name)
        stop.wait(_BESIDE_SECONDS)


def _lanes(core: Core, stop: Stop, number: int) -> list[_Lane]:
    """The lanes of one device; the first is always warm."""
    settings = core.settings.work
    batches = Batches(settings.batch, timedelta(seconds=settings.batch_wait_seconds))
    shared = _Shared(shared_device(core, number), Beside(), batches)
    return [_Lane(core, stop, number, shared, spare=n > 0) for n in range(settings.beside)]


@dataclass(frozen=True)
class _Shared:
    """What the lanes of a device have in common."""

    device: Device
    beside: Beside
    batches: Batches


def shared_device(core: Core, number: int) -> Device:
    """What all that use a device, by its number in the settings, have in common."""
    # By number, not by name: a list may name the CPU twice. By host, because hosts may share a data directory.
    lock = core.data_dir / f"device-{socket.gethostname()}-{number}.lock"
    return Device(lock, core.settings.work.warm_mb << 20)


def gate(core: Core, engine: Engine, stop: Stop, device: str) -> Gate:
    """What tries model versions in an engine, on that very device."""
    settings = core.settings.work
    return Gate(
        core.database.write,
        core.clock,
        core.files,
        engine,
        core.rollouts(),
        core.trial_provenance,
        core.locate(),
        owner=core.owner,
        device=device,
        lease=timedelta(seconds=settings.lease_seconds),
        timeout=timedelta(seconds=settings.timeout_seconds),
        stopping=stop.is_set,
    )


def _expected(core: Core, device: str) -> Iterator[WarmUp]:
    """The champions of what the routes name."""
    locate = core.locate()
    for name in dict.fromkeys(route.pipeline for route in core.routes):
        try:
            with core.database.write() as tx:
                champion = rollout_of(tx, name, model_version).champion
            located = locate(champion)
        except AinodeError as error:
            log.error("%s cannot be loaded beforehand: %s", name, error)
        else:
            yield WarmUp(champion, device, located.directory, located.trust_code)


class _Lane:
    def __init__(self, core: Core, stop: Stop, number: int, shared: _Shared, *, spare: bool) -> None:
        settings = core.settings.work
        self.name = f"{settings.device[number]} {'spare' if spare else 'first'}"
        self._core = core
        self._device = settings.device[number]
        self._stop = stop
        self._spare = spare
        self._engine = LocalEngine(
            shared.device, log_level=core.settings.log.level, log_format=core.settings.log.format
        )
        self._work = Work(
            core.database.write,
            core.database.read,
            core.clock,
            core.files,
            self._engine,
            core.provenance,
            core.locate(),
            Oversight(core.database.write, core.clock, core.rollouts()),
            shared.beside,
            owner=core.owner,
            device=self._device,
            attempts=settings.attempts,
            lease=timedelta(seconds=settings.lease_seconds),
            timeout=timedelta(seconds=settings.timeout_seconds),
            retry=timedelta(seconds=settings.retry_seconds),
            profiles=core.profiles,
            batches=shared.batches,
            spare=spare,
            stopping=stop.is_set,
        )
        self._gate = None if spare else gate(core, self._engine, stop, self._device)

    def run(self) -> None:
        """Work until the end is asked for."""
        if not self._spare:
            self._engine.warm(_expected(self._core, self._device))
        try:
            while not self._stop.is_set():
                try:
                    tried = self._gate is not None and self._gate.work()
                    idle = not (tried or self._work.work())
                except Exception:
                    log.exception("the worker failed outside of a job; it goes on")
                    idle = True
                if idle:
                    self._stop.wait(_LOOK_SECONDS)
        finally:
            self._engine.close()
