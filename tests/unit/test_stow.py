"""STOW-RS over real HTTP: the answers of PS3.18 section 10.5.3, and what lies on the disk behind each."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.domain.errors import Busy, Interrupted
from node.domain.instance import AsideReason
from tests import objects
from tests.admin import TOKEN, serving
from tests.running import eventually
from tests.stow import (
    BOUNDARY,
    CONTENT_TYPE,
    CT1,
    FAILED,
    FAR_TOKEN,
    OTHERS,
    PEER_TOKEN,
    REFERENCED,
    StowHouse,
    body_of,
    file_of,
)

CLASS_UID, INSTANCE_UID, REASON, COMMENT = "00081150", "00081155", "00081197", "00000902"
ONE, TWO = objects.incoming(SOPInstanceUID="1.2.3.1"), objects.incoming(SOPInstanceUID="1.2.3.2")
BROKEN = objects.incoming(SOPInstanceUID="1.2.3.3", SeriesInstanceUID="../../x")
MAX_BYTES = 1 << 20


@pytest.fixture
def house(tmp_path: Path) -> Iterator[StowHouse]:
    made = StowHouse(tmp_path, max_bytes=MAX_BYTES)
    yield made
    made.close()


@pytest.fixture
def client(house: StowHouse) -> Iterator[httpx.Client]:
    """As the peer CT1."""
    headers = {"Authorization": f"Bearer {PEER_TOKEN}", "Content-Type": CONTENT_TYPE}
    with serving(house.app()) as url, httpx.Client(base_url=f"{url}/dicomweb", headers=headers, timeout=30) as client:
        yield client


def items(answer: httpx.Response, sequence: str) -> list[dict[str, Any]]:
    """The items of a sequence of the answer, each as its first values by tag."""
    assert answer.headers["Content-Type"] == "application/dicom+json"
    found = answer.json().get(sequence, {"Value": []})
    return [{tag: element["Value"][0] for tag, element in item.items()} for item in found["Value"]]


def reference(uid: str) -> dict[str, Any]:
    return {CLASS_UID: objects.CT, INSTANCE_UID: uid}


def test_what_is_stored_lies_there_byte_for_byte(house: StowHouse, client: httpx.Client) -> None:
    answer = client.post("/studies", content=body_of([file_of(ONE), file_of(TWO)]))
    assert answer.status_code == 200
    assert items(answer, REFERENCED) == [reference("1.2.3.1"), reference("1.2.3.2")]
    assert set(answer.json()) == {REFERENCED}
    assert set(house.kept()) == {"1.2.3.1", "1.2.3.2"}
    assert house.kept()["1.2.3.1"].endswith(ONE.dataset)
    assert [told.peer for told in house.told] == ["SCANNER1"] * 2
    assert [peer for peer, _ in house.answers] == ["SCANNER1"] * 2
    assert house.released == [("SCANNER1", frozenset({"1.2.3"}))]
    assert house.unfinished() == []


def test_some_fail(house: StowHouse, client: httpx.Client) -> None:
    answer = client.post("/studies", content=body_of([file_of(ONE), file_of(BROKEN), b"no DICOM at all"]))
    assert answer.status_code == 202
    assert items(answer, REFERENCED) == [reference("1.2.3.1")]
    (failed,) = items(answer, FAILED)
    assert failed | {COMMENT: ""} == reference("1.2.3.3") | {REASON: 0xC000, COMMENT: ""}
    assert failed[COMMENT].startswith("SeriesInstanceUID")
    (other,) = items(answer, OTHERS)
    assert other == {REASON: 0xC000, COMMENT: "DICM: is not there: this is no DICOM file"}
    invalid, no_dicom = house.asides(AsideReason.INVALID)
    assert invalid.sop_instance_uid == "1.2.3.3"
    assert house.files.absolute(no_dicom.path).read_bytes() == b"no DICOM at all"
    assert no_dicom.peer == "SCANNER1"


@pytest.mark.parametrize(
    ("part", "reason", "comment"),
    [
        (file_of(BROKEN), 0xC000, "SeriesInstanceUID"),
        (file_of(ONE)[:-4], 0xC000, "data set: truncated"),
        (file_of(ONE).replace(b"1.2.3.1", b"1.2.3.9", 1), 0xA900, "SOPInstanceUID: 1.2.3.1 is not that of"),
    ],
)
def test_all_fail(house: StowHouse, client: httpx.Client, part: bytes, reason: int, comment: str) -> None:
    answer = client.post("/studies", content=body_of([part]))
    assert answer.status_code == 409
    (failed,) = items(answer, FAILED)
    assert failed[REASON] == reason
    assert failed[COMMENT].startswith(comment)
    assert house.kept() == {}
    assert len(house.asides(AsideReason.INVALID)) == 1


def test_the_study_of_the_path_is_the_only_one(house: StowHouse, client: httpx.Client) -> None:
    other = objects.incoming(SOPInstanceUID="1.2.3.2", StudyInstanceUID="1.2.4")
    answer = client.post("/studies/1.2.3", content=body_of([file_of(ONE), file_of(other)]))
    assert answer.status_code == 202
    assert items(answer, REFERENCED) == [reference("1.2.3.1")]
    (failed,) = items(answer, FAILED)
    assert (failed[INSTANCE_UID], failed[REASON]) == ("1.2.3.2", 0xA901)
    assert failed[COMMENT] == "StudyInstanceUID: is not that of the request"
    assert set(house.kept()) == {"1.2.3.1"}
    (aside,) = house.asides(AsideReason.INVALID)
    assert aside.sop_instance_uid == "1.2.3.2"


def test_again_is_success_and_other_bytes_are_a_conflict(house: StowHouse, client: httpx.Client) -> None:
    changed = objects.incoming(SOPInstanceUID="1.2.3.1", SliceThickness="3")
    for object_ in (ONE, ONE, changed):
        answer = client.post("/studies", content=body_of([file_of(object_)]))
        assert (answer.status_code, items(answer, REFERENCED)) == (200, [reference("1.2.3.1")])
    assert house.kept()["1.2.3.1"].endswith(ONE.dataset)
    (conflict,) = house.asides(AsideReason.CONFLICT)
    assert house.files.absolute(conflict.path).read_bytes().endswith(changed.dataset)


def test_too_large_an_object_is_413(house: StowHouse, client: httpx.Client) -> None:
    large = objects.incoming(PixelData=bytes(MAX_BYTES))
    answer = client.post("/studies", content=body_of([file_of(large)]))
    assert answer.status_code == 413
    assert items(answer, FAILED)[0][REASON] == 0xA700
    assert "larger than 1 MiB" in items(answer, FAILED)[0][COMMENT]
    assert (house.kept(), house.unfinished(), house.told) == ({}, [], [])


def test_a_full_disk_is_503_and_passes(house: StowHouse, client: httpx.Client) -> None:
    house.room = 0
    answer = client.post("/studies", content=body_of([file_of(ONE)]))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert "watermark" in answer.json()["error"]["problem"]
    house.room = 1
    assert client.post("/studies", content=body_of([file_of(ONE)])).status_code == 200


def test_a_disk_that_fills_up_in_the_middle_keeps_what_was_stored(house: StowHouse, client: httpx.Client) -> None:
    house.room = 1
    answer = client.post("/studies", content=body_of([file_of(ONE), file_of(TWO)]))
    assert (answer.status_code, items(answer, REFERENCED)) == (202, [reference("1.2.3.1")])
    assert items(answer, FAILED)[0][REASON] == 0xA700
    assert (set(house.kept()), house.unfinished()) == ({"1.2.3.1"}, [])


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Bearer {TOKEN}", f"Basic {PEER_TOKEN}", "Bearer"])
def test_only_the_token_of_a_peer_stores(house: StowHouse, client: httpx.Client, authorization: str | None) -> None:
    if authorization is None:
        del client.headers["Authorization"]
    else:
        client.headers["Authorization"] = authorization
    answer = client.post("/studies", content=body_of([file_of(ONE)]))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "dicomweb_token" in answer.json()["error"]["fix"]
    assert house.told == []


def test_the_token_of_a_peer_opens_nothing_else(client: httpx.Client) -> None:
    for path in ("/api/v1/status", "/api/v1/studies", "/metrics"):
        assert client.get(str(client.base_url).replace("/dicomweb/", path)).status_code == 401


def test_a_peer_stores_from_its_own_address_only(
    house: StowHouse, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.headers["Authorization"] = f"Bearer {FAR_TOKEN}"
    answer = client.post("/studies", content=body_of([file_of(ONE)]))
    assert answer.status_code == 403
    assert house.told == []
    assert "set peers.FAR.networks to [127.0.0.1]" in caplog.text


def test_where_nobody_may_store_nobody_does(tmp_path: Path) -> None:
    house = StowHouse(tmp_path)
    house.dicomweb = None
    with serving(house.app()) as url:
        answer = httpx.post(f"{url}/dicomweb/studies", headers={"Authorization": f"Bearer {PEER_TOKEN}"})
    house.close()
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("status", "headers", "body", "problem"),
    [
        (400, {}, b"", "The body ends before its last boundary"),
        (400, {}, body_of([]), "has no parts"),
        (400, {}, b"nothing like it", "The body ends before its last boundary"),
        (400, {}, body_of([file_of(ONE)], headers="no header\r\n"), "headers of a part are malformed"),
        (400, {}, body_of([file_of(ONE)], end=False), "The body ends before its last boundary"),
        (400, {"Content-Type": 'multipart/related; type="application/dicom"'}, b"", "no boundary"),
        (400, {"Content-Type": CONTENT_TYPE.replace(BOUNDARY, "b" * 201)}, b"", "no boundary of at most 200"),
        (406, {"Accept": "application/dicom+xml"}, body_of([file_of(ONE)]), "application/dicom+json"),
        (415, {"Content-Type": "application/dicom"}, file_of(ONE), "not one that is stored"),
        (415, {"Content-Type": CONTENT_TYPE.replace("dicom", "dicom+json")}, b"[]", "not one that is stored"),
        (415, {"Content-Type": CONTENT_TYPE.replace("related", "form-data")}, b"", "not one that is stored"),
        (415, {"Content-Type": ""}, b"", "not one that is stored"),
    ],
)
def test_what_is_not_served_is_told(
    house: StowHouse, client: httpx.Client, status: int, headers: dict[str, str], body: bytes, problem: str
) -> None:
    answer = client.post("/studies", content=body, headers=headers)
    assert answer.status_code == status
    assert problem in answer.json()["error"]["problem"]
    assert answer.json()["error"]["fix"]
    assert (house.kept(), house.unfinished(), house.told) == ({}, [], [])


@pytest.mark.parametrize("study_uid", ["1.2.x", "1..2", "0" * 65])
def test_a_study_that_is_no_uid(client: httpx.Client, study_uid: str) -> None:
    answer = client.post(f"/studies/{study_uid}", content=body_of([file_of(ONE)]))
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "StudyInstanceUID")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/dicom+json", "application/json;q=0.5, text/html", "APPLICATION/*"]
)
def test_dicom_json_is_what_is_answered(client: httpx.Client, accept: str) -> None:
    answer = client.post("/studies", content=body_of([file_of(ONE)]), headers={"Accept": accept})
    assert answer.headers["Content-Type"] == "application/dicom+json"


def test_a_body_that_ends_early_keeps_what_was_whole(house: StowHouse, client: httpx.Client) -> None:
    answer = client.post("/studies", content=body_of([file_of(ONE), file_of(TWO)], end=False))
    assert answer.status_code == 202
    assert items(answer, REFERENCED) == [reference("1.2.3.1")]
    (other,) = items(answer, OTHERS)
    assert other == {REASON: 0xC000, COMMENT: "The body ends before its last boundary"}
    assert set(house.kept()) == {"1.2.3.1"}
    assert (house.released, house.unfinished()) == ([], [])


def test_a_refusal_reaches_a_client_that_still_sends(client: httpx.Client) -> None:
    client.headers["Authorization"] = "Bearer wrong"
    answer = client.post("/studies", content=(bytes(1 << 16) for _ in range(128)))
    assert answer.status_code == 401


class Sender:
    """A client that sends a body in pieces, and may leave."""

    def __init__(self, client: httpx.Client) -> None:
        url = client.base_url
        self.socket = socket.create_connection((url.host, url.port or 80), timeout=30)
        self.socket.sendall(
            f"POST /dicomweb/studies HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {PEER_TOKEN}\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )

    def send(self, piece: bytes) -> None:
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    def end(self) -> bytes:
        self.socket.sendall(b"0\r\n\r\n")
        return self.socket.recv(1 << 16)


def test_while_it_runs_its_studies_are_being_sent(house: StowHouse, client: httpx.Client) -> None:
    sender = Sender(client)
    sender.send(body_of([file_of(ONE), b""], end=False))
    eventually(lambda: house.stow.being_sent("1.2.3"), "the study is being sent")
    assert not house.stow.being_sent("1.2.4")
    assert house.released == []
    sender.send(file_of(TWO) + f"\r\n--{BOUNDARY}--".encode())
    assert sender.end().startswith(b"HTTP/1.1 200 ")
    sender.socket.close()
    assert not house.stow.being_sent("1.2.3")
    assert house.released == [("SCANNER1", frozenset({"1.2.3"}))]


def test_a_client_that_goes_away_leaves_what_was_whole(house: StowHouse, client: httpx.Client) -> None:
    sender = Sender(client)
    # Enough of the second object for its file to be begun.
    large = file_of(objects.incoming(SOPInstanceUID="1.2.3.2", PixelData=bytes(1 << 17)))
    sender.send(body_of([file_of(ONE), large[: 1 << 17]], end=False))
    eventually(house.unfinished, "the second object has begun")
    sender.socket.close()
    eventually(lambda: not house.stow.being_sent("1.2.3"), "the transaction is closed")
    assert set(house.kept()) == {"1.2.3.1"}
    assert (house.unfinished(), house.released) == ([], [])


def test_a_client_that_falls_silent_is_cut(house: StowHouse) -> None:
    assert house.dicomweb is not None
    house.dicomweb = replace(house.dicomweb, idle_seconds=0.1)
    with serving(house.app()) as url, httpx.Client(base_url=url) as client:
        sender = Sender(client)
        sender.send(body_of([file_of(ONE), b""], end=False))
        assert sender.socket.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
        sender.socket.close()
    assert set(house.kept()) == {"1.2.3.1"}
    assert (house.unfinished(), house.released) == ([], [])


def test_no_more_transactions_than_allowed(house: StowHouse, client: httpx.Client) -> None:
    peer = house.stow.open(CT1), house.stow.open(CT1)
    answer = client.post("/studies", content=body_of([file_of(ONE)]))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert "2 of them by CT1" in answer.json()["error"]["problem"]
    other = house.stow.open(house.peers[1])
    with pytest.raises(Busy):
        house.stow.open(house.peers[1])
    for transaction in (*peer, other):
        transaction.close()
    assert client.post("/studies", content=body_of([file_of(ONE)])).status_code == 200


def test_stopping_waits_for_what_runs_and_then_takes_nothing(house: StowHouse, client: httpx.Client) -> None:
    running = house.stow.open(CT1)
    stopper = threading.Thread(target=house.stow.stop, kwargs={"grace": 60})
    stopper.start()
    eventually(
        lambda: client.post("/studies", content=body_of([file_of(ONE)])).status_code == 503, "no more are opened"
    )
    running.begin()
    running.write(memoryview(file_of(ONE)))
    running.end()
    running.close()
    stopper.join(60)
    assert not stopper.is_alive()
    assert set(house.kept()) == {"1.2.3.1"}


def test_what_runs_on_past_the_grace_is_cut(house: StowHouse, client: httpx.Client) -> None:
    sender = Sender(client)
    sender.send(body_of([file_of(ONE), b""], end=False))
    eventually(lambda: house.stow.being_sent("1.2.3"), "the first object is stored")
    house.stow.stop(grace=0)
    sender.send(file_of(TWO) + f"\r\n--{BOUNDARY}--".encode())
    assert sender.end().startswith(b"HTTP/1.1 503 ")
    sender.socket.close()
    assert set(house.kept()) == {"1.2.3.1"}
    with pytest.raises(Interrupted):
        house.stow.open(CT1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(min_value=0, max_value=1 << 18), max_size=20))
def test_any_pieces_of_a_file_give_the_same_instance(house: StowHouse, cuts: list[int]) -> None:
    """The file meta may be cut anywhere, and the first piece may hold much more than it."""
    object_ = objects.incoming(SOPInstanceUID="1.2.3.1", PixelData=bytes(range(256)) * 512)
    file = file_of(object_)
    at = sorted({0, *(cut % len(file) for cut in cuts), len(file)})
    transaction = house.stow.open(CT1)
    transaction.begin()
    for start, end in pairwise(at):
        transaction.write(memoryview(file)[start:end])
    transaction.end()
    transaction.close()
    assert [stored.success for stored in transaction.answers] == [True]
    assert house.kept()["1.2.3.1"].endswith(object_.dataset)
    assert not house.asides(AsideReason.CONFLICT)
