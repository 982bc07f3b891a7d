"""Storage commitment asked of an archive that commits to half, reports twice, never, here or on its own association."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from node.dicom import dimse
from node.dicom.admission import Admission
from node.dicom.commitment import STORAGE_COMMITMENT, commitment
from node.dicom.request_commitment import StorageCommitmentSCU, taken
from node.dicom.scp import StorageSCP
from node.dicom.scu import StorageSender
from node.domain.commitment import Reference
from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import PeerUnreachable, Rejected
from node.domain.instance import Answer, Incoming
from node.domain.peer import Peer, Verify
from node.services.commitment import AskCommitment
from node.services.request_commitment import RequestCommitments
from tests import manifests, objects
from tests.archive import Archive
from tests.house import CT, House, everything, succeed
from tests.manifests import made
from tests.running import eventually, free_port

COMMITTED, DELIVERED, PENDING = DeliveryState.COMMITTED, DeliveryState.DELIVERED, DeliveryState.PENDING
UIDS = ["2.25.1", "2.25.2", "2.25.3"]


class Node:
    """A house that has three results in an archive, and an SCP that the archive may report to."""

    def __init__(self, house: House, archive: Archive) -> None:
        self.house = house
        self.peer = Peer("PACS", "PACS", "127.0.0.1", archive.port, send=True, verify=Verify.COMMITMENT,
                         verify_seconds=100, timeout_seconds=5)  # fmt: skip
        self.look = self.asking()
        ask = AskCommitment(house.database.write, house.clock).ask
        admission = Admission("AINODE", [self.peer])
        self.kept: list[Incoming] = []
        self.scp = StorageSCP(
            "AINODE",
            "127.0.0.1",
            0,
            self._keep,
            lambda calling: False,
            admit=admission,
            may_store=admission.may_store,
            services={**dimse.SERVICES, STORAGE_COMMITMENT: commitment(ask, taken(house.take_reports.take))},
        )

    def _keep(self, incoming: Incoming) -> Answer:
        self.kept.append(incoming)
        return Answer(0)

    def asking(self, *, report_seconds: float = 0.0) -> RequestCommitments:
        return self.house.by_commitment(StorageCommitmentSCU("AINODE", report_seconds=report_seconds), self.peer)

    def sent(self, archive: Archive) -> None:
        """The results are delivered, whatever became of them there."""
        self.house.settled_job()
        self.house.worker(succeed).work()
        everything(self.house.outbox(peer=self.peer))
        for uid in UIDS:
            if uid not in archive.loses:
                archive.keep(made(SOPInstanceUID=uid))

    def again(self, archive: Archive) -> None:
        """What is missing goes out again."""
        self.house.clock.tick(10)
        everything(self.house.outbox(peer=self.peer))
        for uid in self.house.sender.stored:
            archive.keep(made(SOPInstanceUID=uid.removesuffix(".dcm")))

    def rows(self) -> list[Delivery]:
        with self.house.database.read() as tx:
            return tx.deliveries.of_study("1.2")

    def states(self) -> list[DeliveryState]:
        return [d.state for d in self.rows()]


@pytest.fixture
def archive() -> Iterator[Archive]:
    archive = Archive().start()
    yield archive
    archive.stop()


@pytest.fixture
def node(house: House, archive: Archive) -> Iterator[Node]:
    node = Node(house, archive)
    node.scp.start()
    yield node
    node.scp.stop(grace=0)


def test_a_report_on_the_association_of_the_request(node: Node, archive: Archive) -> None:
    archive.reports_here = True
    node.sent(archive)
    assert node.asking(report_seconds=30).verify() == 3
    assert node.states() == [COMMITTED] * 3
    eventually(lambda: archive.statuses == [0], "the report was answered with success")
    (asked,) = archive.asked
    assert [(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in asked.ReferencedSOPSequence] == [
        (CT, uid) for uid in UIDS
    ]


def test_reports_between_two_requests_and_their_answers(node: Node, archive: Archive) -> None:
    archive.reports_first = True
    node.sent(archive)
    node.house.job_of_another_study()
    everything(node.house.outbox(peer=node.peer))
    archive.keep(made(SOPInstanceUID="2.25.91"))
    assert node.asking(report_seconds=30).verify() == 4
    assert archive.statuses == [0, 0]
    assert node.states() == [COMMITTED] * 3
    with node.house.database.read() as tx:
        assert [d.state for d in tx.deliveries.of_study("1.9")] == [COMMITTED]


def test_half_is_reported_twice_on_an_association_of_the_archive(node: Node, archive: Archive) -> None:
    archive.loses = {"2.25.2"}
    archive.reasons = {"2.25.3": 0x0110}
    node.sent(archive)
    node.look.verify()
    assert node.states() == [DELIVERED] * 3
    information = archive.information(archive.asked[0])
    assert archive.report(node.scp.port, information, information) == [0, 0]
    assert node.states() == [COMMITTED, PENDING, PENDING]
    assert [d.missing for d in node.rows()] == [0, 1, 1]
    archive.reasons = {}
    node.again(archive)
    assert node.house.sender.stored[3:] == ["2.25.2.dcm", "2.25.3.dcm"]
    node.look.verify()
    assert archive.report(node.scp.port, archive.information(archive.asked[1])) == [0]
    assert node.states() == [COMMITTED] * 3


def test_an_archive_that_never_reports_is_asked_again_and_then_sent_to_again(node: Node, archive: Archive) -> None:
    node.sent(archive)
    for _ in range(3):
        node.look.verify()
        node.house.clock.tick(50)
    assert len(archive.asked) == 2
    assert {d.reason for d in node.rows()} == {"asked 2 times to commit to it, the peer reported nothing"}
    assert node.states() == [PENDING] * 3


def test_a_report_after_the_node_was_restarted(node: Node, archive: Archive) -> None:
    node.sent(archive)
    node.look.verify()
    node.scp.stop(grace=0)
    other = Node(node.house, archive)
    other.scp.start()
    try:
        assert archive.report(other.scp.port, archive.information(archive.asked[0])) == [0]
    finally:
        other.scp.stop(grace=0)
    assert node.states() == [COMMITTED] * 3


def test_an_archive_that_does_not_propose_its_role_is_heard_too(node: Node, archive: Archive) -> None:
    node.sent(archive)
    node.look.verify()
    assert archive.report(node.scp.port, archive.information(archive.asked[0]), roles=False) == [0]
    assert node.states() == [COMMITTED] * 3


def test_what_is_wrong_with_a_report_is_answered(
    node: Node, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    node.sent(archive)
    node.look.verify()
    wrong: list[tuple[dict[str, object], int]] = [
        ({"TransactionUID": "2.25.999"}, 0x0115),
        ({"TransactionUID": None}, 0x0120),
        ({"ReferencedSOPSequence": None}, 0x0120),
        ({"FailedSOPSequence": [made(ReferencedSOPClassUID=CT)]}, 0x0120),
    ]
    reports = []
    for changes, _ in wrong:
        reports.append(archive.information(archive.asked[0]))
        for keyword, value in changes.items():
            if value is None:
                delattr(reports[-1], keyword)
            else:
                setattr(reports[-1], keyword, value)
    whole = archive.information(archive.asked[0])
    assert archive.report(node.scp.port, *reports, whole) == [*(status for _, status in wrong), 0]
    assert "TransactionUID: is none of ours" in caplog.text
    assert node.states() == [COMMITTED] * 3, "the association goes on"


def test_success_for_what_was_not_asked_for_commits_nothing_else(node: Node, archive: Archive) -> None:
    node.sent(archive)
    node.look.verify()
    said = archive.information(archive.asked[0])
    said.ReferencedSOPSequence = [*said.ReferencedSOPSequence[:1], *manifests.references(["2.25.77"])]
    assert archive.report(node.scp.port, said) == [0]
    assert node.states() == [COMMITTED, DELIVERED, DELIVERED]


def test_a_report_that_cannot_be_kept_is_not_answered_with_success(node: Node, archive: Archive) -> None:
    node.sent(archive)
    node.look.verify()
    node.house.database.close()
    moved = node.house.files.absolute("node.db").rename(node.house.files.absolute("elsewhere.db"))
    assert archive.report(node.scp.port, archive.information(archive.asked[0])) == [0x0110]
    node.house.database.close()
    moved.rename(node.house.files.absolute("node.db"))
    assert archive.report(node.scp.port, archive.information(archive.asked[0])) == [0]
    assert node.states() == [COMMITTED] * 3


def test_an_archive_that_may_not_send_reports_all_the_same(node: Node, archive: Archive, tmp_path: object) -> None:
    file = objects.write(node.house.files.absolute("x.dcm"), objects.incoming())
    answers: list[tuple[int, int]] = []
    us = Peer("us", "AINODE", "127.0.0.1", node.scp.port, timeout_seconds=5)
    StorageSender("PACS").send(us, [file], lambda index, status, comment: answers.append((index, status)))
    assert answers == [(0, 0x0122)]
    assert node.kept == []
    with pytest.raises(PeerUnreachable, match="Calling AE title not recognised"):
        StorageSender("CT1").echo(us)


def test_an_archive_that_refuses_is_asked_again_later(node: Node, archive: Archive) -> None:
    archive.action_status = 0x0213
    node.sent(archive)
    node.look.verify()
    assert {d.reason for d in node.rows()} == {"asked to commit to it, the peer answered 0213"}
    archive.action_status, archive.reports_here = 0, True
    node.house.clock.tick(10)
    assert node.asking(report_seconds=30).verify() == 3
    assert node.states() == [COMMITTED] * 3


def test_why_there_is_no_answer(house: House) -> None:
    scu = StorageCommitmentSCU("AINODE")
    asked = {"2.25.1": [Reference(CT, "1.2")]}
    plain = Archive(commits=False).start()
    try:
        peer = Peer("PACS", "PACS", "127.0.0.1", plain.port, timeout_seconds=5)
        with pytest.raises(Rejected, match="does not offer storage commitment"):
            scu.request(peer, asked, lambda *said: None, house.take_reports.take)
    finally:
        plain.stop()
    with pytest.raises(PeerUnreachable, match="refused"):
        scu.request(replace(peer, port=free_port()), asked, lambda *said: None, house.take_reports.take)
