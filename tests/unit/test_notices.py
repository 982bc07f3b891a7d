"""The AI did not run: told once to whoever wants to be told, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from node.domain.errors import TimedOut
from node.domain.instance import Origin
from node.domain.job import Job, JobInput, JobOutput, JobState, Outcome
from node.domain.profile import NoticeKind, Profile
from node.repositories import Transaction, UnitOfWork
from node.services.notices import Notices
from node.services.requeue import Requeue
from tests import objects
from tests.house import CHEST, House, everything, provenance, succeed

SR, OTHER = Profile("told", notice=NoticeKind.SR), Profile("also told", notice=NoticeKind.SR)
SILENT = Profile("silent")


def refuses(job: JobInput) -> JobOutput:
    return JobOutput(Outcome.REFUSED, reason="no-lungs: there are none")


def fails(job: JobInput) -> JobOutput:
    return JobOutput(Outcome.FAILED, reason="InvalidInput: the grid is odd")


class NoticeHouse(House):
    """A house whose studies have real headers."""

    def notices(self, profiles: Mapping[str, Profile] | None = None, write: Transaction | None = None) -> Notices:
        return Notices(
            write or self.database.write, self.database.read, self.clock, self.files, provenance,
            {"PACS": SR} if profiles is None else profiles,
        )  # fmt: skip

    def routed(self, number: int = 1, **elements: Any) -> Job:
        """A settled study of one more slice, routed."""
        named = {"PatientName": "Doe^Jane", "AccessionNumber": "A-1"} | elements
        sent = objects.incoming(SOPInstanceUID=f"1.2.3.{number}", **named)
        from node.services.receive import Receive

        kept: list[object] = []
        Receive(self.files, lambda uid: None, lambda uid: False, kept.append, self.clock).store(sent)
        self.assemble.index(kept)  # type: ignore[arg-type]
        self.clock.tick(11)
        self.assemble.settle()
        self.dispatch.route()
        with self.database.read() as tx:
            return tx.jobs.latest()[0]

    def owed(self) -> list[tuple[str, str]]:
        with self.database.read() as tx:
            return [(d.peer, d.sop_instance_uid) for d in tx.deliveries.latest()[::-1]]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[NoticeHouse]:
    made = NoticeHouse(tmp_path)
    yield made
    made.close()


def test_a_refused_study_is_told_of_once(house: NoticeHouse) -> None:
    job = house.routed()
    notices = house.notices()
    assert notices.give() == 0
    house.worker(refuses).work()
    assert [notices.give(), notices.give(), house.notices().give()] == [1, 0, 0]
    with house.database.read() as tx:
        (kept,) = tx.instances.of_job(job.id)
        (delivery,) = tx.deliveries.latest()
        (event,) = [e for e in tx.journal.of_study(job.study_uid) if e.step == "notice"]
    assert (kept.origin, kept.path.split("/")[1]) == (Origin.RESULT, job.id)
    assert kept.digest == house.files.digest(kept.path)
    assert (delivery.peer, delivery.sop_instance_uid, delivery.closes) == ("PACS", kept.sop_instance_uid, True)
    assert event.detail["peers"] == ["PACS"]
    said = dcmread(house.files.absolute(kept.path))
    assert (said.PatientName, said.AccessionNumber, said.StudyInstanceUID) == ("Doe^Jane", "A-1", "1.2.3")
    assert "no-lungs: there are none" in said.to_json()
    everything(house.outbox())
    assert house.sender.stored == [f"{kept.sop_instance_uid}.dcm"]
    assert not house.files.absolute(f"work/{job.id}-notice").exists()


def test_a_dead_job_is_told_of_and_one_that_is_tried_again_is_not(house: NoticeHouse) -> None:
    house.routed()
    notices = house.notices()
    house.worker(lambda job: replace(fails(job), retry=True), attempts=2).work()
    assert notices.give() == 0
    house.clock.tick(60)
    house.worker(lambda job: replace(fails(job), retry=True), attempts=2).work()
    assert notices.give() == 1


def test_why_is_said(house: NoticeHouse) -> None:
    def late(job: JobInput) -> JobOutput:
        raise TimedOut("ran longer than 900 s and was stopped")

    job = house.routed()
    house.worker(late, attempts=1).work()
    house.notices().give()
    with house.database.read() as tx:
        (kept,) = tx.instances.of_job(job.id)
    said = dcmread(house.files.absolute(kept.path)).to_json()
    assert "ran longer than 900 s" in said
    assert "took longer than it may" in said


def test_who_wants_none_gets_none_and_is_not_asked_again(house: NoticeHouse) -> None:
    house.routed()
    house.worker(refuses).work()
    assert house.notices({"PACS": SILENT}).give() == 0
    assert house.notices().give() == 0  # the profile was changed afterwards: the past is not told
    assert house.owed() == []


def test_each_profile_has_a_notice_of_its_own(tmp_path: Path) -> None:
    house = NoticeHouse(tmp_path, routes=[replace(CHEST, send_to=("PACS", "SECOND", "VIEWER", "ARCHIVE"))])
    house.routed()
    house.worker(refuses).work()
    profiles = {"PACS": SR, "SECOND": SR, "VIEWER": OTHER, "ARCHIVE": SILENT}
    assert house.notices(profiles).give() == 2
    owed = dict(house.owed())
    assert list(owed) == ["PACS", "SECOND", "VIEWER"]
    assert owed["PACS"] == owed["SECOND"] != owed["VIEWER"]
    house.close()


def test_what_goes_nowhere_and_what_succeeded_is_told_to_nobody(tmp_path: Path) -> None:
    house = NoticeHouse(tmp_path, routes=[replace(CHEST, send_to=())])
    house.routed()
    house.worker(refuses).work()
    assert house.notices().give() == 0
    house.close()


def test_another_revision_speaks_for_itself(house: NoticeHouse) -> None:
    house.routed(1)

    def meanwhile(job: JobInput) -> JobOutput:
        house.routed(2)
        return refuses(job)

    house.worker(meanwhile).work()
    assert house.notices().give() == 0
    house.worker(succeed).work()
    assert house.notices().give() == 0
    assert len(house.owed()) == 3


class PowerCut(RuntimeError):
    pass


def cut(write: Transaction) -> Transaction:
    """A transaction that never commits."""

    @contextmanager
    def transaction() -> Iterator[UnitOfWork]:
        with write() as tx:
            yield tx
            raise PowerCut

    def open_() -> AbstractContextManager[UnitOfWork]:
        return transaction()

    return open_


def test_a_crash_before_the_rows_gives_one_notice_in_the_end(house: NoticeHouse) -> None:
    job = house.routed()
    house.worker(refuses).work()
    with pytest.raises(PowerCut):
        house.notices(write=cut(house.database.write)).give()
    assert house.owed() == []
    assert house.notices().give() == 1
    ((peer, uid),) = house.owed()
    with house.database.read() as tx:
        kept = tx.instances.get(uid)
    assert peer == "PACS"
    assert kept is not None
    assert kept.digest == house.files.digest(kept.path)
    assert len(list(house.files.absolute(f"results/{job.id}").rglob("*.dcm"))) == 2


def test_a_job_that_is_queued_again_is_not_told_of_twice_and_its_result_replaces_the_notice(house: NoticeHouse) -> None:
    job = house.routed()
    house.worker(fails).work()
    house.notices().give()
    Requeue(house.database.write, house.clock).requeue_job(job.id, "ann")
    house.worker(fails).work()
    assert house.notices().give() == 0
    Requeue(house.database.write, house.clock).requeue_job(job.id, "ann")
    seen: list[JobInput] = []

    def run(given: JobInput) -> JobOutput:
        seen.append(given)
        return succeed(given)

    house.worker(run, profiles={"PACS": SR}).work()
    ((_, notice), *results) = house.owed()
    assert [r.sop_instance_uid for r in seen[0].supersedes["told"]] == [notice]
    assert len(results) == 3


def test_headers_that_cannot_be_read_are_said_and_stop_no_other_notice(house: NoticeHouse) -> None:
    job = house.routed()
    house.worker(refuses).work()
    with house.database.read() as tx:
        (source,) = tx.instances.of_study("1.2.3")
    house.files.absolute(source.path).write_bytes(b"nothing")
    assert house.notices().give() == 0
    with house.database.read() as tx:
        (event,) = [e for e in tx.journal.of_study("1.2.3") if e.step == "notice"]
        done = tx.jobs.get(job.id)
    assert "InvalidDicomError" in event.detail["problem"]
    assert done is not None
    assert (done.state, done.noticed) == (JobState.REFUSED, True)


@pytest.mark.parametrize("kind", [NoticeKind.SR, NoticeKind.SC])
def test_every_notice_passes_its_check_beside_series_of_its_own_number(
    house: NoticeHouse, kind: NoticeKind, caplog: pytest.LogCaptureFixture
) -> None:
    job = house.routed(SeriesNumber=SR.series_number)
    house.worker(refuses).work()
    assert house.notices({"PACS": Profile("told", notice=kind)}).give() == 1
    with house.database.read() as tx:
        (kept,) = tx.instances.of_job(job.id)
    assert dcmread(house.files.absolute(kept.path)).SeriesNumber == SR.series_number + 1
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


@pytest.mark.parametrize("kind", [NoticeKind.SR, NoticeKind.SC])
def test_headers_that_break_the_rules_hold_no_notice_back(house: NoticeHouse, kind: NoticeKind) -> None:
    """A study that is refused often has such."""
    sent = objects.dataset(SOPInstanceUID="1.2.3.1", PatientName="Doe^Jane", SeriesNumber=1, PatientSex="UNKNOWN")
    broken = objects.encoded(sent).replace(b"IS\x02\x001 ", b"IS\x02\x00#A")
    assert broken != objects.encoded(sent)
    from node.domain.instance import Incoming
    from node.services.receive import Receive

    kept: list[Any] = []
    incoming = Incoming(objects.CT, "1.2.3.1", objects.EXPLICIT, broken, "CT1")
    Receive(house.files, lambda uid: None, lambda uid: False, kept.append, house.clock).store(incoming)
    house.assemble.index(kept)
    house.clock.tick(11)
    house.assemble.settle()
    house.dispatch.route()
    house.worker(refuses).work()
    assert house.notices({"PACS": Profile("told", notice=kind, timezone="+0100")}).give() == 1
    with house.database.read() as tx:
        (job,) = tx.jobs.latest()
    assert job.reason == "no-lungs: there are none"


@pytest.mark.parametrize(
    ("kind", "keyword", "problem"),
    [
        (NoticeKind.SR, "PatientID", "identity: PatientID differs from the source"),
        (NoticeKind.SR, "ContentSequence", "notice: no comment says why there is no result"),
        (NoticeKind.SC, "SeriesDescription", "series: SeriesDescription does not start with AI"),
        (NoticeKind.SC, "PixelData", "image: the image is black"),
    ],
)
def test_a_notice_that_fails_its_check_goes_into_quarantine_and_the_job_says_so(
    house: NoticeHouse, monkeypatch: pytest.MonkeyPatch, kind: NoticeKind, keyword: str, problem: str
) -> None:
    from dicom_sr import notice

    right = notice.build

    def wrong(*given: Any, **named: Any) -> Dataset:
        made = right(*given, **named)
        value = made[keyword].value
        made[keyword].value = (
            bytes(len(value)) if keyword == "PixelData" else [] if keyword == "ContentSequence" else "X"
        )
        return made

    monkeypatch.setattr(notice, "build", wrong)
    job = house.routed()
    house.worker(refuses).work()
    notices = house.notices({"PACS": Profile("told", notice=kind)})
    assert [notices.give(), notices.give()] == [0, 0]
    assert house.owed() == []
    with house.database.read() as tx:
        ended = tx.jobs.get(job.id)
        (event,) = [e for e in tx.journal.of_study(job.study_uid) if e.step == "notice"]
    assert ended is not None
    assert (ended.state, ended.noticed) == (JobState.REFUSED, True)
    assert ended.reason is not None
    assert ended.reason.startswith("no-lungs: there are none; its notice failed the check and was not sent: told: ")
    assert problem in ended.reason
    where = f"quarantine/{job.id}-notice/1"
    assert ended.reason.endswith(f"it lies in {where}")
    assert problem in event.detail["problem"]
    assert len(list(house.files.absolute(where).glob("*.dcm"))) == 1
    assert problem in house.files.absolute(f"{where}/reason.json").read_text()
    assert not house.files.absolute(f"work/{job.id}-notice").exists()
