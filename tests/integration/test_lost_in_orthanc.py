"""A real Orthanc that loses what it answered with success: it is found out, and sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from node.dicom import dimse
from node.dicom.commitment import STORAGE_COMMITMENT, commitment
from node.dicom.request_commitment import StorageCommitmentSCU, taken
from node.dicom.scp import StorageSCP
from node.dicom.scu import StorageSender
from node.dicom.verifier import QueryVerifier
from node.domain.delivery import DeliveryState
from node.domain.instance import Answer
from node.domain.job import JobInput, JobOutput, Outcome, ResultFile
from node.domain.peer import Peer, Verify
from node.services.commitment import AskCommitment
from node.services.request_commitment import RequestCommitments
from node.services.verify import VerifyByQuery
from tests import objects
from tests.house import CT, EXPLICIT, House, everything
from tests.orthanc import Orthanc
from tests.running import eventually, free_port

pytestmark = pytest.mark.peer

COMMITTED, PENDING = DeliveryState.COMMITTED, DeliveryState.PENDING


@pytest.fixture(scope="module")
def reports_to() -> int:
    """Where Orthanc reports what it committed to."""
    return free_port()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, reports_to: int) -> Iterator[Orthanc]:
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc"), knows={"AINODE": reports_to})
    orthanc.start()
    yield orthanc
    orthanc.stop()


def results(job: JobInput, series_uid: str) -> JobOutput:
    """Three results that an archive takes."""
    made = []
    for number in (1, 2, 3):
        uid = f"{series_uid}.{number}"
        incoming = objects.incoming(SOPInstanceUID=uid, SeriesInstanceUID=series_uid, StudyInstanceUID="1.2")
        path = objects.write(job.out_dir / f"{uid}.dcm", incoming)
        digest = hashlib.sha256(incoming.dataset).hexdigest()
        made.append(ResultFile(uid, CT, series_uid, "1.2", EXPLICIT, digest, len(incoming.dataset), path))
    return JobOutput(Outcome.SUCCEEDED, results=tuple(made), findings={"regions": {}}, timings={})


@pytest.mark.parametrize("verify", [Verify.QUERY, Verify.COMMITMENT])
def test_what_orthanc_lost_is_sent_again_and_nothing_else(
    house: House, orthanc: Orthanc, reports_to: int, verify: Verify
) -> None:
    peer = Peer("PACS", "PACS", "127.0.0.1", orthanc.port, send=True, verify=verify, verify_seconds=100)
    series_uid = f"1.2.{len(verify)}"
    ask = AskCommitment(house.database.write, house.clock).ask
    services = {**dimse.SERVICES, STORAGE_COMMITMENT: commitment(ask, taken(house.take_reports.take))}
    scp = StorageSCP("AINODE", "127.0.0.1", reports_to, lambda i: Answer(0), lambda calling: True, services=services)
    look: VerifyByQuery | RequestCommitments
    if verify is Verify.QUERY:
        look = house.by_query(QueryVerifier("AINODE"), peer)
    else:
        look = house.by_commitment(StorageCommitmentSCU("AINODE", report_seconds=0), peer)

    def states() -> list[DeliveryState]:
        with house.database.read() as tx:
            return [d.state for d in tx.deliveries.of_study("1.2")]

    def stand(*wanted: DeliveryState) -> None:
        eventually(lambda: states() == [*wanted], f"they are {wanted}", seconds=20)

    house.settled_job()
    house.worker(lambda job: results(job, series_uid)).work()
    house.sender = StorageSender("AINODE")  # type: ignore[assignment]
    outbox = house.outbox(peer=peer)
    scp.start()
    try:
        assert everything(outbox) == 3
        orthanc.delete(f"{series_uid}.2")
        look.verify()
        if verify is Verify.QUERY:
            stand(COMMITTED, DeliveryState.DELIVERED, COMMITTED)
            house.clock.tick(100)
            look.verify()
        stand(COMMITTED, PENDING, COMMITTED)
        house.clock.tick(10)
        assert everything(outbox) == 1
        look.verify()
        stand(COMMITTED, COMMITTED, COMMITTED)
    finally:
        scp.stop(grace=0)


def test_orthanc_does_not_commit_to_a_node_that_it_could_not_report_to(house: House, orthanc: Orthanc) -> None:
    peer = Peer("PACS", "PACS", "127.0.0.1", orthanc.port, send=True, verify=Verify.COMMITMENT, verify_seconds=100)
    house.settled_job()
    house.worker(lambda job: results(job, "1.2.99")).work()
    house.sender = StorageSender("STRANGER")  # type: ignore[assignment]
    everything(house.outbox(peer=peer))
    house.by_commitment(StorageCommitmentSCU("STRANGER", report_seconds=0), peer).verify()
    with house.database.read() as tx:
        waiting = tx.deliveries.of_study("1.2")
    assert {d.state for d in waiting} == {DeliveryState.DELIVERED}
    assert all("gave no answer to the N-ACTION. It has to know STRANGER" in (d.reason or "") for d in waiting)
