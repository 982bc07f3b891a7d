"""DIMSE-N requests with a receiver on the wire: statuses in words, and reports on the association of the peer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import FileMetaDataset
from pynetdicom.dimse_messages import N_ACTION_RQ
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.dsutils import encode

from node.dicom import dimse
from node.dicom.announcements import instance_availability, procedure_step
from node.dicom.commitment import commitment, report_there, reports_here
from node.dicom.request_commitment import taken
from node.dicom.scp import StorageSCP
from node.dicom.tls import Certificates
from node.domain.commitment import Commitment, CommitmentState, Reference
from node.domain.errors import PeerUnreachable
from node.domain.instance import Answer
from node.domain.manifest import ManifestKind, ManifestState
from node.domain.peer import Peer
from node.services.announce import Announce
from node.services.commitment import AskCommitment, JudgeCommitments, ReportCommitments
from node.services.receive import Receive
from tests import manifests, objects
from tests.certificates import Authority
from tests.house import House
from tests.manifests import COMMITMENT_INSTANCE, INSTANCE_AVAILABILITY, PROCEDURE_STEP, STORAGE_COMMITMENT, made
from tests.rawpeer import CT_CONTEXT, RawPeer, associate_rq, command, p_data, pdu, pdv, store_rq
from tests.running import eventually, free_port
from tests.scu import SCP_ROLE, Modality, committed, failed

CT = objects.CT
STUDY, STEP = "1.2.3", "1.2.3.9"
STATUS = "PerformedProcedureStepStatus"
ASKING_CONTEXT = 5


class Node:
    """A receiver that serves every request from the database of a house. Peer CALLED is called with its reports."""

    def __init__(self, house: House) -> None:
        write, read, clock = house.database.write, house.database.read, house.clock
        announce = Announce(write, clock)
        second = timedelta(seconds=1)
        self.house = house
        self.judging = JudgeCommitments(write, read, clock, house.files, give_up=timedelta(days=1))
        self.reports = ReportCommitments(
            write, read, clock, owner="here/1/1", lease=60 * second, retry=second, retry_max=second
        )
        receive = Receive(house.files, lambda uid: None, lambda uid: False, lambda kept: None, clock)
        self.scp = StorageSCP(
            "AINODE",
            "127.0.0.1",
            0,
            receive.store,
            lambda calling: True,
            begin=receive.begin,
            services={
                **dimse.SERVICES,
                STORAGE_COMMITMENT: commitment(AskCommitment(write, clock).ask, taken(house.take_reports.take)),
                PROCEDURE_STEP: procedure_step(announce),
                INSTANCE_AVAILABILITY: instance_availability(announce),
            },
            notices={STORAGE_COMMITMENT: reports_here(self.reports.claim, self.reports.answered, {"CALLED"})},
        )

    def commitment(self, transaction_uid: str = "2.25.1") -> Commitment | None:
        with self.house.database.read() as tx:
            return next(iter(tx.commitments.of_transaction(transaction_uid)), None)

    def judge(self) -> None:
        """Judge what was asked, by rows that will not come any more."""
        self.house.clock.tick(60)
        self.judging.judge()


@pytest.fixture
def node(house: House) -> Iterator[Node]:
    node = Node(house)
    node.scp.start()
    yield node
    node.scp.stop(grace=0)


@pytest.fixture
def modality(node: Node) -> Modality:
    return Modality(node.scp.port)


def said(status: Any) -> tuple[int, str]:
    return int(status.Status), str(status.get("ErrorComment", ""))


class TestStorageCommitment:
    """N-ACTION (PS3.4 J.3.2)."""

    @pytest.mark.parametrize(
        ("request_", "answer"),
        [
            ({"instance": "1.2.3"}, (0x0112, "RequestedSOPInstanceUID: no such instance")),
            ({"action": 2}, (0x0123, "ActionTypeID: no such action")),
            ({"TransactionUID": None}, (0x0115, "TransactionUID: is missing")),
            ({"TransactionUID": ""}, (0x0115, "TransactionUID: is empty")),
            ({"ReferencedSOPSequence": None}, (0x0115, "ReferencedSOPSequence: is missing")),
            ({"ReferencedSOPSequence": []}, (0x0115, "ReferencedSOPSequence: is empty")),
            (
                {"ReferencedSOPSequence": [*manifests.references(["1.2"]), made(ReferencedSOPClassUID=CT)]},
                (0x0115, "ReferencedSOPSequence[2].ReferencedSOPInstanceUID: is missing"),
            ),
            (
                {"ReferencedSOPSequence": [made(ReferencedSOPInstanceUID="1.2")]},
                (0x0115, "ReferencedSOPSequence[1].ReferencedSOPClassUID: is missing"),
            ),
        ],
    )
    def test_what_is_wrong_is_named_and_leaves_nothing(
        self, node: Node, modality: Modality, request_: dict[str, Any], answer: tuple[int, str]
    ) -> None:
        instance, action = request_.pop("instance", COMMITMENT_INSTANCE), request_.pop("action", 1)
        information = manifests.commitment("2.25.1", ["1.1"], **request_)
        with modality.association() as assoc:
            status, _ = assoc.send_n_action(information, action, STORAGE_COMMITMENT, instance)
            assert said(status) == answer
            assert modality.ask(assoc, "2.25.2", ["1.1"]) == 0, "the association goes on"
        assert node.commitment() is None

    def test_a_uid_that_is_none(self, node: Node, modality: Modality) -> None:
        with pytest.warns(UserWarning, match="Invalid value for VR UI"):
            information = manifests.commitment("../../x", ["1.1"])
        with modality.association() as assoc, pytest.warns(UserWarning, match="Invalid value for VR UI"):
            status, _ = assoc.send_n_action(information, 1, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)
        assert int(status.Status) == 0x0115

    def test_other_operations_are_not_recognised(self, modality: Modality) -> None:
        with modality.association() as assoc:
            status, _ = assoc.send_n_create(made(PatientID="P1"), STORAGE_COMMITMENT, "1.2.3")
            assert said(status) == (0x0211, "CommandField: operation not served")

    def test_what_is_answered_with_success_is_durable(self, node: Node, modality: Modality) -> None:
        with modality.association(roles=[SCP_ROLE]) as assoc:
            assert modality.ask(assoc, "2.25.1", ["1.1", "1.2"]) == 0
            asked = node.commitment()
        assert asked is not None
        assert (asked.peer, asked.state) == ("CT1", CommitmentState.ASKED)
        assert asked.references == (Reference(CT, "1.1"), Reference(CT, "1.2"))

    def test_a_fault_of_the_node_is_no_success(self, node: Node, modality: Modality) -> None:
        node.house.database.close()
        (Path(node.house.files.absolute("")) / "node.db").unlink()
        with modality.association() as assoc:
            assert modality.ask(assoc, "2.25.1", ["1.1"]) == 0x0110

    def test_the_report_comes_while_objects_are_stored(self, node: Node, modality: Modality) -> None:
        with modality.association() as assoc:
            assert modality.ask(assoc, "2.25.1", ["1.1"]) == 0
            node.judge()
            event_type, information = modality.report()
            ds = objects.dataset()
            ds.file_meta = made_meta()
            assert assoc.send_c_store(ds).Status == 0
            eventually(lambda: getattr(node.commitment(), "state", None) is CommitmentState.REPORTED, "it is heard")
        assert (event_type, failed(information), committed(information)) == (2, {"1.1": 0x0112}, set())

    def test_a_report_that_is_owed_since_an_earlier_association(self, node: Node, modality: Modality) -> None:
        with modality.association() as assoc:
            assert modality.ask(assoc, "2.25.1", ["1.1"]) == 0
        node.judge()
        with Modality(node.scp.port, ae_title="CT2").association(), modality.association():
            assert modality.report()[1].TransactionUID == "2.25.1"

    def test_a_peer_that_is_called_is_not_told_here(self, node: Node) -> None:
        modality = Modality(node.scp.port, ae_title="CALLED")
        port = free_port()
        peer = Peer("called", "CALLED", "127.0.0.1", port, receive=True, timeout_seconds=10)

        def tell() -> int:
            return node.reports.tell(peer, lambda peer, owed: report_there(peer, owed, ae_title="AINODE"))

        with modality.association() as assoc:
            assert modality.ask(assoc, "2.25.1", ["1.1"]) == 0
            node.judge()
            assert tell() == 1
            owed = node.commitment()
            assert owed is not None
            assert owed.state is CommitmentState.OWED
            assert "no connection" in (owed.reason or "")
            node.house.clock.tick(1)
            assert modality.reports == []
            with modality.listening(port):
                assert tell() == 1
        (told,) = modality.reports
        assert failed(told[1]) == {"1.1": 0x0112}

    def test_a_peer_is_called_by_tls(self, node: Node, tmp_path: Path) -> None:
        ca = Authority(tmp_path / "ca")
        ours, theirs = ca.issue("node"), ca.issue("CT1")
        server = Certificates(theirs.cert, theirs.key, ca.pem).server()
        modality, port = Modality(node.scp.port), free_port()
        peer = Peer("scanner", "CT1", "localhost", port, timeout_seconds=10, tls=True)
        certificates = Certificates(ours.cert, ours.key, ca.pem)
        with modality.listening(port, server):
            assert report_there(peer, owed(node), ae_title="AINODE", tls=certificates) == (0, "")
        (told,) = modality.reports
        assert committed(told[1]) == {"1.1"}

    def test_a_peer_that_does_not_offer_commitment(self, node: Node) -> None:
        plain = StorageSCP("CT1", "127.0.0.1", 0, lambda incoming: Answer(0), lambda calling: True)
        plain.start()
        try:
            peer = Peer("scanner", "CT1", "127.0.0.1", plain.port, timeout_seconds=10)
            with pytest.raises(PeerUnreachable, match="does not offer storage commitment to AINODE"):
                report_there(peer, owed(node), ae_title="AINODE")
        finally:
            plain.stop(grace=0)


def owed(node: Node) -> Commitment:
    """A commitment that CT1 is to be told of."""
    now = node.house.clock.now()
    return Commitment(1, "2.25.1", "CT1", (Reference(CT, "1.1"),), CommitmentState.REPORTING, now, now)


class TestTheAssociationOfThePeer:
    """Byte by byte: a report of ours between the messages of the peer."""

    @pytest.fixture
    def peer(self, node: Node) -> Iterator[RawPeer]:
        """A peer that is owed a report, and proposes the class."""
        AskCommitment(node.house.database.write, node.house.clock).ask("2.25.1", "RAW", [Reference(CT, "1.1")])
        node.judge()
        with RawPeer(node.scp.port) as peer:
            peer.send(associate_rq(more=((ASKING_CONTEXT, STORAGE_COMMITMENT),)))
            answer = peer.read()
            assert answer is not None
            assert answer[0] == 2
            yield peer

    @staticmethod
    def response(message_id: int, *, status: int = 0) -> bytes:
        """An N-EVENT-REPORT-RSP without EventReply."""
        body = struct.pack("<HHIH", 0, 0x0100, 2, 0x8100) + struct.pack("<HHIH", 0, 0x0120, 2, message_id)
        body += struct.pack("<HHIH", 0, 0x0800, 2, 0x0101) + struct.pack("<HHIH", 0, 0x0900, 2, status)
        return struct.pack("<HHII", 0, 0, 4, len(body)) + body

    @staticmethod
    def takes_report(peer: RawPeer) -> None:
        """Read an N-EVENT-REPORT-RQ, which is of MessageID 1: a command and a data set."""
        for control in (3, 2):
            answer = peer.read()
            assert answer is not None
            assert (answer[0], answer[1][4], answer[1][5]) == (4, ASKING_CONTEXT, control)

    def test_a_request_of_the_peer_is_served_before_its_answer(self, node: Node, peer: RawPeer) -> None:
        self.takes_report(peer)
        assert peer.echo() == 0
        assert peer.store() == 0
        peer.send(p_data(pdv(ASKING_CONTEXT, 3, self.response(1))))
        assert peer.echo() == 0
        owed = node.commitment()
        assert owed is not None
        assert owed.state is CommitmentState.REPORTED

    def test_nothing_is_sent_within_a_message(self, node: Node, peer: RawPeer) -> None:
        data_set = objects.incoming(SOPInstanceUID="1.2.3.4").dataset
        peer.send(p_data(pdv(CT_CONTEXT, 3, store_rq())), p_data(pdv(CT_CONTEXT, 0, data_set[:50])))
        peer.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            peer.read()
        peer.socket.settimeout(15)
        peer.send(p_data(pdv(CT_CONTEXT, 2, data_set[50:])))
        assert peer.status() == 0
        self.takes_report(peer)

    @pytest.mark.parametrize(
        ("context_id", "message_id", "times"),
        [(ASKING_CONTEXT, 2, 1), (CT_CONTEXT, 1, 1), (ASKING_CONTEXT, 1, 2)],
        ids=["another message", "another context", "twice"],
    )
    def test_a_response_to_no_request_ends_the_association(
        self, peer: RawPeer, context_id: int, message_id: int, times: int
    ) -> None:
        self.takes_report(peer)
        peer.send(*(p_data(pdv(context_id, 3, self.response(message_id))) for _ in range(times)))
        assert peer.abort() == (2, 5)

    @pytest.mark.parametrize("field", [0x0010, 0x0020, 0x0021, 0x0030, 0x0110, 0x0120, 0x0140, 0x0150], ids=hex)
    def test_every_other_operation_is_not_recognised(self, peer: RawPeer, field: int) -> None:
        self.takes_report(peer)
        has_data_set = field not in (0x0030, 0x0110, 0x0150)
        peer.send(p_data(pdv(ASKING_CONTEXT, 3, command(field, data_set=has_data_set))))
        if has_data_set:
            peer.send(p_data(pdv(ASKING_CONTEXT, 2, b"any bytes")))
        assert peer.status() == 0x0211
        assert peer.echo() == 0

    @pytest.mark.parametrize("data_set", [b"", b"no data set", b"\x08\x00\x95\x11UI\xff\x00", b"\xff" * 9], ids=repr)
    @pytest.mark.filterwarnings("ignore:Expected explicit VR:UserWarning")
    def test_bytes_that_are_no_data_set(self, node: Node, peer: RawPeer, data_set: bytes) -> None:
        self.takes_report(peer)
        peer.send(p_data(pdv(ASKING_CONTEXT, 3, self.n_action())), p_data(pdv(ASKING_CONTEXT, 2, data_set)))
        assert peer.status() == 0x0115
        assert peer.echo() == 0

    @staticmethod
    def n_action() -> bytes:
        """An N-ACTION-RQ for storage commitment."""
        request = N_ACTION()
        request.MessageID, request.ActionTypeID = 1, 1
        request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = STORAGE_COMMITMENT, COMMITMENT_INSTANCE
        request.ActionInformation = BytesIO(b"follows")
        message = N_ACTION_RQ()
        message.primitive_to_message(request)
        return encode(message.command_set, True, True) or b""

    def test_a_release_in_place_of_the_answer(self, node: Node, peer: RawPeer) -> None:
        self.takes_report(peer)
        peer.send(pdu(5, bytes(4)))
        assert peer.read() == (6, bytes(4))
        owed = node.commitment()
        assert owed is not None
        assert owed.state is CommitmentState.REPORTING, "until its lease is over"


def made_meta() -> Any:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = objects.EXPLICIT
    return meta


class TestProcedureStep:
    """N-CREATE and N-SET (PS3.4 F.7.2)."""

    @pytest.mark.parametrize(
        ("elements", "answer"),
        [
            ({STATUS: None}, (0x0120, "PerformedProcedureStepStatus: is missing")),
            ({STATUS: "DONE"}, (0x0106, "PerformedProcedureStepStatus: is none of its values")),
            ({STATUS: "COMPLETED"}, (0x0106, "PerformedProcedureStepStatus: is not IN PROGRESS")),
            ({"ScheduledStepAttributesSequence": None}, (0x0120, "ScheduledStepAttributesSequence: is missing")),
            ({"ScheduledStepAttributesSequence": []}, (0x0121, "ScheduledStepAttributesSequence: is empty")),
            (
                {"ScheduledStepAttributesSequence": [made(AccessionNumber="1")]},
                (0x0120, "ScheduledStepAttributesSequence[1].StudyInstanceUID: is missing"),
            ),
        ],
    )
    def test_what_is_wrong_is_named(
        self, modality: Modality, elements: dict[str, Any], answer: tuple[int, str]
    ) -> None:
        with modality.association() as assoc:
            status, _ = assoc.send_n_create(manifests.step_begun(STUDY, **elements), PROCEDURE_STEP, STEP)
            assert said(status) == answer

    def test_a_step_from_begin_to_end(self, node: Node, modality: Modality) -> None:
        with modality.association() as assoc:
            ended = manifests.step_ended(["1.1", "1.2"], documents=["1.3"])
            assert said(assoc.send_n_set(ended, PROCEDURE_STEP, STEP)[0]) == (
                0x0112,
                "RequestedSOPInstanceUID: no such procedure step",
            )
            begun = manifests.step_begun(STUDY)
            assert assoc.send_n_create(begun, PROCEDURE_STEP, STEP)[0].Status == 0
            assert assoc.send_n_create(begun, PROCEDURE_STEP, STEP)[0].Status == 0x0111
            assert assoc.send_n_set(made(SeriesDescription="x"), PROCEDURE_STEP, STEP)[0].Status == 0
            assert self.step(node) == (ManifestState.IN_PROGRESS, set())
            assert assoc.send_n_set(ended, PROCEDURE_STEP, STEP)[0].Status == 0
            assert self.step(node) == (ManifestState.COMPLETED, {"1.1", "1.2", "1.3"})
            status, _ = assoc.send_n_set(ended, PROCEDURE_STEP, STEP)
            assert said(status) == (0x0110, "PerformedProcedureStepStatus: COMPLETED, may no longer be update")
            assert status.ErrorID == 0xA710

    def test_the_series_that_were_told_stay_where_the_end_tells_none(self, node: Node, modality: Modality) -> None:
        with modality.association() as assoc:
            assoc.send_n_create(manifests.step_begun(STUDY), PROCEDURE_STEP, STEP)
            told = manifests.step_ended(["1.1"], status="IN PROGRESS")
            assert assoc.send_n_set(told, PROCEDURE_STEP, STEP)[0].Status == 0
            end = made(PerformedProcedureStepStatus="DISCONTINUED")
            assert assoc.send_n_set(end, PROCEDURE_STEP, STEP)[0].Status == 0
        assert self.step(node) == (ManifestState.DISCONTINUED, {"1.1"})

    def test_no_patient_data_is_kept(self, node: Node, modality: Modality) -> None:
        with modality.association() as assoc:
            assert assoc.send_n_create(manifests.step_begun(STUDY), PROCEDURE_STEP, STEP)[0].Status == 0
        stored = b"".join(p.read_bytes() for p in node.house.files.absolute("").glob("node.db*"))
        assert STEP.encode() in stored
        assert b"Doe" not in stored

    def step(self, node: Node) -> tuple[ManifestState, set[str]]:
        with node.house.database.read() as tx:
            (step,) = tx.manifests.get(ManifestKind.MPPS, STEP)
        assert (step.study_uid, step.peer) == (STUDY, "CT1")
        return step.state, set(step.instances)


class TestInstanceAvailability:
    """N-CREATE (PS3.4 R.3.2)."""

    def test_a_notification_is_kept_once(self, node: Node, modality: Modality) -> None:
        told = manifests.available(STUDY, ["1.1", "1.2"])
        with modality.association() as assoc:
            assert assoc.send_n_create(told, INSTANCE_AVAILABILITY, STEP)[0].Status == 0
            assert assoc.send_n_create(told, INSTANCE_AVAILABILITY, STEP)[0].Status == 0x0111
            assert assoc.send_n_set(told, INSTANCE_AVAILABILITY, STEP)[0].Status == 0x0211
        with node.house.database.read() as tx:
            (kept,) = tx.manifests.of_study(STUDY)
        assert (kept.kind, kept.instances) == (ManifestKind.IAN, {"1.1", "1.2"})

    def test_the_node_gives_a_uid_where_the_peer_gives_none(self, node: Node, modality: Modality) -> None:
        with modality.association() as assoc:
            status, _ = assoc.send_n_create(manifests.available(STUDY, ["1.1"]), INSTANCE_AVAILABILITY)
            assert status.Status == 0
        with node.house.database.read() as tx:
            assert [m.uid[:5] for m in tx.manifests.of_study(STUDY)] == ["2.25."]

    @pytest.mark.parametrize(
        ("elements", "answer"),
        [
            ({"StudyInstanceUID": None}, (0x0120, "StudyInstanceUID: is missing")),
            ({"ReferencedSeriesSequence": []}, (0x0121, "ReferencedSeriesSequence: is empty")),
        ],
    )
    def test_what_is_wrong_is_named(
        self, modality: Modality, elements: dict[str, Any], answer: tuple[int, str]
    ) -> None:
        with modality.association() as assoc:
            status, _ = assoc.send_n_create(
                manifests.available(STUDY, ["1.1"], **elements), INSTANCE_AVAILABILITY, STEP
            )
            assert said(status) == answer
