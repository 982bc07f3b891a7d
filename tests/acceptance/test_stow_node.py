"""STOW-RS of a whole node: rows, evidence, memory, proxies, and the API as a process of its own."""

from __future__ import annotations

import http.client
import struct
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from node.domain.part10 import head
from node.domain.study import StudyState
from node.store.database import Database
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests import objects
from tests.running import RunningNode, eventually, free_port
from tests.stow import CONTENT_TYPE, body_of, file_of

TOKEN, FAR_TOKEN = "a-token-of-the-scanner", "a-token-of-somebody-far-away"
FAR = ip_address("192.0.2.1")  # TEST-NET-1
PEERS = {
    "CT1": {"ae_title": "CT1", "host": "127.0.0.1", "receive": True, "dicomweb_token": TOKEN},
    "FAR": {"ae_title": "FAR", "host": str(FAR), "dicomweb_token": FAR_TOKEN},
}
MIB = 1 << 20


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningNode]]:
    """Starts a node, or one stage of it."""
    started: list[RunningNode] = []

    def _start(
        stage: str = "serve", *, quiet: float = 60.0, proxies: Iterable[str] = (), full: bool = False
    ) -> RunningNode:
        node = RunningNode(tmp_path, pacs_port=free_port(), quiet=quiet, routes=[], peers=PEERS)
        node.configure("api", proxies=list(proxies))
        if full:
            node.configure("node", min_free_mb=1 << 40, when_full="refuse_associations")
        started.append(node)
        return node.start(stage, until="/healthz" if full else "/readyz")

    yield _start
    for node in started:
        node.close()


def store(
    node: RunningNode, body: bytes | Iterable[bytes], *, token: str = TOKEN, headers: dict[str, str] | None = None
) -> int:
    """Post a body; returns the status."""
    connection = http.client.HTTPConnection("127.0.0.1", node.api_port, timeout=120)
    wanted = {"Authorization": f"Bearer {token}", "Content-Type": CONTENT_TYPE} | (headers or {})
    try:
        connection.request("POST", "/dicomweb/studies", body=body, headers=wanted)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def settled_by(node: RunningNode) -> str | None:
    """The evidence that settled the only study; None while it waits."""
    studies, _, _ = node.rows()
    if not studies or studies[0].state is StudyState.RECEIVING:
        return None
    database = Database(f"sqlite:///{node.data_dir}/ainode.db")
    try:
        with database.read() as tx:
            return next(
                str(e.detail["evidence"])
                for e in tx.journal.of_study(studies[0].study_uid)
                if e.step in ("evidence", "quiet")
            )
    finally:
        database.close()


def test_a_complete_ct_settles_by_evidence(start: Callable[..., RunningNode], tmp_path: Path) -> None:
    spec = PhantomSpec(shape=(40, 64, 64), spacing=(5.0, 5.0, 5.0))
    slices = [dcmread(path) for path in write_series(make_phantom(spec), tmp_path / "phantom")]
    node = start()
    client = DICOMwebClient(
        f"http://127.0.0.1:{node.api_port}/dicomweb", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
    )
    answer = client.store_instances(slices)
    assert len(answer.ReferencedSOPSequence) == len(slices)
    reason = eventually(lambda: settled_by(node), "the study settles long before its quiet time", seconds=20)
    assert reason == "association released, 1 series geometrically complete"
    assert node.kept() == {str(s.SOPInstanceUID) for s in slices}
    assert node.rows()[0][0].peer == "CT1"
    received = [line for line in metrics(node) if line.startswith("ainode_instances_received_total{")]
    assert received == [f'ainode_instances_received_total{{peer="CT1",status="0000"}} {len(slices)}.0']


def metrics(node: RunningNode) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", node.api_port, timeout=30)
    token = (node.data_dir / "api.token").read_text().strip()
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return lines


@pytest.mark.slow
def test_a_large_object_takes_no_memory(start: Callable[..., RunningNode]) -> None:
    """200 MiB in one part; the peak of the node's memory rises by less than 30 MiB."""
    node = start()
    assert store(node, body_of([file_of(objects.incoming())])) == 200
    before = peak(node)
    object_ = objects.incoming(SOPInstanceUID="1.2.3.5", PixelData=None)
    pixel_data = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 200 * MIB)

    def body() -> Iterator[bytes]:
        whole = body_of([head(object_) + object_.dataset + pixel_data])
        end = whole.rindex(b"\r\n--")
        yield whole[:end]
        yield from (bytes(MIB) for _ in range(200))
        yield whole[end:]

    assert store(node, body()) == 200
    eventually(lambda: "1.2.3.5" in node.kept(), "the large object has its row")
    assert peak(node) - before < 30 * MIB


def peak(node: RunningNode) -> int:
    """VmHWM, in bytes."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def test_nobody_is_believed_to_be_a_proxy_unless_the_settings_say_so(start: Callable[..., RunningNode]) -> None:
    body, forwarded = body_of([file_of(objects.incoming())]), {"X-Forwarded-For": str(FAR)}
    node = start()
    assert store(node, body, token=FAR_TOKEN, headers=forwarded) == 403
    assert store(node, body, headers=forwarded) == 200
    node.close()
    node = start(proxies=["127.0.0.1"])
    assert store(node, body, token=FAR_TOKEN, headers=forwarded) == 200
    assert store(node, body, headers=forwarded) == 403


def test_the_api_alone_stores_and_a_receiver_settles(start: Callable[..., RunningNode]) -> None:
    node = start("api", quiet=1.0)
    assert store(node, body_of([file_of(objects.incoming())])) == 200
    eventually(lambda: node.kept() == {"1.2.3.4"}, "the instance has its row")
    assert settled_by(node) is None
    assert node.stop() == 0
    node = start(quiet=1.0)
    assert eventually(lambda: settled_by(node), "the study settles").startswith("quiet for")


def test_a_full_node_takes_nothing_and_says_so(start: Callable[..., RunningNode]) -> None:
    node = start(full=True)
    assert node.status("/readyz") == 503
    assert store(node, body_of([file_of(objects.incoming())])) == 503


def test_a_node_that_is_killed_in_the_middle_keeps_what_it_answered(start: Callable[..., RunningNode]) -> None:
    node = start()
    assert store(node, body_of([file_of(objects.incoming())])) == 200
    large = file_of(objects.incoming(SOPInstanceUID="1.2.3.5", PixelData=bytes(MIB)))

    def body() -> Iterator[bytes]:
        yield body_of([large], end=False)[:MIB]
        eventually(lambda: any((node.data_dir / "tmp").iterdir()), "the object has begun")
        node.kill()

    with pytest.raises((OSError, http.client.HTTPException)):
        store(node, body())
    node.start()
    eventually(lambda: node.kept() == {"1.2.3.4"}, "what was answered has its row")
    assert not any((node.data_dir / "tmp").iterdir())
