"""Storage commitment behind the wire: what is asked, judged and reported, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from node.domain.commitment import Commitment, CommitmentState, FailureReason, Reference
from node.domain.errors import PeerUnreachable
from node.domain.instance import Instance
from node.domain.peer import Peer
from node.services.commitment import ROWS_WITHIN, AskCommitment, JudgeCommitments, ReportCommitments
from node.services.recover import Recover
from tests.house import CT, House

CT1 = Peer("scanner", "CT1", "127.0.0.1", 104, receive=True)
MR = "1.2.840.10008.5.1.4.1.1.4"
GIVE_UP = timedelta(days=7)
NO_SUCH_INSTANCE, PROCESSING_FAILURE = FailureReason.NO_SUCH_INSTANCE, FailureReason.PROCESSING_FAILURE


class Node:
    """A house that commits. ``told`` are the commitments that CT1 has heard of; ``answer`` is what it says to each."""

    def __init__(self, house: House) -> None:
        write, read, clock = house.database.write, house.database.read, house.clock
        self.house = house
        self.asking = AskCommitment(write, clock)
        self.judging = JudgeCommitments(write, read, clock, house.files, give_up=GIVE_UP)
        self.reporting = ReportCommitments(
            write,
            read,
            clock,
            owner="here/1/1",
            lease=timedelta(seconds=60),
            retry=timedelta(seconds=10),
            retry_max=timedelta(seconds=600),
        )
        self.told: list[Commitment] = []
        self.answer: Callable[[], int] = lambda: 0

    def keep(self, *uids: str) -> list[Instance]:
        """Instances with a file of the size that their row says, and no row."""
        kept = [self.house.receive(uid) for uid in uids]
        return [replace(i, size=self.house.files.absolute(i.path).stat().st_size) for i in kept]

    def index(self, *uids: str) -> list[Instance]:
        kept = self.keep(*uids)
        self.house.assemble.index(kept)
        return kept

    def ask(self, *uids: str, transaction: str = "2.25.1", peer: str = "CT1", sop_class: str = CT) -> None:
        self.asking.ask(transaction, peer, [Reference(sop_class, uid) for uid in uids])

    def tell(self) -> int:
        def report(peer: Peer, commitment: Commitment) -> tuple[int, str]:
            self.told.append(commitment)
            return self.answer(), ""

        return self.reporting.tell(CT1, report)

    def rows(self) -> list[Commitment]:
        with self.house.database.read() as tx:
            found = [c for state in CommitmentState for c in tx.commitments.in_state(state)]
        return sorted(found, key=lambda c: c.id)

    @property
    def only(self) -> Commitment:
        (row,) = self.rows()
        return row

    def steps(self) -> list[str]:
        with self.house.database.read() as tx:
            return [e.step for e in reversed(tx.journal.latest()) if e.subject == "commitment"]


@pytest.fixture
def node(house: House) -> Iterator[Node]:
    yield Node(house)


def test_what_is_indexed_is_committed_to_at_once_and_reported_once(node: Node) -> None:
    node.index("1.1", "1.2")
    node.ask("1.1", "1.2", "1.1")
    assert node.tell() == 0, "it is not judged yet"
    assert node.judging.judge() == 1
    assert (node.tell(), node.tell()) == (1, 0)
    (told,) = node.told
    assert [r.sop_instance_uid for r in told.committed] == ["1.1", "1.2"]
    assert told.failed == ()
    assert node.only.state is CommitmentState.REPORTED
    assert node.steps() == ["ask", "judge", "ack"]


def test_what_has_no_row_yet_is_waited_for(node: Node) -> None:
    kept = node.keep("1.1")
    node.ask("1.1")
    node.house.clock.tick(ROWS_WITHIN.total_seconds() - 1)
    assert node.judging.judge() == 0
    node.house.assemble.index(kept)
    assert node.judging.judge() == 1
    assert node.only.failures == {}


def test_what_never_gets_a_row_fails_and_nothing_else_does(node: Node) -> None:
    node.index("1.1")
    node.ask("1.1", "1.9")
    node.house.clock.tick(ROWS_WITHIN.total_seconds())
    assert node.judging.judge(index_is_whole=False) == 0, "its row may be one of those that are rebuilt"
    assert node.judging.judge() == 1
    assert node.only.failures == {"1.9": NO_SUCH_INSTANCE}
    assert [r.sop_instance_uid for r in node.only.committed] == ["1.1"]


def test_another_sop_class_is_a_conflict(node: Node) -> None:
    node.index("1.1")
    node.ask("1.1", sop_class=MR)
    node.judging.judge()
    assert node.only.failures == {"1.1": FailureReason.CLASS_INSTANCE_CONFLICT}


def test_a_file_that_is_gone_or_of_another_size_fails(node: Node) -> None:
    gone, cut, _ = node.index("1.1", "1.2", "1.3")
    node.house.files.absolute(gone.path).unlink()
    node.house.files.absolute(cut.path).write_bytes(b"DICM")
    node.ask("1.1", "1.2", "1.3")
    node.judging.judge()
    assert node.only.failures == {"1.1": NO_SUCH_INSTANCE, "1.2": PROCESSING_FAILURE}


def test_a_file_that_cannot_be_synced_fails(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.index("1.1")
    node.ask("1.1")

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("node.files.disk.os.fsync", broken)
    node.judging.judge()
    assert node.only.failures == {"1.1": PROCESSING_FAILURE}


def test_securing_syncs_files_and_every_directory_above_them(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = house.receive("1.1")
    synced: set[str] = set()
    monkeypatch.setattr(
        "node.files.disk.os.fsync", lambda descriptor: synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    file = house.files.absolute(kept.path)
    assert house.files.secure([kept.path, "instances/none.dcm"]) == {kept.path: file.stat().st_size}
    above = [file.parent, file.parent.parent, tmp_path / "instances", tmp_path]
    assert synced == {str(path) for path in (file, *above)}


def test_a_peer_that_is_down_is_told_later_and_given_up_in_the_end(node: Node) -> None:
    def unreachable() -> int:
        raise PeerUnreachable("CT1: connection refused")

    node.index("1.1")
    node.ask("1.1")
    node.judging.judge()
    node.answer = unreachable
    for pause in (10, 20, 40):
        assert node.tell() == 1
        assert node.only.reason == "CT1: connection refused"
        node.house.clock.tick(pause - 0.1)
        assert node.tell() == 0
        node.house.clock.tick(0.2)
    assert node.judging.give_up() == 0
    node.house.clock.tick(GIVE_UP.total_seconds())
    assert node.judging.give_up() == 1
    assert node.only.state is CommitmentState.DEAD
    assert node.only.reason == "gave up after 7 days, 0:00:00: CT1: connection refused"


def test_an_answer_other_than_success_is_no_answer(node: Node) -> None:
    node.index("1.1")
    node.ask("1.1")
    node.judging.judge()
    node.answer = lambda: 0x0110
    node.tell()
    assert (node.only.state, node.only.reason) == (CommitmentState.OWED, "the peer answered 0110")
    node.answer = lambda: 0
    node.house.clock.tick(10)
    node.tell()
    assert (node.only.state, node.only.reason) == (CommitmentState.REPORTED, None)


def test_a_report_whose_process_died_is_owed_again(node: Node) -> None:
    node.index("1.1")
    node.ask("1.1")
    node.judging.judge()
    assert node.reporting.claim("CT1") is not None
    assert node.tell() == 0
    house = node.house

    def recover(alive: bool) -> int:
        return Recover(
            house.database.write,
            house.database.read,
            house.clock,
            house.files,
            read_kept=pytest.fail,
            read_aside=pytest.fail,
            alive=lambda owner: alive,
            attempts=3,
        ).leases()

    assert (recover(alive=True), recover(alive=False)) == (0, 1)
    assert node.tell() == 1
    assert node.only.attempt == 2


def test_a_report_that_took_longer_than_its_lease_is_told_again(node: Node) -> None:
    node.index("1.1")
    node.ask("1.1")
    node.judging.judge()
    slow = node.reporting.claim("CT1")
    assert slow is not None
    node.reporting.failed(slow, "the lease was taken back")
    node.reporting.answered(slow, 0)
    assert node.only.state is CommitmentState.OWED


class TestTheSameTransactionUID:
    """Of a request that is repeated, and of another one."""

    def test_the_same_request_is_reported_again(self, node: Node) -> None:
        node.ask("1.1")
        node.ask("1.1")
        node.house.clock.tick(10)
        node.judging.judge()
        node.tell()
        node.index("1.1")
        node.ask("1.1")
        node.judging.judge()
        node.tell()
        assert [told.failures for told in node.told] == [{"1.1": NO_SUCH_INSTANCE}, {}]
        assert len(node.rows()) == 1

    @pytest.mark.parametrize(("uid", "peer"), [("1.2", "CT1"), ("1.1", "CT2")])
    def test_another_request_fails_whole_and_the_first_stands(self, node: Node, uid: str, peer: str) -> None:
        node.index("1.1", "1.2")
        node.ask("1.1")
        node.ask(uid, peer=peer)
        node.judging.judge()
        first, second = node.rows()
        assert first.failures == {}
        assert second.failures == {uid: FailureReason.DUPLICATE_TRANSACTION_UID}
        assert second.state is CommitmentState.OWED
