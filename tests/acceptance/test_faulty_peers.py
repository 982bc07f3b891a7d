"""A whole node beside peers of which each has another fault, all at once: nobody waits for another, and in the end each
object is there once, or dead with its reason."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import _config

from node.dicom.sink import Sink
from node.domain.delivery import Delivery
from node.domain.instance import Answer
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests.archive import Archive
from tests.faulty import Dropping, Mute
from tests.running import RunningNode, eventually, free_port
from tests.scu import Modality, store

pytestmark = [pytest.mark.slow, pytest.mark.long]

SLICES = 60
FULL, FEW = SLICES + 3, 2  # a report, a segmentation, and the captures with a summary page
SR, SEG = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4"
TIMEOUT = 20  # seconds; whoever waited for the mute one would wait for longer
UNREPORTED = "gave up after it was sent 4 times: asked 2 times to commit to it, the peer reported nothing"


class Reporting:
    """Reports for an archive, so often, on associations of its own; ``reports`` are the answers of the node."""

    def __init__(self, archive: Archive, port: int, *, times: int, commits_half_first: bool = False) -> None:
        self.answers: list[int] = []
        self._archive, self._port, self._times, self._half = archive, port, times, commits_half_first
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._report)
        self._thread.start()

    def _report(self) -> None:
        done = 0
        while not self._over.wait(0.05):
            for asked in self._archive.asked[done:]:
                done += 1
                self.answers += self._archive.report(self._port, *[self._information(asked)] * self._times)

    def _information(self, asked: Dataset) -> Dataset:
        if self._half:
            self._half = False
            self._archive.holds.pop(str(asked.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
        return self._archive.information(asked)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Hospital:
    """The peers, and the node that sends to them."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self._stack, late = root, stack, free_port()
        self.seen: Any = None
        self.good, self.drops = self.sink("GOOD"), self.sink("DROPS")
        self.statuses, self.mute = self.sink("STATUSES"), self._started(Mute(free_port(), root / "MUTE"))
        self.down = Sink("DOWN", late, root / "DOWN")
        self.between = Dropping(self.drops.port, after=20_000, times=3)
        stack.callback(self.between.close)
        self.no_reports = self.archive("NOREPORTS", SEG)
        self.half, self.never, self.twice = (self.archive(name, SR, SEG) for name in ("HALF", "NEVER", "TWICE"))
        full: dict[str, int] = {
            "GOOD": self.good.port, "DROPS": self.between.port, "STATUSES": self.statuses.port,
            "MUTE": self.mute.port, "DOWN": late,
        }  # fmt: skip
        few = {"NOREPORTS": self.no_reports, "HALF": self.half, "NEVER": self.never, "TWICE": self.twice}
        peers: dict[str, Any] = {name: self._peer(name, port) for name, port in full.items()}
        peers |= {name: self._peer(name, archive.port, profile="few") for name, archive in few.items()}
        for name in ("HALF", "NEVER", "TWICE"):
            peers[name] |= {"verify": "commitment", "verify_seconds": 4 if name == "NEVER" else 60}
        route = {"name": "chest-ct", "pipeline": "lung_density_ct", "send_to": list(peers)}
        profiles = {"few": {"from": "full", "captures": "none", "summary": False}}
        peers["CT1"] = {"ae_title": "CT1", "host": "127.0.0.1", "receive": True}
        self.node = RunningNode(root, pacs_port=0, peers=peers, routes=[route], profiles=profiles)
        self.reporting = {
            "HALF": Reporting(self.half, self.node.port, times=1, commits_half_first=True),
            "TWICE": Reporting(self.twice, self.node.port, times=2),
        }
        for reporting in self.reporting.values():
            stack.callback(reporting.close)

    def _peer(self, name: str, port: int, **more: Any) -> dict[str, Any]:
        return {"ae_title": name, "host": "127.0.0.1", "port": port, "send": True, "timeout_seconds": TIMEOUT, **more}

    def _started(self, sink: Any) -> Any:
        sink.start()
        self._stack.callback(sink.stop)
        return sink

    def sink(self, name: str) -> Any:
        return self._started(Sink(name, free_port(), self.root / name))

    def archive(self, name: str, *sop_classes: str) -> Archive:
        archive = Archive(ae_title=name, sop_classes=sop_classes).start()
        self._stack.callback(archive.stop)
        return archive

    def rows(self, peer: str) -> list[Delivery]:
        """In sending order."""
        return sorted((d for d in self.node.rows()[2] if d.peer == peer), key=lambda d: d.position)

    def states(self, peer: str) -> Counter[str]:
        return Counter(d.state.value for d in self.rows(peer))

    def reasons(self, peer: str) -> set[str | None]:
        return {d.reason for d in self.rows(peer)}

    def until(self, peer: str, *, seconds: float = 60, **states: int) -> None:
        """Wait until so many of a peer's deliveries are in these states, and none in another."""
        try:
            eventually(lambda: self.states(peer) == states, f"{peer} is {states}", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}, but {self.states(peer)}; the log:\n{self.node.log[-3000:]}") from None

    def status(self, peer: str) -> Any:
        return next(p for p in self.node.get("/api/v1/status")["peers"] if p["name"] == peer)

    def unverified(self, peer: str) -> Any:
        """How a peer is shown, once it has all that it is owed and has committed to nothing."""
        return shown if (shown := self.status(peer))["unverified"] == FEW else None


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A node whose results of a small phantom went to all who would take them, while the faults lasted."""
    with ExitStack() as stack:
        # The scripted archives take the SOP classes that they name, whatever else this process has loaded.
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(_config, "UNRESTRICTED_STORAGE_SERVICE", False)
        hospital = Hospital(tmp_path_factory.mktemp("hospital"), stack)
        hospital.statuses.answer_next([Answer(s) for s in (0xA700, 0xA900, 0xC000, 0xB000, 0x0122)])
        node = hospital.node.start()
        stack.callback(node.close)
        phantom = make_phantom(PhantomSpec(shape=(SLICES, 128, 128), spacing=(5.0, 2.8, 2.8)))
        with Modality(node.port).association() as association:
            store(association, write_series(phantom, hospital.root / "ct"))
        # Delivered, and not committed to.
        hospital.seen = eventually(lambda: hospital.unverified("NEVER"), "NEVER has all, unverified", seconds=120)
        hospital.until("GOOD", delivered=FULL, seconds=120)
        yield hospital


def test_nobody_waited_for_the_mute_one_or_for_another(hospital: Hospital) -> None:
    waited = [(d.delivered_at - d.created_at).total_seconds() for d in hospital.rows("GOOD") if d.delivered_at]
    assert len(waited) == FULL
    assert max(waited) < TIMEOUT
    assert set(hospital.good.stored.values()) == {1}
    assert hospital.states("MUTE").keys() <= {"pending", "sending"}
    assert hospital.states("DOWN") == {"pending": FULL}


def test_a_peer_that_refuses_the_report_class_has_the_rest(hospital: Hospital) -> None:
    hospital.until("NOREPORTS", delivered=1, dead=1)
    assert list(hospital.no_reports.stored) == [hospital.rows("NOREPORTS")[0].sop_instance_uid]
    (reason,) = hospital.reasons("NOREPORTS") - {None}
    assert str(reason).startswith("the peer answered 0122 (SOP class not supported)")


def test_each_status_has_its_end(hospital: Hospital) -> None:
    hospital.until("STATUSES", delivered=FULL - 2, dead=2)
    reasons = [d.reason for d in hospital.rows("STATUSES")[:5]]
    assert reasons == [
        None,
        "the peer answered A900 (error: data set does not match SOP class)",
        None,
        "the peer answered B000 (coercion of data elements)",
        "the peer answered 0122 (SOP class not supported)",
    ]
    assert set(hospital.statuses.stored.values()) == {1}
    assert hospital.statuses.order[-1] == hospital.rows("STATUSES")[-1].sop_instance_uid, "the report is the last"


def test_an_association_that_drops_in_mid_object_loses_nothing(hospital: Hospital) -> None:
    hospital.until("DROPS", delivered=FULL)
    assert hospital.between.times == 0, "it has dropped"
    assert set(hospital.drops.stored.values()) == {1}
    assert hospital.drops.order[-1] == hospital.rows("DROPS")[-1].sop_instance_uid, "the report is the last"


def test_a_peer_that_commits_to_half_gets_the_other_half_again(hospital: Hospital) -> None:
    hospital.until("HALF", committed=FEW)
    assert [d.missing for d in hospital.rows("HALF")] == [1, 0]
    assert sorted(Counter(hospital.half.stored).values()) == [1, 2]
    assert len(hospital.half.holds) == FEW
    assert set(hospital.reporting["HALF"].answers) == {0}


def test_a_peer_that_reports_twice_is_committed_once(hospital: Hospital) -> None:
    hospital.until("TWICE", committed=FEW)
    assert hospital.reporting["TWICE"].answers == [0, 0]
    assert {(d.attempt, d.missing) for d in hospital.rows("TWICE")} == {(1, 0)}
    assert sorted(Counter(hospital.twice.stored).values()) == [1, 1]
    (study,) = hospital.node.rows()[0]
    timeline = hospital.node.get(f"/api/v1/studies/{study.study_uid}")["timeline"]
    of_it = Counter((e["subject"], e["step"]) for e in timeline if e["detail"].get("peer") == "TWICE")
    assert (of_it["commitment", "report"], of_it["delivery", "commit"]) == (1, FEW)


def test_a_peer_that_never_reports_is_sent_to_again_and_then_dead_with_the_reason(hospital: Hospital) -> None:
    seen = hospital.seen["deliveries"]
    assert (seen["delivered"], seen["committed"], sum(seen.values())) == (FEW, 0, FEW)
    hospital.until("NEVER", dead=FEW, seconds=120)
    assert hospital.reasons("NEVER") == {UNREPORTED}
    assert {d.missing for d in hospital.rows("NEVER")} == {3}
    assert set(Counter(hospital.never.stored).values()) == {4}
    assert len(hospital.never.holds) == FEW, "the same bytes under the same UIDs"
    assert len(hospital.never.asked) == 8
    shown = hospital.status("NEVER")
    assert (shown["deliveries"]["dead"], sum(shown["deliveries"].values()), shown["unverified"]) == (FEW, FEW, 0)
    dead = [d for d in hospital.node.get("/api/v1/deliveries?state=dead&limit=100") if d["peer"] == "NEVER"]
    assert [(d["reason"], d["missing"]) for d in dead] == [(UNREPORTED, 3)] * FEW
    (job,) = hospital.node.rows()[1]
    assert job.state.value == "succeeded"


def test_a_peer_that_answers_again_has_all_once(hospital: Hospital) -> None:
    eventually(lambda: hospital.mute.heard, "an object was sent to the mute one")
    hospital.mute.speaks.set()
    hospital.until("MUTE", delivered=FULL, seconds=120)
    assert set(hospital.mute.stored.values()) == {1}
    assert hospital.mute.order[-1] == hospital.rows("MUTE")[-1].sop_instance_uid, "the report is the last"


def test_a_peer_that_comes_back_has_all_once(hospital: Hospital) -> None:
    hospital.down.start()
    try:
        hospital.until("DOWN", delivered=FULL, seconds=120)
        assert set(hospital.down.stored.values()) == {1}
    finally:
        hospital.down.stop()
    assert {d.attempt for d in hospital.rows("DOWN")} == {1}
