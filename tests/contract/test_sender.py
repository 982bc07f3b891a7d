"""One suite for the Sender over two peers: the Sink that ships with the node, and DCMTK's storescp."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import build_context, evt

from node.dicom.associate import associate
from node.dicom.scp import StorageSCP
from node.dicom.scu import StorageSender
from node.dicom.send_dir import Sent, collect, send_files
from node.dicom.sink import Sink
from node.domain.errors import InvalidInput, PeerUnreachable
from node.domain.instance import Answer, Incoming
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.peer import Peer
from tests import objects, peers

# JPEG Full Progression, Non-Hierarchical and its like, retired in 2006.
RETIRED_SYNTAXES = {f"1.2.840.10008.1.2.4.{number}" for number in (53, 55)}
SENDER = StorageSender("AINODE")


def peer_at(port: int, ae_title: str = "PACS", timeout: float = 10.0) -> Peer:
    return Peer("PACS", ae_title, "127.0.0.1", port, send=True, timeout_seconds=timeout)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def data_set(path: Path) -> bytes:
    content = path.read_bytes()
    return content[split(content[:HEAD_LIMIT]).offset :]


class Statuses(list[tuple[int, int, str]]):
    """What ``on_status`` was told."""

    def __call__(self, index: int, status: int, comment: str) -> None:
        self.append((index, status, comment))

    @property
    def codes(self) -> list[tuple[int, int]]:
        return [(index, status) for index, status, _ in self]


class Pacs:
    """A peer under test: where it is, and what it keeps."""

    def __init__(self, peer: Peer, out_dir: Path) -> None:
        self.peer = peer
        self.out_dir = out_dir

    def stored(self) -> list[bytes]:
        return sorted(data_set(path) for path in self.out_dir.iterdir())


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., Pacs]]:
    """Starts DCMTK's storescp with the given options."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> Pacs:
        out_dir, port = tmp_path / "storescp", free_port()
        out_dir.mkdir()
        command = [peers.program("storescp"), *options, "+B", "-aet", "PACS", "-od", str(out_dir), str(port)]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        pacs = Pacs(peer_at(port), out_dir)
        until(lambda: answers(pacs.peer))
        return pacs

    yield start
    for process in running:
        process.terminate()
        process.wait()


def answers(peer: Peer) -> bool:
    try:
        SENDER.echo(peer)
    except PeerUnreachable:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(params=["sink", pytest.param("storescp", marks=pytest.mark.peer)])
def pacs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pacs]:
    if request.param == "storescp":
        yield request.getfixturevalue("storescp")("-pm", "+xa")
        return
    sink = Sink("PACS", 0, tmp_path / "sink")
    sink.start()
    yield Pacs(peer_at(sink.port), tmp_path / "sink")
    sink.stop()


def made(tmp_path: Path, count: int = 3, **elements: str) -> list[Path]:
    return [
        objects.write(tmp_path / f"{n}.dcm", objects.incoming(SOPInstanceUID=f"1.2.3.{n}", **elements))
        for n in range(count)
    ]


def test_objects_arrive_in_order_as_the_bytes_that_they_are(pacs: Pacs, tmp_path: Path) -> None:
    files = made(tmp_path)
    statuses = Statuses()
    SENDER.send(pacs.peer, files, statuses)
    assert statuses.codes == [(0, 0), (1, 0), (2, 0)]
    assert pacs.stored() == sorted(map(data_set, files))


def test_every_transfer_syntax_arrives_as_the_bytes_that_it_is(pacs: Pacs, shared_data: Path) -> None:
    metas = {path: split(path.read_bytes()[:HEAD_LIMIT]) for path in collect(shared_data / "syntaxes").files}
    files = list({meta.sop_instance_uid: path for path, meta in metas.items()}.values())
    statuses = Statuses()
    SENDER.send(pacs.peer, files, statuses)
    refused = {metas[files[index]].transfer_syntax_uid for index, status in statuses.codes if status == 0x0122}
    assert refused <= RETIRED_SYNTAXES, "DCMTK does not know these"
    taken = [path for path in files if metas[path].transfer_syntax_uid not in RETIRED_SYNTAXES]
    assert len({metas[path].transfer_syntax_uid for path in taken}) >= 11
    assert [status for _, status in statuses.codes].count(0) == len(files) - len(refused)
    assert set(pacs.stored()) >= set(map(data_set, taken))


def test_echo(pacs: Pacs) -> None:
    SENDER.echo(pacs.peer)


def test_a_file_that_cannot_be_read_is_reported_and_the_others_are_sent(pacs: Pacs, tmp_path: Path) -> None:
    files = made(tmp_path, 4)
    files[0].unlink()
    files[1].write_text("text")
    objects.write(files[2], replace(objects.incoming(), sop_instance_uid="1." * 40 + "1"))
    statuses = Statuses()
    SENDER.send(pacs.peer, files, statuses)
    assert statuses.codes == [(0, 0x0117), (1, 0x0117), (2, 0x0117), (3, 0)]
    assert statuses[0][2].startswith("not sent: ")


def test_a_directory_is_sent_without_what_is_not_dicom(pacs: Pacs, tmp_path: Path) -> None:
    directory = tmp_path / "study" / "series"
    directory.mkdir(parents=True)
    made(directory)
    (directory / "notes.txt").write_text("not DICOM")
    found = collect(tmp_path / "study")
    assert found.skipped == 1
    progress: list[Sent] = []
    sent = send_files(SENDER, pacs.peer, found.files, progress.append)
    assert sent == progress
    assert [s.accepted for s in sent] == [True] * 3
    assert [s.path.name for s in sent] == ["0.dcm", "1.dcm", "2.dcm"]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        collect(tmp_path / "nowhere")


@pytest.mark.peer
def test_a_refused_context_is_told_of_its_files_alone(storescp: Callable[..., Pacs], tmp_path: Path) -> None:
    pacs = storescp()  # takes uncompressed transfer syntaxes and known SOP classes only
    files = made(tmp_path)
    objects.write(files[1], replace(objects.incoming(SOPInstanceUID="1.2.3.1"), sop_class_uid="1.2.3.4.5"))
    statuses = Statuses()
    SENDER.send(pacs.peer, files, statuses)
    assert statuses.codes == [(0, 0), (1, 0x0122), (2, 0)]
    assert "refused" in statuses[1][2]


@pytest.mark.peer
def test_where_every_context_is_refused_all_files_are_told_so(storescp: Callable[..., Pacs], tmp_path: Path) -> None:
    pacs = storescp()
    file = objects.write(tmp_path / "x.dcm", replace(objects.incoming(), sop_class_uid="1.2.3.4.5"))
    statuses = Statuses()
    SENDER.send(pacs.peer, [file], statuses)
    assert statuses.codes == [(0, 0x0122)]


def test_more_contexts_than_an_association_has_room_for(tmp_path: Path) -> None:
    sink = Sink("PACS", 0, tmp_path / "sink")
    sink.start()
    files = [
        objects.write(tmp_path / f"{n}.dcm", objects.incoming(SOPInstanceUID=f"1.2.3.{n}", SOPClassUID=f"1.2.9.{n}"))
        for n in range(130)
    ]
    statuses = Statuses()
    SENDER.send(peer_at(sink.port), files, statuses)
    assert statuses.codes == [(n, 0) for n in range(130)]
    assert sink.order == [f"1.2.3.{n}" for n in range(130)]
    sink.stop()


def test_statuses_and_comments_of_the_peer_are_handed_on(tmp_path: Path) -> None:
    sink = Sink("PACS", 0, tmp_path / "sink")
    sink.start()
    sink.answer_next([Answer(0xA700, "full"), Answer(0xB000, "coerced")])
    statuses = Statuses()
    SENDER.send(peer_at(sink.port), made(tmp_path), statuses)
    assert list(statuses) == [(0, 0xA700, "full"), (1, 0xB000, "coerced"), (2, 0, "")]
    assert dict(sink.stored) == {"1.2.3.1": 1, "1.2.3.2": 1}
    sink.stop()


def test_nobody_listens(tmp_path: Path) -> None:
    peer = peer_at(free_port())
    for call in (lambda: SENDER.send(peer, made(tmp_path), Statuses()), lambda: SENDER.echo(peer)):
        with pytest.raises(PeerUnreachable, match="Connection refused"):
            call()


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(PeerUnreachable, match=r"no-such-host\.invalid"):
        SENDER.echo(Peer("PACS", "PACS", "no-such-host.invalid", 104))


def test_a_peer_without_a_port_is_a_setting_to_mend() -> None:
    with pytest.raises(InvalidInput, match=r"peers\.PACS\.port"):
        SENDER.echo(Peer("PACS", "PACS", "127.0.0.1"))


def test_a_rejection_that_is_quicker_than_pynetdicom_is_told_in_words() -> None:
    scp = StorageSCP("PACS", "127.0.0.1", 0, lambda incoming: Answer(0), lambda calling: False)
    scp.start()
    closed = threading.Event()
    # The thread that negotiates is held up until the answer has come and closed the connection.
    late = [(evt.EVT_REQUESTED, lambda event: closed.wait(10)), (evt.EVT_CONN_CLOSE, lambda event: closed.set())]
    with pytest.raises(PeerUnreachable, match="Calling AE title not recognised"):
        associate(peer_at(scp.port), [build_context("1.2.840.10008.1.1")], ae_title="CT1", handlers=late)
    scp.stop()


def test_a_rejection_is_told_in_words(tmp_path: Path) -> None:
    scp = StorageSCP("PACS", "127.0.0.1", 0, lambda incoming: Answer(0), lambda calling: calling == "CT1")
    scp.start()
    with pytest.raises(PeerUnreachable, match="Called AE title not recognised"):
        SENDER.echo(peer_at(scp.port, ae_title="OTHER"))
    with pytest.raises(PeerUnreachable, match="Calling AE title not recognised"):
        SENDER.send(peer_at(scp.port), made(tmp_path), Statuses())
    scp.stop()


def test_a_peer_that_says_nothing_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(PeerUnreachable, match=r"did not answer within 0\.5 s"),
    ):
        SENDER.echo(peer_at(server.getsockname()[1], timeout=0.5))


def test_what_was_answered_stands_when_the_association_breaks(tmp_path: Path) -> None:
    hang = threading.Event()

    def receive(incoming: Incoming) -> Answer:
        if incoming.sop_instance_uid == "1.2.3.1":
            hang.wait(10)
        return Answer(0)

    scp = StorageSCP("PACS", "127.0.0.1", 0, receive, lambda calling: True)
    scp.start()
    statuses = Statuses()
    with pytest.raises(PeerUnreachable, match=r"gave no answer to 1\.2\.3\.1"):
        SENDER.send(peer_at(scp.port, timeout=0.5), made(tmp_path), statuses)
    assert statuses.codes == [(0, 0)]
    hang.set()
    scp.stop()


def test_an_answer_that_the_reactor_took_is_given_back(tmp_path: Path) -> None:
    """pynetdicom's reactor takes an answer now and then, drops it, and the request would time out."""
    from pynetdicom import AE
    from pynetdicom.dimse_primitives import C_ECHO

    from node.dicom.stack import keep_answers

    sink = Sink("PACS", 0, tmp_path)
    sink.start()
    ae = AE("AINODE")
    association = ae.associate("127.0.0.1", sink.port, [build_context("1.2.840.10008.1.1")], ae_title="PACS")
    try:
        keep_answers(association)
        association._reactor_checkpoint.clear()  # the reactor itself stays out of this
        answer = C_ECHO()
        answer.MessageIDBeingRespondedTo = 1
        answer.Status = 0
        association._serve_request(answer, 1)
        assert association.dimse.get_msg(block=True) == (1, answer)
        association._reactor_checkpoint.set()
        assert association.send_c_echo().Status == 0
    finally:
        association.release()
        sink.stop()
