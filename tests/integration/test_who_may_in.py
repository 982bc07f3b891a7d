"""The door as peers meet it: what comes over the wire, and how many a peer may hold."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import build_context

from node.dicom.admission import Admission
from node.dicom.associate import associate, end
from node.dicom.scp import StorageSCP
from node.domain.errors import PeerUnreachable
from node.domain.instance import Answer, Incoming
from node.domain.peer import Peer
from tests import objects, peers
from tests.running import eventually

ECHO = [build_context("1.2.840.10008.1.1")]
CT1 = Peer("CT1", "CT1", "localhost", receive=True)
ELSEWHERE = "192.0.2.1"  # TEST-NET-1: nobody calls from there


@pytest.fixture
def listen() -> Iterator[Callable[..., Peer]]:
    """Starts a receiver that knows the given peers; returns it as a peer to call."""
    running: list[StorageSCP] = []

    def start(*known: Peer, accept_unknown: bool = False) -> Peer:
        admit = Admission("AINODE", known, accept_unknown=accept_unknown)
        scp = StorageSCP(
            "AINODE", "127.0.0.1", 0, lambda incoming: Answer(0), lambda calling: False, admit=admit, max_associations=4
        )
        scp.start()
        running.append(scp)
        return Peer("NODE", "AINODE", "127.0.0.1", scp.port, timeout_seconds=5)

    yield start
    for scp in running:
        scp.stop(grace=0)


def gets_in(node: Peer, calling: str) -> bool:
    try:
        end(associate(node, ECHO, ae_title=calling))
    except PeerUnreachable as error:
        assert "rejected the association" in str(error)
        return False
    return True


def test_who_calls_whom_from_where(listen: Callable[..., Peer]) -> None:
    node = listen(CT1, Peer("FAR", "FAR", ELSEWHERE, receive=True), Peer("PACS", "PACS", "localhost", 104, send=True))
    assert gets_in(node, "CT1")
    with pytest.raises(PeerUnreachable, match=r"Calling AE title not recognised \(Rejected Permanent\)"):
        associate(node, ECHO, ae_title="STRANGER")
    with pytest.raises(PeerUnreachable, match=r"Called AE title not recognised \(Rejected Permanent\)"):
        associate(replace(node, ae_title="OTHER"), ECHO, ae_title="CT1")
    assert not gets_in(node, "FAR")
    assert not gets_in(node, "PACS")


def test_an_open_node_takes_strangers_but_no_impostors(listen: Callable[..., Peer]) -> None:
    node = listen(Peer("FAR", "FAR", ELSEWHERE, receive=True), accept_unknown=True)
    assert gets_in(node, "STRANGER")
    assert not gets_in(node, "FAR")


def test_a_peer_at_its_cap_is_told_to_come_back_and_others_are_not_held_up(listen: Callable[..., Peer]) -> None:
    node = listen(replace(CT1, max_associations=2), Peer("CT2", "CT2", "localhost", receive=True))
    held = [associate(node, ECHO, ae_title="CT1") for _ in range(2)]
    with pytest.raises(PeerUnreachable, match=r"Local limit exceeded \(Rejected Transient\)"):
        associate(node, ECHO, ae_title="CT1")
    assert gets_in(node, "CT2")
    held[0].release()
    eventually(lambda: gets_in(node, "CT1"), "after a release there is room", seconds=5)
    held[1].abort()
    more = [associate(node, ECHO, ae_title="CT1")]
    eventually(lambda: gets_in(node, "CT1"), "after an abort there is room", seconds=5)
    for association in more:
        association.release()


@pytest.mark.peer
def test_storescu_is_told_of_temporary_congestion_until_there_is_room(tmp_path: Path) -> None:
    room = [False]
    kept: list[Incoming] = []

    def receive(incoming: Incoming) -> Answer:
        kept.append(incoming)
        return Answer(0)

    admit = Admission("AINODE", [CT1], has_room=lambda: room[0])
    scp = StorageSCP("AINODE", "127.0.0.1", 0, receive, lambda calling: False, admit=admit)
    scp.start()
    file = objects.write(tmp_path / "ct.dcm", objects.incoming())
    address = ["-aet", "CT1", "-aec", "AINODE", "127.0.0.1", str(scp.port)]
    try:
        for program, more in (("storescu", [str(file)]), ("echoscu", [])):
            told = subprocess.run(
                [peers.program(program), *address, *more], capture_output=True, text=True, check=False
            )
            assert told.returncode != 0
            assert "Result: Rejected Transient, Source: Service Provider (Presentation Related)" in told.stderr
            assert "Reason: Temporary Congestion" in told.stderr
        assert kept == []
        room[0] = True
        subprocess.run([peers.program("storescu"), *address, str(file)], check=True)
        assert len(kept) == 1
    finally:
        scp.stop(grace=0)
