"""Evidence before quiet time: releases, the peer's count, and what waits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from node.domain.commitment import Reference
from node.domain.completeness import ImageFacts
from node.domain.errors import PeerUnreachable
from node.domain.events import Event
from node.domain.image_facts import facts_of
from node.domain.instance import Aside, Instance, Origin
from node.domain.manifest import ManifestState
from node.domain.part10 import head
from node.domain.peer import Peer
from node.domain.study import Released, StudyState
from node.services.announce import Announce
from node.services.assemble import Assemble
from node.services.commitment import AskCommitment
from node.services.evidence import Evidence
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
        self.announce = Announce(house.database.write, house.clock)
        self.start()

    def start(self) -> None:
        """Begin with nothing in memory, as a process does."""
        house = self.house
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

    def commit(self, numbers: Sequence[int], transaction_uid: str = "2.25.1") -> None:
        """CT1 asks for commitment to slices."""
        named = [Reference(objects.CT, f"{SERIES}.{n}") for n in numbers]
        AskCommitment(self.house.database.write, self.house.clock).ask(transaction_uid, "CT1", named)

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

    def judge_soon(self) -> int:
        """Find what was said, and judge it once it has lain for a moment."""
        return self.evidence.judge() + self.judge_after(0.3)

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


def uids(numbers: Sequence[int]) -> frozenset[str]:
    return frozenset(f"{SERIES}.{n}" for n in numbers)


class TestWhatPeersSay:
    """Manifests: of commitments, procedure steps and notifications. Without geometry where nothing else is said."""

    def test_a_commitment_that_names_all(self, node: Node) -> None:
        node.send([1, 2], Modality="CR")
        assert node.judge_after(1) == 0
        node.commit([1, 2])
        assert node.judge_soon() == 1
        assert node.events("evidence")[0].detail == {
            "revision": 1,
            "evidence": "storage commitment asked for 2 instances, all of them are here",
            "instances": 2,
            "manifests": ["2.25.1 of CT1: storage commitment asked for 2 instances"],
        }

    def test_a_completed_procedure_step_that_names_all(self, node: Node) -> None:
        node.announce.step_begun("2.25.7", "CT1", [STUDY], frozenset())
        node.send([1, 2], Modality="CR")
        assert node.judge_after(1) == 0
        node.announce.step_changed("2.25.7", ManifestState.COMPLETED, uids([1, 2]))
        assert node.judge_soon() == 1

    def test_a_notification_that_names_all(self, node: Node) -> None:
        node.send([1, 2], Modality="CR")
        node.announce.available("2.25.8", "PACS", STUDY, uids([1, 2]))
        assert node.judge_soon() == 1

    @pytest.mark.parametrize("restarted", [False, True])
    def test_said_before_the_instances_come_which_end_in_an_abort(self, node: Node, restarted: bool) -> None:
        """As a notification may; after a restart too, and with the last instance a minute after the first."""
        node.announce.available("2.25.8", "PACS", STUDY, uids([1, 2]))
        assert node.judge_after(1) == 0
        node.assemble.index([node.keep(1, Modality="CR")])
        assert node.judge_after(8) == 0
        if restarted:
            node.start()
        assert node.judge_after(0) == 0
        node.assemble.index([node.keep(2, Modality="CR")])
        assert node.judge_after(0.3) == 1

    def test_a_commitment_before_the_first_row_of_its_study(self, node: Node) -> None:
        kept = [node.keep(n, Modality="CR") for n in (1, 2)]
        node.commit([1, 2])
        assert node.judge_after(1) == 0
        node.house.assemble.index(kept)  # by another process
        assert (node.judge_after(0.1), node.judge_after(0.3)) == (0, 1)

    def test_a_missing_instance_makes_a_complete_geometry_wait_until_it_comes(self, node: Node) -> None:
        node.commit(range(1, 12))
        node.send(range(1, 11))
        assert node.judge_after(1) == 0
        (wait,) = node.events("wait")
        assert wait.detail["why"] == "storage commitment asked for 11 instances, 10 of them are here"
        node.send([11])
        assert node.judge_after(0.3) == 1

    def test_a_missing_instance_waits_for_the_quiet_time_at_most(self, node: Node) -> None:
        node.commit(range(1, 12))
        node.send(range(1, 11))
        node.judge_after(1)
        node.house.clock.tick(9.5)
        assert node.assemble.settle() == 1
        assert node.events("quiet")[0].detail["lacked"].endswith("10 of them are here")

    def test_a_commitment_to_a_part_leaves_it_to_the_geometry(self, node: Node) -> None:
        node.commit([1, 2, 3])
        node.send(range(1, 11))
        assert node.judge_after(1) == 1
        assert node.events("evidence")[0].detail["evidence"].startswith("association released")

    def test_a_step_in_progress_holds_a_complete_geometry_and_a_discontinued_one_does_not(self, node: Node) -> None:
        node.announce.step_begun("2.25.7", "CT1", [STUDY], frozenset())
        node.send(range(1, 11))
        assert node.judge_after(1) == 0
        assert node.events("wait")[0].detail["why"] == "a performed procedure step is in progress"
        node.announce.step_changed("2.25.7", ManifestState.DISCONTINUED, uids([1]))
        assert node.judge_soon() == 1

    def test_it_comes_before_the_count_of_the_peer(self, node: Node) -> None:
        node.count = lambda: 10
        node.announce.step_begun("2.25.7", "CT1", [STUDY], frozenset())
        node.send(range(1, 11), peer="PACS")
        node.evidence.judge()
        assert node.judge_after(1, PACS) == 0
        assert node.state is StudyState.RECEIVING

    def test_an_open_association_that_stored_into_the_study_prevents(self, node: Node) -> None:
        node.sending.add(STUDY)
        node.assemble.index([node.keep(n, Modality="CR") for n in (1, 2)])
        node.commit([1, 2])
        assert (node.judge_after(1), node.judge_after(1)) == (0, 0)
        node.sending.clear()
        assert node.judge_after(0) == 1

    def test_a_late_instance_is_judged_by_what_was_said_since(self, node: Node) -> None:
        node.send([1, 2], Modality="CR")
        node.commit([1, 2])
        assert node.judge_soon() == 1
        node.send([3], Modality="CR")
        assert node.judge_after(3) == 0
        node.commit([3], "2.25.2")
        assert node.judge_soon() == 1
        assert [e.detail["evidence"] for e in node.events("evidence")] == [
            "storage commitment asked for 2 instances, all of them are here",
            "2 manifests name 3 instances, all of them are here",
        ]


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


@pytest.mark.parametrize("syntax", [objects.IMPLICIT, objects.EXPLICIT, objects.BIG_ENDIAN])
def test_what_a_header_says(syntax: str) -> None:
    sent = objects.incoming(
        syntax,
        ImageType=["ORIGINAL", "primary"],
        InstanceNumber=7,
        ImagePositionPatient=[1, 2, 3.5],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        ConcatenationUID="1.2",
        InConcatenationTotalNumber=300,
        NumberOfFrames=12,
    )
    assert facts_of(sent.dataset, syntax) == ImageFacts(
        sop_class_uid=objects.CT,
        modality="CT",
        image_type=("ORIGINAL", "PRIMARY"),
        position=(1.0, 2.0, 3.5),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        instance_number=7,
        in_concatenation=True,
        parts=300,
        frames=12,
    )


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_header_that_is_silent_or_makes_no_sense(node: Node) -> None:
    odd = objects.incoming(InstanceNumber=None, Modality=None, PixelData=None, ImagePositionPatient=[1, 2])
    assert facts_of(odd.dataset, objects.EXPLICIT) == ImageFacts(objects.CT)
    assert facts_of(b"Dear colleague, please find attached", objects.EXPLICIT) == ImageFacts("")


def test_the_inbox_hands_a_release_on_behind_the_instances_before_it(node: Node) -> None:
    told: list[Instance | Aside | Released] = []
    inbox = Inbox(told.extend)
    things: list[Instance | Aside | Released] = [node.keep(1), node.released(), node.keep(2)]
    inbox.start()
    for thing in things:
        inbox.put(thing)
    inbox.stop()
    assert told == things
