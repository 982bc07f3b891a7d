"""``kill -9`` of a receiver under four associations, again and again: nothing that it acknowledged is ever missing.

Six and three kills in a test run, fifty each by ``make soak``; of one receiver and of two that share the port.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from node.files.disk import DiskFiles
from node.store.database import Database
from tests import objects
from tests.rawpeer import CT_CONTEXT, RawPeer, p_data, pdv, store_rq
from tests.running import SOAK, RunningNode, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLS = 50 if SOAK else 6
SENDERS = 4
FRAGMENT = 16_000  # of 16 KiB, for which the raw peer asks
WHENS = ["between objects", "in mid-object", "at any time"]


class Sender(threading.Thread):
    """Sends objects of a study by one association until the connection breaks or it has sent ``count``.

    Then, if ``half``, it sends the first half of another one. ``sent`` and ``acknowledged`` are SHA-256 of data sets by
    SOPInstanceUID.
    """

    def __init__(self, port: int, uids: str, rng: random.Random, *, count: int, half: bool) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self.acknowledged: dict[str, str] = {}
        self.is_done = threading.Event()
        self._enough = threading.Event()
        self._peer = RawPeer(port).associate()
        self._study, self._uids = uids.rpartition(".")[0], uids
        self._rng, self._count, self._half = rng, count, half

    def run(self) -> None:
        with suppress(ConnectionError, BrokenPipeError):
            for number in range(self._count):
                if self._enough.is_set():
                    break
                uid, fragments = self._object(number)
                self._peer.send(*fragments)
                assert self._peer.status() == 0
                self.acknowledged[uid] = self.sent[uid]
            if self._half:
                _, fragments = self._object(self._count)
                self._peer.send(*fragments[: len(fragments) // 2])
        self.is_done.set()

    def close(self) -> None:
        self._enough.set()
        self.join()
        self._peer.socket.close()

    def _object(self, number: int) -> tuple[str, list[bytes]]:
        uid = f"{self._uids}.{number}"
        pixels = self._rng.randbytes(2 * self._rng.randrange(1_000, 150_000))
        data_set = objects.incoming(
            SOPInstanceUID=uid, StudyInstanceUID=self._study, SeriesInstanceUID=self._uids, PixelData=pixels
        ).dataset
        self.sent[uid] = hashlib.sha256(data_set).hexdigest()
        starts = range(0, len(data_set), FRAGMENT)
        fragments = [
            p_data(pdv(CT_CONTEXT, 2 if start == starts[-1] else 0, data_set[start : start + FRAGMENT]))
            for start in starts
        ]
        return uid, [p_data(pdv(CT_CONTEXT, 3, store_rq(uid))), *fragments]


@pytest.fixture(params=[1, 2], ids=["one receiver", "two receivers"])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningNode]:
    raw = {"RAW": {"ae_title": "RAW", "host": "127.0.0.1", "receive": True}}
    running = RunningNode(tmp_path, pacs_port=1, quiet=3600, peers=raw, routes=[], node={"receivers": request.param})
    yield running.start("scp")
    running.close()


def killed(node: RunningNode, study: str, when: str, rng: random.Random) -> list[Sender]:
    """Send by four associations and kill the node, or one of its receivers; gives the senders."""
    count = 10_000 if when == "at any time" else rng.randrange(1, 6)
    senders = [
        Sender(node.port, f"{study}.{n}", random.Random(rng.random()), count=count, half=when == "in mid-object")
        for n in range(1, SENDERS + 1)
    ]
    for sender in senders:
        sender.start()
    if when == "at any time":
        eventually(lambda: any(sender.acknowledged for sender in senders), "something is acknowledged")
        time.sleep(rng.uniform(0, 0.4))
    else:
        assert all(sender.is_done.wait(60) for sender in senders)
    if when == "in mid-object":
        eventually(lambda: len(temporary(node)) == SENDERS, "each association is within an object")
    receivers = node.receivers()
    if receivers and rng.random() < 0.7:
        rng.choice(receivers).kill()
    else:
        node.kill()
    for sender in senders:
        sender.close()
    return senders


def temporary(node: RunningNode) -> list[Path]:
    return list((node.data_dir / "tmp").iterdir())


def on_disk(node: RunningNode, study: str) -> dict[str, str]:
    files = DiskFiles(node.data_dir, min_free_bytes=0)
    paths = [str(path.relative_to(node.data_dir)) for path in (node.data_dir / "instances" / study).rglob("*.dcm")]
    return {Path(path).stem: files.digest(path) for path in paths}


def in_rows(node: RunningNode, study: str) -> dict[str, str]:
    database = Database(f"sqlite:///{node.data_dir}/ainode.db")
    try:
        with database.read() as tx:
            return {instance.sop_instance_uid: instance.digest for instance in tx.instances.of_study(study)}
    finally:
        database.close()


def test_nothing_acknowledged_is_missing_after_any_kill(node: RunningNode) -> None:
    kills = KILLS if SOAK else KILLS // node.settings["node"]["receivers"]
    rng, acknowledged = random.Random(KILLS), 0
    for kill in range(kills):
        study, when = f"1.2.{kill + 1}", WHENS[kill % len(WHENS)]
        senders = killed(node, study, when, rng)
        answered = {uid: digest for sender in senders for uid, digest in sender.acknowledged.items()}
        sent = {uid: digest for sender in senders for uid, digest in sender.sent.items()}
        lies = on_disk(node, study)
        assert answered.items() <= lies.items(), f"kill {kill}, {when}: acknowledged and missing, or not whole"
        assert lies.items() <= sent.items(), f"kill {kill}, {when}: not whole"
        if not node.is_running():
            node.start("scp")
        else:  # an object that a receiver had no time to tell of gets its row when it comes again, or at the next start
            lies = answered
        eventually(lambda: not temporary(node), "nothing half-written is left")
        eventually(
            lambda s=study, want=lies: want.items() <= in_rows(node, s).items(), f"kill {kill}, {when}: all have rows"
        )
        acknowledged += len(answered)
    assert acknowledged >= kills * SENDERS
    assert not (node.data_dir / "aside").exists()
    assert "Exception in thread" not in node.log
    print(f"{kills} kills, {acknowledged} objects acknowledged")  # noqa: T201 - for make soak
