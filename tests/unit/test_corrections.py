"""A study that comes again of another patient or order: one new revision, whose jobs know the new identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.domain.delivery import DeliveryState, DeliveryStep
from node.domain.instance import Aside, Instance
from node.domain.job import Job, JobInput, JobOutput, JobState
from node.domain.route import Condition, Operator
from node.domain.study import Released, Study, StudyState
from node.services.assemble import Assemble
from node.services.evidence import Evidence
from node.services.receive import Receive, read_aside, read_kept
from node.services.recover import Recover
from node.services.steps import move_delivery
from tests import objects
from tests.house import CHEST, LEASE, QUIET, House, everything, succeed

STUDY = "1.2.3"
SERIES = ("1.2.3.1", "1.2.3.2")


class Ward:
    """A house with its door: what is sent goes through the receive service, as it does in a node."""

    def __init__(self, root: Path, **house: Any) -> None:
        self.house = House(root, **house)
        self.batch: list[Instance | Aside] = []
        house_ = self.house
        self.evidence = Evidence(
            house_.database.write, house_.database.read, house_.clock, house_.files,
            queried={}, count=lambda peer, study_uid: None,
        )  # fmt: skip
        self.assemble = Assemble(
            house_.database.write, house_.database.read, house_.clock, default=QUIET, quiet={}, evidence=self.evidence
        )
        self.receive = Receive(
            house_.files, self.row, lambda uid: False, self.batch.append, house_.clock, corrected=self.corrected
        )

    def row(self, uid: str) -> Instance | None:
        with self.house.database.read() as tx:
            return tx.instances.get(uid)

    def corrected(self, uid: str) -> Aside | None:
        with self.house.database.read() as tx:
            return tx.instances.correction_of(uid)

    def send(self, *series: str, peer: str = "CT1", release: bool = True, **elements: Any) -> None:
        """An association with five slices of each series."""
        for uid in series:
            for n in range(1, 6):
                self.house.clock.tick(0.02)
                geometry: dict[str, Any] = {
                    "ImagePositionPatient": [0, 0, 2.5 * n],
                    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                    "InstanceNumber": n,
                    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                }
                sent = objects.incoming(
                    peer=peer, SOPInstanceUID=f"{uid}.{n}", SeriesInstanceUID=uid, **geometry | elements
                )
                assert self.receive.store(sent).status == 0
        told: list[Instance | Aside | Released] = [*self.batch]
        if release:
            told.append(Released(peer, frozenset((STUDY,)), self.house.clock.tick(0.01)))
        self.assemble.index(told)
        self.batch.clear()

    def judge_after(self, seconds: float) -> int:
        self.house.clock.tick(seconds)
        settled = self.evidence.judge()
        self.house.dispatch.route()
        return settled

    def settled(self) -> None:
        """All of it, routed."""
        self.send(*SERIES)
        assert self.judge_after(1) == 1

    @property
    def study(self) -> Study:
        with self.house.database.read() as tx:
            study = tx.studies.get(STUDY)
        assert study is not None
        return study

    def jobs(self) -> list[Job]:
        with self.house.database.read() as tx:
            return tx.jobs.of_study(STUDY)

    def deliveries(self) -> list[tuple[int, DeliveryState]]:
        """The revision and the state of each."""
        revisions = {job.id: job.revision for job in self.jobs()}
        with self.house.database.read() as tx:
            return [(revisions[d.job_id], d.state) for d in tx.deliveries.of_study(STUDY)]

    def events(self, step: str) -> list[dict[str, Any]]:
        with self.house.database.read() as tx:
            return [dict(e.detail) for e in tx.journal.of_study(STUDY) if e.step == step]

    def inputs(self) -> list[JobInput]:
        """Run what is queued, and see what it was given."""
        seen: list[JobInput] = []

        def run(job: JobInput) -> JobOutput:
            seen.append(job)
            return succeed(job, prefix=str(len(self.jobs())) + str(job.provenance.revision))

        worker = self.house.worker(run)
        while worker.work():
            pass
        return seen


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.house.close()


CORRECTED: dict[str, Any] = {"peer": "PACS", "PatientID": "R-1", "AccessionNumber": "A-2"}


def test_all_that_comes_again_opens_one_revision(ward: Ward) -> None:
    ward.settled()
    ward.inputs()
    ward.send(SERIES[0], release=False, **CORRECTED)
    assert (ward.study.state, ward.study.revision, ward.study.instances) == (StudyState.RECEIVING, 2, 10)
    ward.send(SERIES[1], **CORRECTED)
    assert (ward.study.revision, ward.study.instances) == (2, 10)
    assert ward.judge_after(1) == 1
    assert (ward.study.state, ward.study.revision) == (StudyState.ROUTED, 2)
    assert [(j.revision, j.state) for j in ward.jobs()] == [(1, JobState.SUCCEEDED), (2, JobState.QUEUED)]
    (opened,) = ward.events("correction")
    assert (opened["revision"], opened["corrected"]) == (2, 5)
    assert opened["what"].startswith("PatientID, AccessionNumber: ")
    assert len(ward.events("aside: correction")) == 10
    (_, evidence) = ward.events("evidence")
    assert evidence["evidence"] == "all 10 instances came again, of another patient or order"


def test_its_jobs_know_the_identity_that_was_said_last(ward: Ward) -> None:
    ward.settled()
    (before,) = ward.inputs()
    ward.send(*SERIES, **CORRECTED)
    ward.send(*SERIES, **CORRECTED | {"PatientID": "R-2"})
    ward.judge_after(1)
    (after,) = ward.inputs()
    assert before.identity is None
    assert after.identity is not None
    header = dcmread(after.identity, stop_before_pixels=True)
    assert (header.PatientID, header.AccessionNumber) == ("R-2", "A-2")
    assert [i.digest for s in after.study.series for i in s.instances] == [
        i.digest for s in before.study.series for i in s.instances
    ]


def test_a_part_that_comes_again_waits_for_the_rest_until_it_is_quiet(ward: Ward) -> None:
    ward.settled()
    ward.send(SERIES[0], **CORRECTED)
    assert ward.judge_after(1) == 0
    assert ward.events("wait")[-1]["why"] == "5 of 10 instances came again, of another patient or order"
    ward.send(SERIES[1], **CORRECTED)
    assert ward.judge_after(3) == 1
    assert ward.study.revision == 2


def test_a_part_alone_settles_by_quiet_time(ward: Ward) -> None:
    ward.settled()
    ward.send(SERIES[0], **CORRECTED)
    ward.house.clock.tick(11)
    assert ward.assemble.settle() == 1
    ward.house.dispatch.route()
    assert [j.revision for j in ward.jobs()] == [1, 2]


def test_a_correction_before_the_study_has_settled_opens_none(ward: Ward) -> None:
    ward.send(SERIES[0], release=False)
    ward.send(SERIES[0], **CORRECTED)
    assert ward.judge_after(1) == 1
    assert ward.study.revision == 1
    (given,) = ward.inputs()
    assert given.identity is not None


def test_the_same_correction_again_changes_nothing(ward: Ward) -> None:
    ward.settled()
    ward.send(*SERIES, **CORRECTED)
    ward.judge_after(1)
    ward.send(*SERIES, **CORRECTED)
    assert (ward.study.state, ward.study.revision) == (StudyState.ROUTED, 2)
    assert len(ward.events("aside: correction")) == 10


def test_what_is_taken_back_is_a_revision_of_its_own(ward: Ward) -> None:
    ward.settled()
    ward.inputs()
    for elements in (CORRECTED, {"peer": "PACS"}):
        ward.send(*SERIES, **elements)
        ward.judge_after(1)
        (given,) = ward.inputs()
    assert ward.study.revision == 3
    assert given.identity is not None
    assert dcmread(given.identity, stop_before_pixels=True).PatientID == "P1"


def test_a_late_slice_keeps_what_is_believed(ward: Ward) -> None:
    ward.settled()
    ward.send(*SERIES, **CORRECTED)
    ward.judge_after(1)
    ward.inputs()
    ward.send("1.2.3.3")
    ward.judge_after(1)
    (given,) = ward.inputs()
    assert given.provenance.revision == 3
    assert given.identity is not None


def test_a_queued_job_of_the_wrong_patient_is_not_run(ward: Ward) -> None:
    ward.settled()
    ward.send(*SERIES, **CORRECTED)
    ward.judge_after(1)
    assert [(j.revision, j.state) for j in ward.jobs()] == [(1, JobState.CANCELLED), (2, JobState.QUEUED)]


def test_results_of_the_wrong_patient_that_were_not_sent_are_withdrawn(ward: Ward) -> None:
    ward.settled()
    ward.inputs()
    ward.send(*SERIES, **CORRECTED)
    ward.judge_after(1)
    (given,) = ward.inputs()
    assert given.supersedes == {}
    assert ward.deliveries() == [(1, DeliveryState.WITHDRAWN)] * 3 + [(2, DeliveryState.PENDING)] * 3
    everything(ward.house.outbox())
    assert ward.deliveries() == [(1, DeliveryState.WITHDRAWN)] * 3 + [(2, DeliveryState.DELIVERED)] * 3


def test_a_set_that_was_begun_is_sent_to_its_end_and_then_replaced(ward: Ward) -> None:
    ward.settled()
    ward.inputs()
    now = ward.house.clock.now()
    with ward.house.database.write() as tx:
        (first,) = tx.deliveries.claim(peer="PACS", owner="courier", now=now, lease=LEASE, limit=1)
        move_delivery(tx, first, DeliveryStep.ACK, now, owner=None, lease_until=None, delivered_at=now, status=0)
    ward.send(*SERIES, **CORRECTED)
    ward.judge_after(1)
    (given,) = ward.inputs()
    assert len(given.supersedes["full"]) == 3
    everything(ward.house.outbox())
    assert ward.deliveries() == [(1, DeliveryState.DELIVERED)] * 3 + [(2, DeliveryState.DELIVERED)] * 3


def test_a_job_that_ran_meanwhile_is_not_sent(ward: Ward) -> None:
    ward.settled()

    def run(job: JobInput) -> JobOutput:
        ward.send(*SERIES, **CORRECTED)
        return succeed(job)

    ward.house.worker(run).work()
    (job,) = ward.jobs()
    assert (job.state, job.reason) == (
        JobState.SUCCEEDED, "not sent: patient or order were corrected in revision 2"
    )  # fmt: skip
    assert ward.deliveries() == []


def test_routes_see_the_new_identity(tmp_path: Path) -> None:
    of_patient = replace(CHEST, when=(Condition("PatientID", Operator.EQUALS, ("R-1",)),))
    ward = Ward(tmp_path, routes=[of_patient])
    ward.settled()
    assert ward.jobs() == []
    ward.send(*SERIES, **CORRECTED)
    ward.judge_after(1)
    assert [j.revision for j in ward.jobs()] == [2]
    ward.house.close()


def test_rows_of_corrections_are_rebuilt_from_disk(tmp_path: Path) -> None:
    """A crash between the answer and the row."""
    ward = Ward(tmp_path)
    ward.settled()
    ward.inputs()
    sent: Sequence[str] = [f"{SERIES[0]}.{n}" for n in range(1, 6)]
    for uid in sent:
        ward.house.clock.tick(0.02)
        n = uid.rsplit(".", 1)[1]
        ward.receive.store(
            objects.incoming(
                peer="PACS", SOPInstanceUID=uid, SeriesInstanceUID=SERIES[0], PatientID="R-1",
                ImagePositionPatient=[0, 0, 2.5 * int(n)], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                InstanceNumber=int(n), ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            )
        )  # fmt: skip
    ward.batch.clear()
    house = ward.house
    recover = Recover(
        house.database.write, house.database.read, house.clock, house.files,
        read_kept=lambda path: read_kept(house.files, path), read_aside=lambda path: read_aside(house.files, path),
        alive=lambda owner: True, attempts=3,
    )  # fmt: skip
    assert recover.index(ward.assemble) == 5
    assert (ward.study.state, ward.study.revision) == (StudyState.RECEIVING, 2)
    assert recover.index(ward.assemble) == 0
    house.close()
