"""STOW-RS as its client: a scripted server, our own over mutual TLS, and Orthanc's DICOMweb plug-in."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.policy import HTTP
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from config.neighbours import PeerSettings, StowSettings
from config.settings import NodeSettings, Settings
from node.app import couriers
from node.core import Core
from node.dicomweb import sender as stow_sender
from node.dicomweb.sender import StowSender
from node.dicomweb.server import Server
from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import PeerDeclines, PeerUnreachable
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.peer import Peer
from node.store.database import Database
from tests import objects
from tests.admin import serving
from tests.certificates import Authority
from tests.house import House, everything
from tests.integration.test_transcoding import write
from tests.orthanc import Orthanc
from tests.running import free_port
from tests.stow import PEER_TOKEN, StowHouse

PACS = Peer("PACS", "PACS", "127.0.0.1", send=True, timeout_seconds=10, stow="")
Reply = tuple[int, Any]


class Scripted:
    """Keeps what comes, and answers by ``reply``: from the UIDs of a request to status and body; and ``headers``."""

    def __init__(self) -> None:
        self.reply: Callable[[list[str]], Reply | None] = _all_stored
        self.requests: list[list[str]] = []
        self.kept: dict[str, bytes] = {}
        self.authorization: str | None = None
        self.headers: dict[str, str] = {}
        self.asked = 0
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(script.reply([]) or (200, []))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                whole = BytesParser(policy=HTTP).parsebytes(head + body)
                files = [part.get_payload(decode=True) for part in whole.iter_parts()]
                uids = [split(file[:HEAD_LIMIT]).sop_instance_uid for file in files]
                script.requests.append(uids)
                script.authorization = self.headers["Authorization"]
                said = script.reply(uids)
                if said is None:
                    self.close_connection = True
                    return
                failed = {i["00081155"]["Value"][0] for i in (said[1] or {}).get("00081198", {}).get("Value", [])}
                if said[0] in (200, 202):
                    script.kept |= {u: f for u, f in zip(uids, files, strict=True) if u not in failed}
                self._answer(said)

            def _answer(self, said: Reply) -> None:
                text = b"" if said[1] is None else json.dumps(said[1]).encode()
                script.asked += 1
                self.send_response_only(said[0])
                for name, value in script.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/web"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _all_stored(uids: list[str]) -> Reply:
    return 200, {"00081199": {"vr": "SQ", "Value": [_reference(uid) for uid in uids]}}


def _reference(uid: str, **more: Any) -> dict[str, Any]:
    return {"00081155": {"vr": "UI", "Value": [uid]}, **more}


def _failing(uids: list[str], failed: dict[str, int]) -> Reply:
    items = [_reference(u, **{"00081197": {"vr": "US", "Value": [failed[u]]}}) for u in uids if u in failed]
    stored = [_reference(u) for u in uids if u not in failed]
    return 202, {"00081199": {"vr": "SQ", "Value": stored}, "00081198": {"vr": "SQ", "Value": items}}


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


def sender(server: Scripted) -> StowSender:
    return StowSender({"PACS": Server(server.url, token="a-secret-token")})


def made(folder: Path, count: int) -> list[Path]:
    return [
        objects.write(folder / f"{n}.dcm", objects.incoming(SOPInstanceUID=f"1.2.3.{n}", PatientID="X" * 60))
        for n in range(count)
    ]


class Statuses(list[tuple[int, int]]):
    def __call__(self, index: int, status: int, comment: str) -> None:
        self.append((index, status))


def test_many_go_in_one_request_as_the_bytes_that_they_are(server: Scripted, tmp_path: Path) -> None:
    files, statuses = made(tmp_path, 5), Statuses()
    sender(server).send(PACS, files, statuses)
    assert statuses == [(n, 0) for n in range(5)]
    assert server.requests == [[f"1.2.3.{n}" for n in range(5)]]
    assert list(server.kept.values()) == [path.read_bytes() for path in files]
    assert server.authorization == "Bearer a-secret-token"
    assert "secret" not in repr(Server(server.url, token="a-secret-token"))


def test_what_waits_for_the_others_goes_in_a_request_of_its_own(server: Scripted, tmp_path: Path) -> None:
    statuses = Statuses()
    sender(server).send(PACS, made(tmp_path, 4), statuses, wanted=lambda index: index != 2 or len(statuses) == 2)
    assert server.requests == [["1.2.3.0", "1.2.3.1"], ["1.2.3.2", "1.2.3.3"]]


def test_what_is_not_wanted_is_left_out(server: Scripted, tmp_path: Path) -> None:
    statuses = Statuses()
    sender(server).send(PACS, made(tmp_path, 3), statuses, wanted=lambda index: index != 2)
    assert (statuses, server.requests) == ([(0, 0), (1, 0)], [["1.2.3.0", "1.2.3.1"]])


def test_each_instance_has_its_own_answer(server: Scripted, tmp_path: Path) -> None:
    server.reply = lambda uids: _failing(uids, {"1.2.3.1": 0xA700, "1.2.3.2": 0x0122})
    statuses = Statuses()
    sender(server).send(PACS, made(tmp_path, 3), statuses)
    assert statuses == [(0, 0), (1, 0xA700), (2, 0x0122)]


def test_a_request_that_is_refused_as_a_whole_is_sent_one_by_one(server: Scripted, tmp_path: Path) -> None:
    server.reply = lambda uids: (400, None) if "1.2.3.1" in uids else _all_stored(uids)
    statuses = Statuses()
    sender(server).send(PACS, made(tmp_path, 3), statuses)
    assert statuses == [(0, 0), (1, 0xC000), (2, 0)]
    assert len(server.requests) == 4


def test_the_one_on_which_the_server_breaks_off_is_found(server: Scripted, tmp_path: Path) -> None:
    server.reply = lambda uids: None if "1.2.3.2" in uids else _all_stored(uids)
    statuses, asked = Statuses(), list[int]()
    with pytest.raises(PeerUnreachable, match="no answer"):
        sender(server).send(PACS, made(tmp_path, 4), statuses, wanted=lambda index: asked.append(index) is None)
    assert statuses == [(0, 0), (1, 0)]
    assert asked[-1] == 2


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_what_is_wrong_with_the_server_is_no_answer_to_an_instance(
    server: Scripted, tmp_path: Path, status: int
) -> None:
    server.reply = lambda uids: (status, None)
    statuses = Statuses()
    with pytest.raises(PeerUnreachable, match=f"PACS: HTTP {status}"):
        sender(server).send(PACS, made(tmp_path, 2), statuses)
    assert statuses == []


def test_a_refused_transfer_syntax_is_sent_uncompressed(server: Scripted, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.dcm", n, syntax) for n, syntax in enumerate((RLELossless, JPEG2000Lossless))]
    before = [path.read_bytes() for path in files]

    def only_uncompressed(uids: list[str]) -> Reply:
        return _failing(uids, dict.fromkeys(uids, 0xC122) if len(server.requests) == 1 else {})

    server.reply = only_uncompressed
    statuses = Statuses()
    sender(server).send(PACS, files, statuses)
    assert statuses == [(0, 0), (1, 0)]
    syntaxes = {split(file[:HEAD_LIMIT]).transfer_syntax_uid for file in server.kept.values()}
    assert syntaxes == {ExplicitVRLittleEndian}
    assert [path.read_bytes() for path in files] == before


def test_a_file_that_is_gone_is_told_and_the_others_go(server: Scripted, tmp_path: Path) -> None:
    files, statuses = made(tmp_path, 3), Statuses()
    files[1].unlink()
    sender(server).send(PACS, files, statuses)
    assert statuses == [(1, 0x0117), (0, 0), (2, 0)]


@pytest.mark.parametrize(("status", "is_there"), [(200, True), (404, True), (501, True), (401, False), (503, False)])
def test_a_probe_finds_out_whether_the_server_is_there(server: Scripted, status: int, is_there: bool) -> None:
    server.reply = lambda uids: (status, None)
    if is_there:
        sender(server).echo(PACS)
    else:
        with pytest.raises(PeerUnreachable, match=f"HTTP {status}"):
            sender(server).echo(PACS)


def test_nobody_listens(tmp_path: Path) -> None:
    nobody = StowSender({"PACS": Server(f"http://127.0.0.1:{free_port()}")})
    with pytest.raises(PeerUnreachable, match="Connection refused"):
        nobody.send(PACS, made(tmp_path, 1), Statuses())
    with pytest.raises(PeerUnreachable, match="Connection refused"):
        nobody.echo(PACS)


def test_our_own_server_by_mutual_tls(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    theirs, ours = ca.issue("PACS"), ca.issue("AINODE")
    house = StowHouse(tmp_path)
    tls = {"ssl_certfile": theirs.cert, "ssl_keyfile": theirs.key, "ssl_ca_certs": ca.pem}
    with serving(house.app(), **tls, ssl_cert_reqs=ssl.CERT_REQUIRED) as at:
        url = at.replace("http://127.0.0.1", "https://localhost") + "/dicomweb"
        known = Server(url, token=PEER_TOKEN, cert=ours.cert, key=ours.key, ca=ca.pem)
        statuses, files = Statuses(), made(tmp_path, 3)
        StowSender({"PACS": known}).send(PACS, files, statuses)
        assert statuses == [(0, 0), (1, 0), (2, 0)]
        for stranger in (replace(known, cert=None, key=None), replace(known, ca=None), replace(known, token="x" * 20)):
            with pytest.raises(PeerUnreachable):
                StowSender({"PACS": stranger}).send(PACS, files, statuses)
    assert len(house.kept()) == len(statuses) == 3
    house.close()


@pytest.mark.peer
def test_orthanc_keeps_what_is_stored(tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    orthanc = Orthanc(tmp_path / "orthanc")
    orthanc.start()
    try:
        stow = StowSender({"PACS": Server(f"http://127.0.0.1:{orthanc.http_port}/dicom-web")})
        stow.echo(PACS)
        files = [write(tmp_path / f"{n}.dcm", n, s) for n, s in enumerate((ExplicitVRLittleEndian, RLELossless))]
        statuses = Statuses()
        stow.send(PACS, files, statuses)
        stow.send(PACS, files, statuses)
        assert statuses == [(0, 0), (1, 0)] * 2
        assert len(orthanc.get("/instances")) == 2
    finally:
        orthanc.stop()


def test_a_request_is_no_larger_than_one_may_be(server: Scripted, tmp_path: Path) -> None:
    count = stow_sender.AT_ONCE + 1
    statuses = Statuses()
    sender(server).send(PACS, made(tmp_path, count), statuses)
    assert [len(uids) for uids in server.requests] == [stow_sender.AT_ONCE, 1]
    assert len(statuses) == count


def dated(at: datetime) -> str:
    return format_datetime(at, usegmt=True)


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "9" * 400}, 999_999_999),
        ({"Retry-After": dated(NOON + timedelta(seconds=90)), "Date": dated(NOON)}, 90),
        ({"Retry-After": dated(NOON), "Date": dated(NOON + timedelta(seconds=90))}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "²"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("probed", [False, True])
def test_for_how_long_a_server_wants_to_be_left_alone(
    server: Scripted, tmp_path: Path, headers: dict[str, str], seconds: int | None, probed: bool
) -> None:
    server.reply = lambda uids: (503, None)
    server.headers = headers
    with pytest.raises(PeerDeclines, match="PACS: HTTP 503") as declined:
        sender(server).echo(PACS) if probed else sender(server).send(PACS, made(tmp_path, 2), Statuses())
    assert declined.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))


def test_a_time_is_of_our_clock_where_the_server_does_not_tell_its_own(server: Scripted) -> None:
    server.reply = lambda uids: (503, None)
    server.headers = {"Retry-After": dated(datetime.now(UTC) + timedelta(seconds=300))}
    with pytest.raises(PeerDeclines) as declined:
        sender(server).echo(PACS)
    assert declined.value.retry_after is not None
    assert 290 < declined.value.retry_after.total_seconds() <= 300


def owe(database: Database, folder: Path, count: int, now: datetime, *, job: str = "job1") -> None:
    """So many objects of a job, made in a folder; the last one closes it."""
    folder.mkdir()
    uids = [f"1.2.4.{job[-1]}.{n}" for n in range(1, count + 1)]
    with database.write() as tx:
        tx.deliveries.add(
            Delivery(
                0, job, "1.2", uid, objects.CT, objects.EXPLICIT,
                str(objects.write(folder / f"{uid}.dcm", objects.incoming(SOPInstanceUID=uid))),
                "PACS", DeliveryState.PENDING, 0, n, now, now, closes=n == count - 1,
            )
            for n, uid in enumerate(uids)
        )  # fmt: skip


def test_a_busy_server_is_left_alone_for_as_long_as_it_says_and_gets_all_then(
    house: House, server: Scripted, tmp_path: Path
) -> None:
    house.sender = sender(server)  # type: ignore[assignment]
    owe(house.database, tmp_path / "job", 3, house.clock.now())
    outbox = house.outbox(peer=PACS)
    server.reply, server.headers = lambda uids: (503, None), {"Retry-After": "240"}
    outbox.deliver()
    asked = server.asked
    for _ in range(23):
        house.clock.tick(10)
        assert outbox.deliver() == 0
    assert server.asked == asked, "not a word to it meanwhile"
    server.reply, server.headers = _all_stored, {}
    house.clock.tick(10)
    assert everything(outbox) == 3
    with house.database.read() as tx:
        assert [d.state for d in tx.deliveries.of_study("1.2")] == [DeliveryState.DELIVERED] * 3
    assert sorted(server.kept) == [f"1.2.4.1.{n}" for n in (1, 2, 3)]


class Calls(list[Callable[[], object]]):
    """A ticker that keeps what it is to call."""

    def every(self, interval: timedelta, name: str, call: Callable[[], object]) -> None:
        self.append(call)


def test_as_many_requests_at_once_as_the_peer_has_associations(server: Scripted, tmp_path: Path) -> None:
    peer = PeerSettings(ae_title="PACS", host="127.0.0.1", send=True, associations=2, stow=StowSettings(url=server.url))
    core = Core(Settings(node=NodeSettings(data_dir=tmp_path / "var", min_free_mb=0), peers={"PACS": peer}), None)
    core.database.prepare()
    calls = Calls()
    couriers(core, calls)  # type: ignore[arg-type]
    first, second = calls
    both, beside = threading.Barrier(2, timeout=20), threading.Thread(target=second)

    def together(uids: list[str]) -> Reply:
        if uids[0] == "1.2.4.1.1":
            owe(core.database, tmp_path / "two", 3, datetime.now(UTC), job="job2")
            beside.start()
        if uids[0] in ("1.2.4.1.1", "1.2.4.2.1"):
            both.wait()  # for the request of the other courier
        return _all_stored(uids)

    server.reply = together
    owe(core.database, tmp_path / "one", 3, datetime.now(UTC), job="job1")
    first()
    beside.join()
    with core.database.read() as tx:
        assert [d.state.value for d in tx.deliveries.of_study("1.2")] == ["delivered"] * 6
    core.database.close()
    assert (both.broken, len(server.kept)) == (False, 6)
