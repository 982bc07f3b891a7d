"""Peers that get something wrong on the wire: one cuts the connection, one is mute, one chokes on an object."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt

from node.dicom.sink import Sink
from node.domain.instance import Answer, Incoming


class Dropping:
    """In front of a peer: cuts the connection in the middle of an object, so many times."""

    def __init__(self, port: int, *, after: int, times: int) -> None:
        self._to, self._after, self.times = port, after, times
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                behind = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [connection, behind]
                for ends in ((behind, connection, 1 << 60), (connection, behind, self._after)):
                    self._threads.append(threading.Thread(target=self._pass, args=ends))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket, after: int) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(4096):
                passed += len(data)
                if passed > after and self.times > 0:
                    self.times -= 1
                    source.shutdown(socket.SHUT_RDWR)
                    break
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


class Mute(Sink):
    """Takes associations and objects, and answers none before ``speaks`` is set."""

    def __init__(self, port: int, out_dir: Path) -> None:
        super().__init__("MUTE", port, out_dir)
        self.speaks = threading.Event()
        self.heard = 0

    def _store(self, incoming: Incoming) -> Answer:
        if not self.speaks.is_set():
            self.heard += 1
            self.speaks.wait(120)
            return Answer(0xA700)  # nobody hears it
        return super()._store(incoming)


class Choking:
    """Aborts the association at each object that is in ``on``, and takes all others; ``stored`` are these."""

    def __init__(self, *sop_classes: str, on: set[str]) -> None:
        self.on = on
        self.stored: list[str] = []
        self.aborts = 0
        self._ae = AE("PACS")
        for sop_class_uid in ("1.2.840.10008.1.1", *sop_classes):
            self._ae.add_supported_context(sop_class_uid)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store)]
        self._server: Any = self._ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in self.on:
            self.aborts += 1
            event.assoc.abort()
            return 0xC000  # nobody hears it
        self.stored.append(uid)
        return 0x0000

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
