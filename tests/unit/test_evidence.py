"""Evidence before quiet time: releases, the peer's count, and what waits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from node.domain.errors import PeerUnreachable
from node.domain.events import Event
from node.domain.instance import Aside, Instance, Origin
from node.domain.part10 import head
from node.domain.peer import Peer
from node.domain.study import Released, StudyState
from node.services.assemble import Assemble
from node.services.evidence import Evidence, read_facts
from node.services.inbox import Inbox
from tests import objects
from tests.house import QUIET, House

STUDY, SERIES = "1.2.3", "1.2.3.1"
PACS = Peer("PACS", "PACS", "127.0.0.1", 104, receive=True, query=True)


class Node:
    """A house that judges by evidence. ``count`` is what PACS says; ``sending`` the studies of open associations."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.count: Callable[[], int | None] = lambda: None
        self.sending: set[str] = set()
        self.evidence = Evidence(
            house.database.write,
            house.database.read,
            house.clock,
            house.files,
            queried={"PACS": PACS},
            count=lambda peer, study_uid: self.count(),
            being_sent=self.sending.__contains__,
        )
        self.assemble = Assemble(
            house.database.write, house.database.read, house.clock, default=QUIET, quiet={}, evidence=self.evidence
        )

    def keep(self, number: int, *, peer: str = "CT1", **elements: Any) -> Instance:
        """A CT slice, 0.02 s after the one before it; ``number`` gives its position too."""
        self.house.clock.tick(0.02)
        uid = f"{elements.get('SeriesInstanceUID', SERIES)}.{number}"
        geometry: dict[str, Any] = {
            "ImagePositionPatient": [0, 0, 2.5 * number],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "InstanceNumber": number,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        }
        it = objects.incoming(peer=peer, SOPInstanceUID=uid, **geometry | elements)
        series = str(elements.get("SeriesInstanceUID", SERIES))
        path = self.house.files.keep(
            head=head(it), dataset=it.dataset, study_uid=STUDY, series_uid=series, sop_instance_uid=uid
        )
        digest = hashlib.sha256(it.dataset).hexdigest()
        at = self.house.clock.now()
        syntax, size = it.transfer_syntax_uid, len(it.dataset)
        return Instance(
            uid, it.sop_class_uid, STUDY, series, syntax, digest, size, path, Origin.RECEIVED, at, peer
        )  # fmt: skip

    def send(self, numbers: Sequence[int], *, peer: str = "CT1", **elements: Any) -> None:
        """An association that sends slices and is released."""
        self.assemble.index([*(self.keep(n, peer=peer, **elements) for n in numbers), self.released(peer)])

    def released(self, peer: str = "CT1") -> Released:
        self.house.clock.tick(0.01)
        return Released(peer, frozenset((STUDY,)), self.house.clock.now())

    def judge_after(self, seconds: float, peer: Peer | None = None) -> int:
        self.house.clock.tick(seconds)
        return self.evidence.judge(peer)

    def events(self, step: str) -> list[Event]:
        with self.house.database.read() as tx:
            return [e for e in tx.journal.of_study(STUDY) if e.step == step]

    @property
    def state(self) -> StudyState:
        with self.house.database.read() as tx:
            study = tx.studies.get(STUDY)
        assert study is not None
        return study.state


@pytest.fixture
def node(house: House) -> Iterator[Node]:
    yield Node(house)


def test_a_complete_series_settles_soon_after_the_release(node: Node) -> None:
    node.send(range(1, 11))
    assert node.judge_after(0.1) == 0
    assert node.judge_after(0.2) == 1
    (settled,) = node.events("evidence")
    assert settled.to_state == "settled"
    assert settled.detail == {
        "revision": 1,
        "evidence": "association released, 1 series geometrically complete",
        "instances": 10,
        "series": [f"{SERIES}: 10 slices 2.50 mm apart"],
    }
    assert node.judge_after(1) == 0
    node.house.clock.tick(11)
    assert node.assemble.settle() == 0


def test_without_a_release_only_quiet_time_settles(node: Node) -> None:
    node.assemble.index([node.keep(n) for n in range(1, 11)])
    assert node.judge_after(5) == 0
    node.house.clock.tick(6)
    assert node.assemble.settle() == 1


def test_a_hole_waits_for_its_quiet_time_and_says_why(node: Node) -> None:
    node.send([1, 2, 3, 5, 6])
    assert node.judge_after(0.5) == 0
    assert node.judge_after(0.5) == 0
    (wait,) = node.events("wait")
    assert wait.detail == {
        "revision": 1,
        "why": f"series {SERIES}: hole at 10.0 mm (5.0 mm between slices, 2.5 mm elsewhere)",
    }
    assert wait.to_state is None
    assert node.state is StudyState.RECEIVING
    node.house.clock.tick(9.5)
    assert node.assemble.settle() == 1
    assert node.events("quiet")[0].detail["lacked"] == wait.detail["why"]


def test_why_it_waits_is_said_once_a_revision_however_many_associations_come(node: Node) -> None:
    for number in range(2, 30):  # the first one never comes
        node.send([number])
        node.judge_after(1.0)
    assert len(node.events("wait")) == 1


def test_a_hole_that_is_filled_by_a_later_association_is_evidence(node: Node) -> None:
    node.send([1, 2, 3, 5, 6])
    node.judge_after(0.4)
    node.send([4])
    assert node.judge_after(0.5) == 0, "twice the pause between the two associations"
    assert node.judge_after(0.5) == 1
    assert len(node.events("evidence")) == 1


def test_an_instance_after_the_release_waits_for_the_release_of_its_own_association(node: Node) -> None:
    node.send(range(1, 11))
    node.assemble.index([node.keep(n) for n in (11, 12)])
    assert node.judge_after(2) == 0
    node.assemble.index([node.released()])
    assert node.judge_after(0.5) == 1


def test_an_instance_that_another_process_indexed_after_the_release_waits_too(node: Node) -> None:
    node.send(range(1, 11))
    node.house.assemble.index([node.keep(11)])
    assert node.judge_after(1) == 0
    assert node.state is StudyState.RECEIVING


def test_an_open_association_that_stored_into_the_study_prevents(node: Node) -> None:
    node.sending.add(STUDY)
    node.send(range(1, 11))
    assert node.judge_after(3) == 0
    assert node.events("wait") == []
    node.sending.clear()  # it was aborted: no release of its own
    assert node.judge_after(0) == 1


def test_a_sender_that_associates_for_each_instance_is_not_taken_as_done_in_between(node: Node) -> None:
    for number in range(1, 21):
        node.send([number])
        assert node.judge_after(1.0) == 0, f"after {number} of 20"
    assert node.judge_after(1.2) == 1
    assert [e.detail["instances"] for e in node.events("evidence")] == [20]


def test_a_late_instance_opens_a_revision_that_is_judged_anew(node: Node) -> None:
    node.send(range(1, 11))
    node.judge_after(1)
    node.send([12])
    assert node.judge_after(1) == 0
    assert node.state is StudyState.RECEIVING
    node.send([11])
    assert node.judge_after(5) == 1
    assert [e.detail["revision"] for e in node.events("evidence")] == [1, 2]


def test_the_same_bytes_again_open_nothing(node: Node) -> None:
    instances = [node.keep(n) for n in range(1, 11)]
    node.assemble.index([*instances, node.released()])
    node.judge_after(1)
    node.assemble.index([*instances, node.released()])
    assert node.judge_after(1) == 0
    assert node.state is StudyState.SETTLED
    assert len(node.events("evidence")) == 1


class TestTheCountOfThePeer:
    """What the peer says it holds decides; only where it says nothing, geometry does."""

    def test_all_that_it_counts_are_here(self, node: Node) -> None:
        node.count = lambda: 2
        node.send([1, 7], peer="PACS", Modality="CR")
        assert node.judge_after(1) == 0, "only the call for the peer asks it"
        assert node.judge_after(0, PACS) == 1
        assert node.events("evidence")[0].detail["evidence"] == "PACS counts 2 instances, all of them are here"

    def test_it_counts_more(self, node: Node) -> None:
        node.count = lambda: 30
        node.send(range(1, 11), peer="PACS")
        assert node.judge_after(1, PACS) == 0
        assert node.events("wait")[0].detail["why"] == "PACS counts 30 instances, 10 of them are here"

    @pytest.mark.parametrize("count", [None, 3])
    def test_it_does_not_know_and_geometry_decides(self, node: Node, count: int | None) -> None:
        node.count = lambda: count
        node.send(range(1, 11), peer="PACS")
        assert node.judge_after(1, PACS) == 1

    def test_it_cannot_be_reached_and_geometry_decides(self, node: Node) -> None:
        def unreachable() -> int:
            raise PeerUnreachable("PACS: connection refused")

        node.count = unreachable
        node.send(range(1, 11), peer="PACS")
        assert node.judge_after(1, PACS) == 1


def test_headers_of_unchanged_instances_are_read_once(node: Node) -> None:
    first = node.keep(2)
    node.assemble.index([first, node.released()])
    node.judge_after(1)
    node.house.files.absolute(first.path).unlink()  # reading it again would fail
    node.send([1, 3, 4])
    assert node.judge_after(5) == 1


def test_a_file_that_cannot_be_read_is_no_evidence(node: Node) -> None:
    instances = [node.keep(n) for n in range(1, 11)]
    node.house.files.absolute(instances[3].path).unlink()
    node.assemble.index([*instances, node.released()])
    assert node.judge_after(1) == 0
    assert node.events("wait")[0].detail["why"] == "a kept file cannot be read: No such file or directory"


def test_the_header_of_a_file_without_pixels_or_geometry_or_sense(node: Node, tmp_path: Path) -> None:
    odd = objects.incoming(InstanceNumber=None, Modality=None, PixelData=None)
    assert read_facts(objects.write(tmp_path / "odd.dcm", odd)).instance_number is None
    whole = objects.incoming(objects.IMPLICIT, InstanceNumber=7, ImagePositionPatient=[1, 2, 3.5])
    facts = read_facts(objects.write(tmp_path / "whole.dcm", whole))
    assert (facts.instance_number, facts.position, facts.modality) == (7, (1.0, 2.0, 3.5), "CT")
    (tmp_path / "none.dcm").write_bytes(b"nothing")
    assert read_facts(tmp_path / "none.dcm").sop_class_uid == ""


def test_the_inbox_hands_a_release_on_behind_the_instances_before_it(node: Node) -> None:
    told: list[Instance | Aside | Released] = []
    inbox = Inbox(told.extend)
    things: list[Instance | Aside | Released] = [node.keep(1), node.released(), node.keep(2)]
    inbox.start()
    for thing in things:
        inbox.put(thing)
    inbox.stop()
    assert told == things
