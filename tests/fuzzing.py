"""Properties of the upper layer over generated streams: some hundred in a test run, for minutes by ``make fuzz``."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from node.dicom import dimse
from node.dicom.association import Association, State, Terms
from node.dicom.message import ObjectWriter
from node.domain.instance import StoreRequest

T = TypeVar("T")

SECONDS = float(os.environ.get("AINODE_FUZZ_SECONDS", "0"))  # for all properties together
HOUR = 3600.0
HANG_SECONDS = 60.0  # for what takes milliseconds
_FLAT = 64 << 20
_properties: list[str] = []


def fuzz(examples: SearchStrategy[T], *, count: int = 300) -> Callable[[Callable[[T], None]], Callable[[], None]]:
    """A test that checks a property on ``count`` examples, and on as many again until its share of the time is over.

    The memory of this process has to stay flat meanwhile.
    """

    def made(check: Callable[[T], None]) -> Callable[[], None]:
        quiet = settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
        some = quiet(given(examples)(check))

        def run() -> None:
            end = time.monotonic() + SECONDS / len(_properties)
            with _unlogged():
                some()
                before = psutil.Process().memory_info().rss
                while time.monotonic() < end:
                    some()
                assert psutil.Process().memory_info().rss - before < _FLAT

        run.__name__ = check.__name__
        _properties.append(check.__name__)
        return pytest.mark.fuzz(run)

    return made


@contextmanager
def _unlogged() -> Iterator[None]:
    """Thousands of warnings would fill pytest's memory."""
    loggers = [logging.getLogger(name) for name in ("node", "pydicom", "pynetdicom")]
    nowhere = logging.NullHandler()
    for logger in loggers:
        logger.addHandler(nowhere)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(nowhere)
            logger.propagate = True


class Failures(logging.Handler):
    """What the node logged with a traceback: an error that it did not expect."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.records.append(record)

    def __enter__(self) -> Failures:
        logging.getLogger("node").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("node").removeHandler(self)
        assert not self.records, self.records[0].getMessage()


def associated(
    begin: Callable[[StoreRequest], ObjectWriter], *, seconds: float = HOUR, buffer: int | None = None
) -> tuple[Association, socket.socket]:
    """An association over TCP, and the peer's end of it; by default its deadlines are too far away to end it."""
    terms = Terms(
        begin=begin,
        admit=lambda *_: None,
        may_store=lambda calling: True,
        on_no_tls=lambda: None,
        on_study=lambda study_uid: None,
        on_released=lambda *_: None,
        on_end=lambda association: None,
        services=dimse.SERVICES,
        notices={},
        artim=seconds,
        idle=seconds,
        pdu=seconds,
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    if buffer is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return Association(ours, "127.0.0.1", terms, None), theirs


@contextmanager
def running(association: Association) -> Iterator[None]:
    """Serve it meanwhile; it has to end by itself."""
    thread = threading.Thread(target=association.run, daemon=True)
    thread.start()
    yield
    thread.join(HANG_SECONDS)
    assert not thread.is_alive(), "it hangs"
    assert association.state is State.AWAITING_CLOSE


def serve(stream: bytes, begin: Callable[[StoreRequest], ObjectWriter], *, silence: float | None = None) -> bytes:
    """Let an association read ``stream`` and then the end; gives what it answered before it closed the connection.

    Args:
        silence: in the place of the end; the deadlines of the association, in seconds.
    """
    association, theirs = associated(begin, seconds=silence or HOUR)
    answer = b""
    with theirs:
        with running(association), suppress(ConnectionError):
            theirs.sendall(stream)
            if silence is None:
                theirs.shutdown(socket.SHUT_WR)
        theirs.settimeout(HANG_SECONDS)
        with suppress(ConnectionResetError):
            while more := theirs.recv(1 << 16):
                answer += more
    return answer
