"""Storage commitment asked and reported, on every database: by several at once, and by half."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime

import pytest

from node.domain.commitment import Reference
from node.domain.delivery import Delivery, DeliveryState
from node.domain.peer import Peer, Verify
from node.domain.verification import CommitmentReport
from node.services.request_commitment import RequestCommitments, TakeReports
from node.store.database import Database
from tests.fakes import FakeClock, FakeRequester
from tests.house import CT, EXPLICIT, PATIENCE

PACS = Peer("PACS", "PACS", "127.0.0.1", 104, send=True, verify=Verify.COMMITMENT, verify_seconds=100)
UIDS = [f"2.25.{n}" for n in range(1, 7)]


class Node:
    """Six delivered instances of two jobs, and what is asked of the peer about them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = FakeClock()
        self.requester = FakeRequester()
        self.reports = TakeReports(database.write, self.clock, PATIENCE)
        now = self.clock.now()
        self.add(now)
        numbers = itertools.count(1001)
        self.new_uid = lambda: f"2.25.{next(numbers)}"

    def add(self, now: datetime) -> None:
        there = {"state": DeliveryState.DELIVERED, "delivered_at": now, "verify_at": now, "attempt": 1}
        with self.database.write() as tx:
            tx.deliveries.add(
                Delivery(
                    id=0,
                    job_id=f"j{number % 2}",
                    study_uid="1.2",
                    sop_instance_uid=uid,
                    sop_class_uid=CT,
                    transfer_syntax_uid=EXPLICIT,
                    path=f"results/{uid}",
                    peer="PACS",
                    position=number,
                    created_at=datetime(2026, 1, 1, tzinfo=UTC),
                    not_before=now,
                    **there,  # type: ignore[arg-type]
                )
                for number, uid in enumerate(UIDS)
            )

    def asking(self) -> RequestCommitments:
        write, read = self.database.write, self.database.read
        return RequestCommitments(
            write, read, self.clock, self.requester, self.reports, PACS, PATIENCE, new_uid=self.new_uid
        )

    def states(self) -> dict[str, DeliveryState]:
        with self.database.read() as tx:
            return {d.sop_instance_uid: d.state for d in tx.deliveries.of_study("1.2")}

    def steps(self) -> list[str]:
        with self.database.read() as tx:
            return [e.step for e in tx.journal.of_study("1.2") if e.subject == "delivery"]


@pytest.fixture
def node(database: Database) -> Node:
    return Node(database)


def at_once(*calls: object) -> None:
    threads = [threading.Thread(target=call) for call in calls]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def report(uid: str, committed: list[str], failed: list[str]) -> CommitmentReport:
    said = {Reference(CT, each): 0x0112 for each in failed}
    return CommitmentReport(uid, frozenset(Reference(CT, each) for each in committed), said)


def test_two_that_ask_at_once_ask_for_each_once(node: Node) -> None:
    at_once(*[node.asking().verify for _ in range(4)])
    assert sorted(uid for asked in node.requester.asked.values() for uid in asked) == UIDS


def test_a_report_that_comes_many_times_at_once_counts_once(node: Node) -> None:
    node.asking().verify()
    said = [report(uid, [*asked[:2]], [*asked[2:]]) for uid, asked in node.requester.asked.items()]
    at_once(*[lambda each=each: node.reports.take("PACS", each) for each in said * 3])
    assert sorted(node.steps()) == ["commit"] * 4 + ["missing"] * 2
    lost = {uid for each in said for uid in (r.sop_instance_uid for r in each.failed)}
    assert {uid for uid, state in node.states().items() if state is DeliveryState.PENDING} == lost
