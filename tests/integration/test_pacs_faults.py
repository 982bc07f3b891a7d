"""What PACS get wrong, on a scripted clock: in the end each object is there once, or dead with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from node.dicom.scu import StorageSender
from node.dicom.sink import Sink
from node.domain.circuit import CircuitState
from node.domain.delivery import Delivery, DeliveryState
from node.domain.instance import Answer
from node.domain.peer import Peer
from node.domain.status import FEW
from node.services.deliver import Deliver
from tests import objects
from tests.faulty import Choking, Dropping, Mute
from tests.house import PACS, House
from tests.integration.test_transcoding import Start, storescp, write
from tests.orthanc import Orthanc
from tests.running import free_port

CAPTURE, REPORT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.34"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
__all__ = ["storescp"]  # a fixture
PENDING, DELIVERED, DEAD = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.DEAD


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.sender = StorageSender("AINODE")  # type: ignore[assignment]
    yield made
    made.close()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    made = Sink("PACS", free_port(), tmp_path / "pacs")
    made.start()
    yield made
    made.stop()


def at(port: int, name: str = "PACS") -> Peer:
    return replace(PACS, name=name, port=port, timeout_seconds=5)


def uid(number: int) -> str:
    return f"1.2.3.{number}"


def owe(house: House, *paths: Path, peer: str = "PACS", job: str = "") -> None:
    """One job's results, the last of them its report."""
    now, job = house.clock.now(), job or f"job of {peer}"
    made = []
    for position, path in enumerate(paths):
        meta = dcmread(path).file_meta
        made.append(
            Delivery(
                0, job, "1.2", str(meta.MediaStorageSOPInstanceUID), str(meta.MediaStorageSOPClassUID),
                str(meta.TransferSyntaxUID), str(path), peer, PENDING, 0, position, now, now,
                closes=position == len(paths) - 1,
            )
        )  # fmt: skip
    with house.database.write() as tx:
        tx.deliveries.add(made)


def reject(house: House, path: Path) -> None:
    """The same job also rejects what was sent before."""
    owe(house, path)
    with house.database.write() as tx:
        note = tx.deliveries.of_study("1.2")[-1]
        tx.deliveries.update(note, replace(note, position=note.id, rejects=True))


def results(folder: Path, *, captures: int = 3) -> list[Path]:
    """Captures, then a report."""
    made = [write(folder / f"{n}.dcm", n, ExplicitVRLittleEndian) for n in range(captures)]
    report = objects.incoming(SOPClassUID=REPORT, SOPInstanceUID=uid(captures), PixelData=None, Modality="SR")
    return [*made, objects.write(folder / "sr.dcm", report)]


def owe_also(house: House, path: Path) -> None:
    """The result of another job."""
    owe(house, path, job=f"job of {path.name}")


def rows(house: House, peer: str = "PACS") -> list[Delivery]:
    with house.database.read() as tx:
        return [d for d in tx.deliveries.of_study("1.2") if d.peer == peer]


def states(house: House, peer: str = "PACS") -> list[DeliveryState]:
    return [d.state for d in rows(house, peer)]


def hours(house: House, courier: Deliver, *, hours: float, until: Callable[[], bool] = lambda: False) -> None:
    """Let the time pass, two minutes at a time."""
    for _ in range(int(hours * 30)):
        while courier.deliver():
            pass
        if until():
            return
        house.clock.tick(120)


def test_down_for_an_hour_while_another_peer_gets_all_at_once(house: House, sink: Sink, tmp_path: Path) -> None:
    late, files = free_port(), results(tmp_path)
    owe(house, *files, peer="DOWN")
    owe(house, *files, peer="PACS")
    down, pacs = house.outbox(peer=at(late, "DOWN")), house.outbox(peer=at(sink.port))
    down.deliver()
    assert pacs.deliver() == 4
    assert states(house) == [DELIVERED] * 4
    hours(house, down, hours=1)
    assert states(house, "DOWN") == [PENDING] * 4
    assert {d.attempt for d in rows(house, "DOWN")} == {0}
    with house.database.read() as tx:
        assert tx.circuits.all()["DOWN"].state is CircuitState.OPEN
    back = Sink("PACS", late, tmp_path / "back")
    back.start()
    try:
        hours(house, down, hours=0.5, until=lambda: states(house, "DOWN") == [DELIVERED] * 4)
        assert dict(back.stored) == {uid(n): 1 for n in range(4)}
        assert back.order[-1] == uid(3), "the report is the last"
    finally:
        back.stop()


@pytest.mark.parametrize(
    ("status", "state", "tries"),
    [
        (0xA700, DELIVERED, 2),
        (0xA900, DEAD, 1),
        (0xB000, DELIVERED, 1),
        (0xB006, DELIVERED, 1),
        (0xB007, DELIVERED, 1),
        (0x0111, DELIVERED, 1),
        (0x0122, DEAD, 1),
        (0xC000, DELIVERED, 2),
    ],
)
def test_each_status_leads_to_the_object_there_once_or_dead_with_its_reason(
    house: House, sink: Sink, tmp_path: Path, status: int, state: DeliveryState, tries: int
) -> None:
    sink.answer_next([Answer(0), Answer(status, "as scripted")])
    owe(house, *results(tmp_path))
    hours(house, house.outbox(peer=at(sink.port)), hours=0.1)
    odd = rows(house)[1]
    assert states(house) == [DELIVERED, state, DELIVERED, DELIVERED]
    assert odd.attempt == tries
    assert odd.reason == (None if tries == 2 else odd.reason)
    if tries == 1:
        assert (odd.reason or "").startswith(f"the peer answered {status:04X} (")
        assert (odd.reason or "").endswith(") as scripted")
    assert set(sink.stored.values()) == {1}
    assert sink.order[-1] == uid(3), "the report is the last"


def test_what_is_never_understood_is_dead_and_its_report_goes(house: House, sink: Sink, tmp_path: Path) -> None:
    sink.answer_next([Answer(0), Answer(0xC000, "no"), Answer(0)] + [Answer(0xC000, "no")] * (FEW - 1))
    owe(house, *results(tmp_path))
    hours(house, house.outbox(peer=at(sink.port)), hours=3, until=lambda: rows(house)[3].state is DELIVERED)
    assert states(house) == [DELIVERED, DEAD, DELIVERED, DELIVERED]
    assert rows(house)[1].reason == f"the peer answered C000 (error: cannot understand) no, {FEW} times"
    assert sink.order == [uid(0), uid(2), uid(3)]


NO_REPORTS = r"""
[[TransferSyntaxes]]
[Any]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Captures]
PresentationContext1 = SecondaryCaptureImageStorage\Any
PresentationContext2 = VerificationSOPClass\Any
[[Profiles]]
[NoReports]
PresentationContexts = Captures
"""


@pytest.mark.peer
def test_the_report_class_is_refused(house: House, storescp: Start, tmp_path: Path) -> None:
    (tmp_path / "profile.cfg").write_text(NO_REPORTS)
    peer, folder = storescp("-xf", str(tmp_path / "profile.cfg"), "NoReports")
    owe(house, *results(tmp_path))
    hours(house, house.outbox(peer=peer), hours=0.1)
    assert states(house) == [DELIVERED] * 3 + [DEAD]
    assert "0122 (SOP class not supported) the peer refused" in (rows(house)[3].reason or "")
    assert sorted(str(dcmread(path).SOPInstanceUID) for path in folder.iterdir()) == [uid(0), uid(1), uid(2)]


def test_the_association_drops_in_mid_object(house: House, sink: Sink, tmp_path: Path) -> None:
    between = Dropping(sink.port, after=20_000, times=3)
    try:
        owe(house, *results(tmp_path, captures=6))
        hours(house, house.outbox(peer=at(between.port)), hours=0.5)
    finally:
        between.close()
    assert between.times == 0
    assert states(house) == [DELIVERED] * 7
    assert dict(sink.stored) == {uid(n): 1 for n in range(7)}
    assert sink.order[-1] == uid(6), "the report is the last"


def test_a_peer_that_answers_nothing_for_an_hour_has_all_once_when_it_answers_again(
    house: House, sink: Sink, tmp_path: Path
) -> None:
    mute, files = Mute(free_port(), tmp_path / "mute"), results(tmp_path)
    mute.start()
    try:
        owe(house, *files, peer="MUTE")
        owe(house, *files)
        courier = house.outbox(peer=replace(at(mute.port, "MUTE"), ae_title="MUTE", timeout_seconds=0.3))
        assert courier.deliver() == 4
        assert [(d.state, d.attempt) for d in rows(house, "MUTE")] == [(PENDING, 1), *[(PENDING, 0)] * 3]
        assert "gave no answer to 1.2.3.0" in (rows(house, "MUTE")[0].reason or "")
        assert house.outbox(peer=at(sink.port)).deliver() == 4
        assert states(house) == [DELIVERED] * 4, "another peer has all at once"
        hours(house, courier, hours=1)
        assert states(house, "MUTE") == [PENDING] * 4
        assert mute.heard > 3, "it was tried now and then"
        assert {d.refusals for d in rows(house, "MUTE")} == {0}
        mute.speaks.set()
        hours(house, courier, hours=0.5, until=lambda: states(house, "MUTE") == [DELIVERED] * 4)
        assert dict(mute.stored) == {uid(n): 1 for n in range(4)}
        assert mute.order[-1] == uid(3), "the report is the last"
    finally:
        mute.speaks.set()
        mute.stop()


def test_an_object_on_which_the_peer_breaks_off_each_time_is_dead_with_the_reason(house: House, tmp_path: Path) -> None:
    chokes = Choking(CAPTURE, REPORT, on={uid(1)})
    try:
        owe(house, *results(tmp_path))
        courier, number = house.outbox(peer=at(chokes.port)), 100
        while rows(house)[1].state is PENDING:
            number += 1
            assert number < 200, "it has to end"
            owe_also(house, write(tmp_path / f"{number}.dcm", number, ExplicitVRLittleEndian))
            hours(house, courier, hours=0.2)
    finally:
        chokes.stop()
    first, dead, third, report, *others = rows(house)
    assert {d.state for d in (first, third, report, *others)} == {DELIVERED}
    assert (dead.state, dead.refusals, chokes.aborts) == (DEAD, FEW, dead.attempt)
    assert "gave no answer to 1.2.3.1" in (dead.reason or "")
    assert (dead.reason or "").endswith(f", {FEW} times, while it took others")
    assert sorted(chokes.stored) == sorted({d.sop_instance_uid for d in rows(house)} - {uid(1)})
    assert chokes.stored.index(uid(3)) > chokes.stored.index(uid(101)), "the report goes when the other one is dead"


@pytest.mark.peer
def test_the_association_to_a_real_archive_drops_in_mid_object(house: House, tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    orthanc = Orthanc(tmp_path / "orthanc")
    orthanc.start()
    between = Dropping(orthanc.port, after=20_000, times=3)
    try:
        owe(house, *results(tmp_path, captures=6))
        hours(house, house.outbox(peer=at(between.port)), hours=0.5)
        found = [i["MainDicomTags"]["SOPInstanceUID"] for i in orthanc.get("/instances?expand")]
    finally:
        between.close()
        orthanc.stop()
    assert between.times == 0
    assert states(house) == [DELIVERED] * 7
    assert sorted(found) == [uid(n) for n in range(7)]


@pytest.mark.peer
def test_orthanc_refuses_every_compressed_syntax_and_restarts(house: House, tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    orthanc = Orthanc(
        tmp_path / "orthanc", settings={"AcceptedTransferSyntaxes": ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]}
    )
    orthanc.start()
    try:
        syntaxes = (RLELossless, JPEGLSLossless, JPEG2000Lossless, ExplicitVRLittleEndian)
        files = [write(tmp_path / f"{n}.dcm", n, syntax) for n, syntax in enumerate(syntaxes)]
        owe(house, *files)
        courier = house.outbox(peer=at(orthanc.port))
        courier.deliver()
        assert states(house) == [DELIVERED] * 4
        found = [i["MainDicomTags"]["SOPInstanceUID"] for i in orthanc.get("/instances?expand")]
        assert sorted(found) == [uid(n) for n in range(4)]
        orthanc.stop()
        more = [write(tmp_path / "more.dcm", 9, RLELossless)]
        owe(house, *more)
        hours(house, courier, hours=1)
        assert rows(house)[4].state is PENDING
        orthanc.start()
        hours(house, courier, hours=0.5, until=lambda: rows(house)[4].state is DELIVERED)
        assert len(orthanc.get("/instances")) == 5
    finally:
        orthanc.stop()


@pytest.mark.parametrize("fails", ["a capture", "the report"])
@pytest.mark.parametrize("status", [0xA700, 0xA900])
def test_a_peer_is_told_of_a_rejection_only_when_all_that_is_new_is_there(
    house: House, sink: Sink, tmp_path: Path, fails: str, status: int
) -> None:
    files = results(tmp_path, captures=2)
    note = objects.incoming(SOPClassUID=KEY_OBJECTS, SOPInstanceUID=uid(9), PixelData=None, Modality="KO")
    owe(house, *files)
    reject(house, objects.write(tmp_path / "ko.dcm", note))
    failing = 1 if fails == "a capture" else 2
    sink.answer_next([*[Answer(0)] * failing, Answer(status)])
    courier = house.outbox(peer=at(sink.port))
    courier.deliver()
    assert uid(9) not in sink.stored
    hours(house, courier, hours=1)
    if status == 0xA900:
        assert uid(9) not in sink.stored, "the new set lacks an object"
        (dead,) = [d for d in rows(house) if d.state is DEAD]
        house.requeue.requeue_delivery(dead.id, "ann")
        hours(house, courier, hours=1)
    assert states(house) == [DELIVERED] * 4
    assert sink.order[-1] == uid(9)
    assert sink.order.index(uid(2)) == len(sink.order) - (2 if status == 0xA700 or fails == "the report" else 3)
    assert dict(sink.stored) == {uid(n): 1 for n in (0, 1, 2, 9)}
