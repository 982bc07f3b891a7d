"""One suite for the Verifier: C-FIND of Orthanc, dcmqrscp and a scripted archive, QIDO-RS of Orthanc, and a fake."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from node.dicom.scu import StorageSender
from node.dicom.verifier import QueryVerifier
from node.dicomweb.qido import QidoVerifier
from node.dicomweb.server import Connection, Server
from node.domain.errors import PeerUnreachable, Rejected
from node.domain.peer import Peer
from node.domain.verification import Wanted
from node.ports import Verifier
from tests import objects, peers
from tests.archive import Archive
from tests.fakes import FakeVerifier
from tests.orthanc import Orthanc
from tests.running import eventually, free_port

# Two series of a study and one of another; what is sent of them, and what is not.
SENT = [
    *(Wanted("1.2.3", "1.2.3.1", f"1.2.3.1.{n}") for n in range(1, 5)),
    Wanted("1.2.3", "1.2.3.2", "1.2.3.2.1"),
    Wanted("1.2.4", "1.2.4.1", "1.2.4.1.1"),
]
ABSENT = [
    Wanted("1.2.3", "1.2.3.1", "1.2.3.1.9"),
    Wanted("1.2.3", "1.2.3.9", "1.2.3.9.1"),
    Wanted("1.2.9", "1.2.9.1", "1.2.9.1.1"),
]
QUERY = QueryVerifier("AINODE")


@dataclass(frozen=True)
class Holder:
    """A verifier and the peer that it is for."""

    verifier: Verifier
    peer: Peer

    def held(self, *wanted: Wanted) -> set[str]:
        return self.verifier.held(self.peer, wanted)


def peer_at(port: int) -> Peer:
    return Peer("PACS", "PACS", "127.0.0.1", port, send=True, timeout_seconds=10)


def web(port: int) -> Connection:
    return Connection(Server(f"http://127.0.0.1:{port}/dicom-web"), name="PACS", timeout=10)


def filled(peer: Peer, root: Path) -> Peer:
    root.mkdir(exist_ok=True)
    files = [
        objects.write(
            root / f"{n}.dcm",
            objects.incoming(
                StudyInstanceUID=w.study_uid,
                SeriesInstanceUID=w.series_uid,
                SOPInstanceUID=w.sop_instance_uid,
                PatientName="Doe^Jane",
                StudyID="1",
                StudyDate="20260102",
                StudyTime="030405",
                AccessionNumber="A1",
                SeriesNumber=1,
                InstanceNumber=n,
            ),
        )
        for n, w in enumerate(SENT, 1)
    ]
    answers: list[int] = []
    StorageSender("AINODE").send(peer, files, lambda index, status, comment: answers.append(status))
    assert answers == [0] * len(SENT)
    return peer


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    root = tmp_path_factory.mktemp("orthanc")
    orthanc = Orthanc(root)
    orthanc.start()
    try:
        filled(peer_at(orthanc.port), root / "sent")
        yield orthanc
    finally:
        orthanc.stop()


@pytest.fixture(scope="module")
def dcmqrscp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    program, root, port = peers.program("dcmqrscp"), tmp_path_factory.mktemp("dcmqrscp"), free_port()
    (root / "db").mkdir()
    config = root / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 4\nHostTable BEGIN\nHostTable END\n"
        f"AETable BEGIN\nPACS {root}/db RW (100, 100mb) ANY\nAETable END\n"
    )
    running = subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        peer = peer_at(port)
        eventually(lambda: _answers(peer), "dcmqrscp answers")
        yield filled(peer, root / "sent")
    finally:
        running.terminate()
        running.wait(10)


def _answers(peer: Peer) -> bool:
    try:
        StorageSender("AINODE").echo(peer)
    except PeerUnreachable:
        return False
    return True


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    archive = Archive(sop_classes=(objects.CT,)).start()
    filled(peer_at(archive.port), tmp_path_factory.mktemp("archive"))
    yield archive
    archive.stop()


@pytest.fixture(
    params=["fake", "archive"]
    + [pytest.param(n, marks=pytest.mark.peer) for n in ("orthanc", "orthanc by QIDO-RS", "dcmqrscp")]
)
def holder(request: pytest.FixtureRequest) -> Holder:
    """Each of the verifiers, for a peer that has what is SENT."""
    if request.param == "fake":
        fake = FakeVerifier(*(w.sop_instance_uid for w in SENT))
        fake.moved = {w.sop_instance_uid: (w.study_uid, w.series_uid) for w in SENT}
        return Holder(fake, peer_at(104))
    if request.param == "dcmqrscp":
        return Holder(QUERY, request.getfixturevalue("dcmqrscp"))
    if request.param == "archive":
        return Holder(QUERY, peer_at(request.getfixturevalue("archive").port))
    orthanc: Orthanc = request.getfixturevalue("orthanc")
    if request.param == "orthanc":
        return Holder(QUERY, peer_at(orthanc.port))
    return Holder(QidoVerifier(lambda peer: web(orthanc.http_port)), peer_at(orthanc.port))


def test_what_is_there_is_held_and_what_is_not_is_not(holder: Holder) -> None:
    there = {w.sop_instance_uid for w in SENT}
    assert holder.held(*SENT, *ABSENT) == there
    assert holder.held(SENT[2]) == {SENT[2].sop_instance_uid}
    assert holder.held(ABSENT[0]) == holder.held(ABSENT[2]) == set()


def test_what_is_in_another_study_or_series_is_named(holder: Holder) -> None:
    moved = [Wanted("1.2.4", "1.2.4.1", SENT[2].sop_instance_uid), Wanted("1.2.3", "1.2.3.1", SENT[4].sop_instance_uid)]
    if not isinstance(holder.verifier, FakeVerifier):
        assert holder.held(*moved) == set()
    found = holder.verifier.elsewhere(holder.peer, [*moved, ABSENT[0]])
    assert found == {s.sop_instance_uid: (s.study_uid, s.series_uid) for s in (SENT[2], SENT[4])}


def test_an_archive_that_refuses_to_look_everywhere_says_nothing_of_where_it_is(archive: Archive) -> None:
    archive.is_relational = False
    moved = Wanted("1.2.4", "1.2.4.1", SENT[0].sop_instance_uid)
    try:
        assert QUERY.elsewhere(peer_at(archive.port), [moved, moved]) == {}
        assert QUERY.held(peer_at(archive.port), SENT[:1]) == {SENT[0].sop_instance_uid}
    finally:
        archive.is_relational = True


def test_an_archive_that_lists_what_it_was_not_asked_for_has_not_shown_it(archive: Archive) -> None:
    archive.ignores_keys = True
    try:
        held = QUERY.held(peer_at(archive.port), [Wanted("1.2.4", "1.2.4.1", SENT[0].sop_instance_uid), *SENT[1:3]])
    finally:
        archive.ignores_keys = False
    assert held == {w.sop_instance_uid for w in SENT[1:3]}


def test_an_archive_that_does_not_list_all_is_asked_for_each(archive: Archive) -> None:
    archive.lists = 2
    archive.asked_for.clear()
    try:
        held = QUERY.held(peer_at(archive.port), [*SENT[:4], ABSENT[0]])
    finally:
        archive.lists = 1000
    assert held == {w.sop_instance_uid for w in SENT[:4]}
    assert [str(q.SOPInstanceUID) for q in archive.asked_for[:1]] == [""]
    assert {str(q.SOPInstanceUID) for q in archive.asked_for[1:]} == {"1.2.3.1.3", "1.2.3.1.4", "1.2.3.1.9"}


def test_nobody_there_or_nobody_who_answers_queries() -> None:
    with pytest.raises(PeerUnreachable, match="refused"):
        QUERY.held(peer_at(free_port()), SENT)
    port = free_port()
    with pytest.raises(PeerUnreachable, match="refused"):
        QidoVerifier(lambda peer: web(port)).held(peer_at(port), SENT)


@contextmanager
def server(status: int, body: bytes) -> Iterator[int]:
    """Answers every search alike."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (503, b"", PeerUnreachable),
        (429, b"", PeerUnreachable),
        (401, b"", Rejected),
        (400, b"", Rejected),
        (200, b"<html>", Rejected),
    ],
)
def test_what_a_server_answers_instead_of_a_list(status: int, body: bytes, raised: type[Exception]) -> None:
    with server(status, body) as port, pytest.raises(raised, match="PACS answered the search"):
        QidoVerifier(lambda peer: web(port)).held(peer_at(104), SENT[:1])


@pytest.mark.parametrize(("status", "body"), [(404, b""), (204, b""), (200, b"[]"), (200, json.dumps([{}]).encode())])
def test_what_a_server_answers_when_it_has_none(status: int, body: bytes) -> None:
    with server(status, body) as port:
        assert QidoVerifier(lambda peer: web(port)).held(peer_at(104), SENT[:1]) == set()
