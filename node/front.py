"""The front of the node: receives objects, in this process or in several that share one port.

A receiver keeps objects and tells of them; it writes no rows. What it tells goes to the inbox of the process that
assembles: directly, or through a pipe from a process of its own. A process that dies takes nothing with it that was
acknowledged: an object is told of before it is answered, and what is in the pipe is read to its end.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from config.settings import WhenFull
from node import served
from node.core import Core
from node.dicom.admission import Admission
from node.dicom.census import Census, LocalCensus
from node.dicom.scp import StorageSCP, listen
from node.domain.errors import InvalidSettings
from node.domain.instance import Answer, Aside, Instance
from node.services.receive import Receive
from node.stopping import Stop
from node.workers.supervise import Handed, Supervised

log = logging.getLogger(__name__)

_START_SECONDS = 30.0
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Told:
    """Who is told what: see ``Receive`` and ``StorageSCP``."""

    kept: Callable[[Instance | Aside], None]
    answered: Callable[[str, Answer, int], None]
    rejected: Callable[[str, str, str], None]
    released: Callable[[str, frozenset[str]], None]


def new_receive(core: Core, told: Told) -> Receive:
    """The receive service of this process."""

    def row(sop_instance_uid: str) -> Instance | None:
        with core.database.read() as tx:
            return tx.instances.get(sop_instance_uid)

    def corrected(sop_instance_uid: str) -> Aside | None:
        with core.database.read() as tx:
            return tx.instances.correction_of(sop_instance_uid)

    def is_ours(series_uid: str) -> bool:
        with core.database.read() as tx:
            return tx.instances.is_result_series(series_uid)

    return Receive(
        core.files,
        row,
        is_ours,
        told.kept,
        core.clock,
        corrected=corrected,
        on_answered=told.answered,
        max_bytes=core.settings.node.max_object_mb << 20,
    )


def new_scp(
    core: Core, receive: Receive, told: Told, census: Census, listener: socket.socket | None = None
) -> StorageSCP:
    """The Storage SCP of this process; ``listener`` as in ``StorageSCP``."""
    node = core.settings.node
    admission = Admission(
        node.ae_title,
        core.peers.values(),
        accept_unknown=node.accept_unknown_peers,
        has_room=core.has_room if node.when_full is WhenFull.ASSOCIATIONS else lambda: True,
    )
    return StorageSCP(
        node.ae_title,
        node.host,
        node.port,
        receive.store,
        lambda calling: False,
        begin=receive.begin,
        admit=admission,
        may_store=admission.may_store,
        tls=core.tls.server if core.tls is not None else None,
        services=served.services(core),
        notices=served.notices(core),
        census=census,
        listener=listener,
        on_reject=told.rejected,
        on_released=told.released,
        max_associations=node.max_associations,
    )


def new_front(core: Core, receive: Receive, told: Told) -> Front:
    """As many receivers as the settings want. ``told`` is told by several threads at once."""
    return (SeveralFronts if core.settings.node.receivers > 1 else Front)(core, receive, told)


def _cannot_listen(core: Core, error: OSError) -> InvalidSettings:
    at = f"{core.settings.node.host}:{core.settings.node.port}"
    return InvalidSettings("node.port", f"cannot listen on {at}: {error.strerror}", "Choose a free one")


class Front:
    """One receiver, in this process. ``processes`` are those to be kept running: none."""

    def __init__(self, core: Core, receive: Receive, told: Told) -> None:
        self._core = core
        self._receive = receive
        self._told = told
        self._scp: StorageSCP | None = None
        self._census = LocalCensus()
        self.processes: list[Supervised] = []

    def start(self) -> None:
        """Listen.

        Raises:
            InvalidSettings: the address is in use or not ours.
        """
        # An association gives up the interpreter lock at every system call; while rows are written it would wait 5 ms
        # each time to have it back.
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._scp = new_scp(self._core, self._receive, self._told, self._census)
        try:
            self._scp.start()
        except OSError as error:
            raise _cannot_listen(self._core, error) from None

    def being_sent(self, study_uid: str) -> bool:
        """Whether an association is open in which instances of a study were acknowledged: more of it may follow."""
        return self._census.being_sent(study_uid)

    def stop(self) -> None:
        """Acknowledge nothing more; when it returns, everything that was is told of."""
        if self._scp is not None:
            self._scp.stop()


class SeveralFronts(Front):
    """Receivers as processes of their own, started again when they die.

    All accept from one socket, whose owner is this process: the kernel wakes them in turn, and a connection that waits
    is lost with none of them.
    """

    def __init__(self, core: Core, receive: Receive, told: Told) -> None:
        super().__init__(core, receive, told)
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._channels = [_Channel(self, told) for _ in range(core.settings.node.receivers)]

    def start(self) -> None:
        """Start them, and wait until all listen.

        Raises:
            InvalidSettings: the address is in use or not ours, or they do not start.
        """
        node = self._core.settings.node
        try:
            self._listener = listen(node.host, node.port)
        except OSError as error:
            raise _cannot_listen(self._core, error) from None
        for number, channel in enumerate(self._channels, start=1):
            process = Supervised(f"receiver {number}", self._core.config, Handed(self._listener, channel.attach))
            process.start()
            self.processes.append(process)
        for process, channel in zip(self.processes, self._channels, strict=True):
            if not channel.listens.wait(_START_SECONDS):
                raise InvalidSettings("node.receivers", f"{process.stage} does not start", "See its log lines above")

    def being_sent(self, study_uid: str) -> bool:
        """As ``Front``, over all processes."""
        return any(channel.census.being_sent(study_uid) for channel in self._channels)

    def stop(self) -> None:
        """As ``Front``."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.stop()
        for channel in self._channels:
            channel.join()

    def enter(self, own: LocalCensus, calling: str) -> tuple[int, int]:
        """As ``Census``, over all of them; counted in ``own``."""
        with self._lock:
            counts = [channel.census.count(calling) for channel in self._channels if channel.census is not own]
            counts.append(own.enter(calling))
        return sum(of_caller for of_caller, _ in counts), sum(of_all for _, of_all in counts)


class _Channel:
    """The end of a receiver's pipe that is read, over all its lives."""

    def __init__(self, fronts: SeveralFronts, told: Told) -> None:
        self._fronts = fronts
        self._told = told
        self._reader: threading.Thread | None = None
        self.census = LocalCensus()
        self.listens = threading.Event()

    def attach(self, ours: socket.socket) -> None:
        """Read what a new process tells; what the last one told is read to its end first."""
        self.join()
        self.census = LocalCensus()  # the associations of a process end with it
        connection = Connection(ours.detach())
        self._reader = threading.Thread(target=self._read, args=(connection,), name="receiver", daemon=True)
        self._reader.start()

    def join(self) -> None:
        """Wait until everything that was told is read: the process has to have ended."""
        if self._reader is not None:
            self._reader.join()

    def _read(self, connection: Connection) -> None:
        census = self.census
        hear: dict[str, Callable[..., Any]] = {
            "kept": self._told.kept,
            "answered": self._told.answered,
            "rejected": self._told.rejected,
            "released": self._told.released,
            "sends": census.sends,
            "leave": census.leave,
            "enter": lambda calling: connection.send(self._fronts.enter(census, calling)),
            "listens": self.listens.set,
        }
        with connection:
            while True:
                try:
                    what, arguments = connection.recv()
                    hear[what](*arguments)
                except (EOFError, OSError):
                    break
                except Exception:
                    # The edge: what one object does must not silence the receiver.
                    log.exception("what a receiver told was not understood")


class _Teller:
    """The end of the pipe that is written: implements ``Census``, and what it tells is a ``Told``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.told = Told(
            kept=lambda kept: self._tell("kept", kept),
            answered=lambda calling, answer, size: self._tell("answered", calling, answer, size),
            rejected=lambda calling, called, reason: self._tell("rejected", calling, called, reason),
            released=lambda calling, study_uids: self._tell("released", calling, study_uids),
        )

    def enter(self, calling: str) -> tuple[int, int]:
        with self._lock:
            self._connection.send(("enter", (calling,)))
            others: tuple[int, int] = self._connection.recv()
        return others

    def sends(self, study_uid: str) -> None:
        self._tell("sends", study_uid)

    def leave(self, calling: str, study_uids: frozenset[str]) -> None:
        with suppress(BrokenPipeError):  # who counts has died, and what was counted with it
            self._tell("leave", calling, study_uids)

    def listens(self) -> None:
        self._tell("listens")

    def _tell(self, what: str, *arguments: object) -> None:
        with self._lock:
            self._connection.send((what, arguments))


def receive_apart(core: Core, stop: Stop, *, listener: int, channel: int) -> None:
    """Be one of several receivers, until ``stop`` is set.

    Args:
        listener, channel: file descriptors: of the socket to accept from, and of the pipe.
    """
    teller = _Teller(Connection(channel))
    core.files.sweep()
    receive = new_receive(core, teller.told)
    scp = new_scp(core, receive, teller.told, teller, socket.socket(fileno=listener))
    scp.start()
    teller.listens()
    stop.wait()
    scp.stop()
    core.close()
