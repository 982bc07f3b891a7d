"""Receive on real files: what is answered, what lies where, who is told."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from node.domain.errors import InvalidInput, InvalidInstance
from node.domain.instance import Answer, Aside, AsideReason, Incoming, Instance, Origin
from node.files.disk import DiskFiles
from node.services.receive import Receive, read_aside, read_kept
from tests import objects
from tests.fakes import FakeClock

SENT = objects.incoming()
OTHER = objects.incoming(SliceThickness="3")
CORRECTED = objects.incoming(PatientID="P2", peer="PACS")


class Node:
    """Receive with an index that is as far behind as the test wants."""

    def __init__(self, data_dir: Path, *, min_free_bytes: int = 0) -> None:
        self.files = DiskFiles(data_dir, min_free_bytes=min_free_bytes)
        self.told: list[Instance | Aside] = []
        self.rows: dict[str, Instance] = {}
        self.clock = FakeClock()
        self.restart()

    def restart(self, corrected: Callable[[str], Aside | None] = lambda uid: None) -> None:
        self.receive = Receive(
            self.files, self.rows.get, self.is_result_series, self.told.append, self.clock, corrected=corrected
        )

    def is_result_series(self, series_uid: str) -> bool:
        return any(row.series_uid == series_uid for row in self.rows.values() if row.origin is Origin.RESULT)

    def index(self) -> None:
        self.rows.update({kept.sop_instance_uid: kept for kept in self.told if isinstance(kept, Instance)})

    @property
    def asides(self) -> list[Aside]:
        return [aside for aside in self.told if isinstance(aside, Aside)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "var")


def only_aside(node: Node) -> Aside:
    (aside,) = node.asides
    (path,) = node.files.all_asides()
    assert aside.path == path
    return aside


SYNTAXES = [objects.IMPLICIT, objects.EXPLICIT, objects.BIG_ENDIAN]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_instance_is_kept_as_received_and_told_of(node: Node, syntax: str) -> None:
    sent = objects.incoming(syntax)
    assert node.receive.store(sent) == Answer(0)
    (kept,) = node.told
    assert isinstance(kept, Instance)
    assert node.files.absolute(kept.path).read_bytes().endswith(sent.dataset)
    assert (kept.study_uid, kept.series_uid, kept.sop_instance_uid) == ("1.2.3", "1.2.3.1", "1.2.3.4")
    assert (kept.transfer_syntax_uid, kept.sop_class_uid) == (syntax, objects.CT)
    assert (kept.origin, kept.peer, kept.at, kept.revision) == (Origin.RECEIVED, "CT1", node.clock.now(), 0)
    assert kept.digest == node.files.digest(kept.path)
    assert kept.size == node.files.absolute(kept.path).stat().st_size


@pytest.mark.parametrize(
    "sent",
    [
        objects.incoming(SOPClassUID="1.2.276.0.7230010.3.1.0.1"),
        objects.incoming(PixelData=None, Rows=None, Columns=None),
        objects.incoming(transfer_syntax_uid=objects.EXPLICIT, Modality="XX", SamplesPerPixel=3),
    ],
    ids=["private SOP class", "no pixel data", "colour"],
)
def test_what_no_pipeline_understands_is_kept_too(node: Node, sent: Incoming) -> None:
    assert node.receive.store(sent) == Answer(0)
    assert len(list(node.files.all_instances())) == 1


@pytest.mark.parametrize("indexed", [False, True])
def test_the_same_object_again_is_success_and_stored_once(node: Node, indexed: bool) -> None:
    node.receive.store(SENT)
    if indexed:
        node.index()
    assert node.receive.store(SENT) == Answer(0)
    assert len(node.told) == (1 if indexed else 2)
    assert len({kept.path for kept in node.told}) == 1
    assert len(list(node.files.all_instances())) == 1


@pytest.mark.parametrize("indexed", [False, True])
def test_the_same_uid_with_other_bytes_is_kept_aside(node: Node, indexed: bool) -> None:
    node.receive.store(SENT)
    first = node.files.absolute("instances/1.2.3/1.2.3.1/1.2.3.4.dcm").read_bytes()
    if indexed:
        node.index()
    assert node.receive.store(OTHER) == Answer(0)
    assert node.files.absolute("instances/1.2.3/1.2.3.1/1.2.3.4.dcm").read_bytes() == first
    assert len(list(node.files.all_instances())) == 1
    aside = only_aside(node)
    assert aside.reason is AsideReason.CONFLICT
    assert aside.sop_instance_uid == "1.2.3.4"
    assert node.files.absolute(aside.path).read_bytes().endswith(OTHER.dataset)


def test_another_patient_in_the_header_is_a_correction(node: Node) -> None:
    node.receive.store(SENT)
    first = node.files.absolute("instances/1.2.3/1.2.3.1/1.2.3.4.dcm").read_bytes()
    node.index()
    assert node.receive.store(CORRECTED) == Answer(0, study_uid="1.2.3")
    aside = only_aside(node)
    assert (aside.reason, aside.sop_instance_uid, aside.study_uid) == (AsideReason.CORRECTION, "1.2.3.4", "1.2.3")
    assert aside.detail.startswith("PatientID: ")
    assert "P2" not in aside.detail
    assert node.files.absolute("instances/1.2.3/1.2.3.1/1.2.3.4.dcm").read_bytes() == first
    assert node.files.absolute(aside.path).read_bytes().endswith(CORRECTED.dataset)
    assert read_aside(node.files, aside.path) == aside


def test_what_is_believed_already_is_kept_once_and_taken_back_by_who_said_it(node: Node) -> None:
    node.receive.store(SENT)
    node.index()
    node.receive.store(CORRECTED)
    (first,) = node.asides
    node.restart(corrected=lambda uid: first)
    assert node.receive.store(CORRECTED) == Answer(0)
    assert node.receive.store(SENT) == Answer(0)  # the scanner, which knows nothing of the correction
    assert node.asides == [first]
    node.clock.tick(60)
    assert node.receive.store(replace(SENT, peer="PACS")) == Answer(0)
    _, back = node.asides
    assert (back.reason, back.digest) == (AsideReason.CORRECTION, node.rows["1.2.3.4"].digest)
    assert "taken back" in back.detail
    assert len(list(node.files.all_asides())) == 2


def test_what_is_believed_already_and_written_another_way_is_no_news(node: Node) -> None:
    """A PACS that writes the time of the coercion into each copy that it sends."""
    node.receive.store(SENT)
    node.index()
    node.receive.store(CORRECTED)
    (first,) = node.asides
    node.restart(corrected=lambda uid: first)
    for peer in ("PACS", "CT1"):
        stamped = objects.incoming(PatientID="P2", peer=peer, InstanceCoercionDateTime="20260105101500")
        assert node.receive.store(stamped) == Answer(0)
    node.clock.tick(60)
    assert node.receive.store(objects.incoming(PatientID="P3", peer="RIS")) == Answer(0)
    assert [aside.reason for aside in node.asides[1:]] == [
        AsideReason.CONFLICT, AsideReason.CONFLICT, AsideReason.CORRECTION
    ]  # fmt: skip


def test_an_identity_that_is_written_another_way_is_taken_back_too(node: Node) -> None:
    node.receive.store(SENT)
    node.index()
    again = objects.incoming(objects.IMPLICIT, peer="PACS")
    node.receive.store(again)
    assert [aside.reason for aside in node.asides] == [AsideReason.CONFLICT]
    node.told.clear()
    node.receive.store(CORRECTED)
    (first,) = node.asides
    node.restart(corrected=lambda uid: first)
    node.receive.store(again)
    assert [aside.reason for aside in node.asides] == [AsideReason.CORRECTION] * 2


def test_a_conflict_is_seen_after_a_restart_without_rows(node: Node) -> None:
    node.receive.store(SENT)
    node.restart()
    assert node.receive.store(OTHER) == Answer(0)
    assert only_aside(node).reason is AsideReason.CONFLICT


def test_an_object_that_nobody_was_told_of_is_told_of_when_it_comes_again(node: Node) -> None:
    def fails(kept: Instance | Aside) -> None:
        raise RuntimeError("the queue is closed")

    failing = Receive(node.files, node.rows.get, node.is_result_series, fails, node.clock)
    assert failing.store(SENT).status == 0x0110
    assert node.receive.store(SENT) == Answer(0)
    assert [kept.path for kept in node.told] == list(node.files.all_instances())


RESULT = Instance(
    sop_instance_uid="1.2.3.4",
    sop_class_uid=objects.CT,
    study_uid="1.2.3",
    series_uid="1.2.3.1",
    transfer_syntax_uid=objects.EXPLICIT,
    digest="0" * 64,
    size=1,
    path="results/job/1/1.2.3.4.dcm",
    origin=Origin.RESULT,
    at=FakeClock().now(),
)


def test_our_own_result_coming_back_unchanged_is_not_stored(node: Node) -> None:
    node.receive.store(SENT)
    (kept,) = node.told
    assert isinstance(kept, Instance)
    node.rows["1.2.3.4"] = replace(kept, origin=Origin.RESULT)
    node.told.clear()
    node.restart()
    assert node.receive.store(SENT) == Answer(0)
    assert node.told == []


@pytest.mark.parametrize("uid", ["1.2.3.4", "1.2.3.5"], ids=["our instance", "new in our series"])
def test_our_own_result_coming_back_changed_is_kept_aside(node: Node, uid: str) -> None:
    node.rows["1.2.3.4"] = RESULT
    assert node.receive.store(objects.incoming(SOPInstanceUID=uid)) == Answer(0)
    assert only_aside(node).reason is AsideReason.RETURNED
    assert list(node.files.all_instances()) == []


TEXT = replace(SENT, dataset=b"Dear colleague, please find attached the images of our patient. " * 20)
INVALID = [
    pytest.param(TEXT, 0xC000, "data set", id="text file"),
    pytest.param(replace(SENT, dataset=b""), 0xC000, "SOPClassUID", id="nothing"),
    pytest.param(replace(SENT, dataset=SENT.dataset[:-1]), 0xC000, "data set: truncated", id="truncated"),
    pytest.param(replace(SENT, dataset=SENT.dataset[:20]), 0xC000, "data set: cannot be read", id="cut in the head"),
    pytest.param(replace(SENT, transfer_syntax_uid=objects.IMPLICIT), 0xC000, "data set", id="other syntax"),
    pytest.param(objects.incoming(StudyInstanceUID=None), 0xC000, "StudyInstanceUID: is missing", id="no study"),
    pytest.param(objects.incoming(StudyInstanceUID=""), 0xC000, "StudyInstanceUID: is missing", id="empty study"),
    pytest.param(objects.incoming(SeriesInstanceUID=None), 0xC000, "SeriesInstanceUID: is missing", id="no series"),
    pytest.param(objects.incoming(SOPInstanceUID=None), 0xC000, "SOPInstanceUID: is missing", id="no instance"),
    pytest.param(replace(SENT, sop_instance_uid="1.2.3.5"), 0xA900, "SOPInstanceUID: 1.2.3.4 is not", id="other UID"),
    pytest.param(replace(SENT, sop_class_uid="1.2.840.10008.5.1.4.1.1.4"), 0xA900, "SOPClassUID", id="other class"),
]


@pytest.mark.parametrize(("sent", "status", "comment"), INVALID)
def test_what_is_no_instance_gets_a_failure_and_lies_aside(
    node: Node, sent: Incoming, status: int, comment: str
) -> None:
    for _ in range(2):
        answer = node.receive.store(sent)
    assert answer.status == status
    assert answer.comment.startswith(comment)
    assert len(answer.comment) <= 64
    assert list(node.files.all_instances()) == []
    (path,) = node.files.all_asides()
    assert node.files.absolute(path).read_bytes().endswith(sent.dataset)
    note = json.loads(node.files.absolute(path).with_suffix(".json").read_text())
    assert note["why"].startswith(comment.split(":", maxsplit=1)[0])
    assert note["fix"]
    assert "P1" not in json.dumps(note)
    assert {aside.path for aside in node.asides} == {path}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_uid_that_climbs_out_never_becomes_a_path(node: Node, tmp_path: Path, keyword: str) -> None:
    answer = node.receive.store(objects.incoming(**{keyword: "../../x"}))
    assert answer == Answer(0xC000, f"{keyword}: '../../x' is no valid UID")
    assert only_aside(node).reason is AsideReason.INVALID
    assert [path.name for path in tmp_path.iterdir()] == ["var"]


def test_a_full_disk_is_out_of_resources_and_nothing_is_kept(tmp_path: Path) -> None:
    node = Node(tmp_path, min_free_bytes=1 << 60)
    assert node.receive.store(SENT).status == 0xA700
    assert node.receive.store(TEXT).status == 0xA700
    assert node.told == []
    assert list(node.files.all_instances()) == list(node.files.all_asides()) == []


def test_a_fault_of_the_node_is_answered_and_logged_without_patient_data(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(uid: str) -> bool:
        raise RuntimeError("database is locked")

    receive = Receive(node.files, node.rows.get, broken, node.told.append, node.clock)
    with caplog.at_level(logging.DEBUG):
        assert receive.store(objects.incoming(PatientID="SECRET")).status == 0x0110
    assert "database is locked" in caplog.text
    assert "SECRET" not in caplog.text


def test_many_at_once_of_one_name(node: Node) -> None:
    """Whoever is first, one version stands, and every other one lies aside once."""
    versions = [objects.incoming(SliceThickness=f"{n % 3}") for n in range(12)]
    start = threading.Barrier(len(versions))
    answers: list[Answer] = []

    def send(version: Incoming) -> None:
        start.wait()
        answers.append(node.receive.store(version))

    threads = [threading.Thread(target=send, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [Answer(0)] * len(versions)
    (kept,) = {(told.path, told.digest) for told in node.told if isinstance(told, Instance)}
    assert list(node.files.all_instances()) == [kept[0]]
    kept_digests = {kept[1], *(node.files.digest(path) for path in node.files.all_asides())}
    assert len(kept_digests) == 3


def test_rows_can_be_rebuilt_from_disk(node: Node) -> None:
    node.receive.store(SENT)
    node.index()
    node.receive.store(OTHER)
    node.receive.store(TEXT)
    kept, *asides = node.told
    assert isinstance(kept, Instance)
    rebuilt = read_kept(node.files, kept.path)
    assert abs(rebuilt.at.timestamp() - node.files.absolute(kept.path).stat().st_mtime) < 1e-3
    assert replace(rebuilt, at=kept.at) == kept
    assert [read_aside(node.files, aside.path) for aside in asides] == asides
    assert asides[0].at - node.clock.now() == timedelta(0)


def test_what_cannot_be_rebuilt_says_so(node: Node) -> None:
    node.receive.store(SENT)
    node.index()
    node.receive.store(OTHER)
    kept, aside = node.told
    file = node.files.absolute(kept.path)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InvalidInstance, match="truncated"):
        read_kept(node.files, kept.path)
    node.files.absolute(aside.path).with_suffix(".json").write_text("{}")
    with pytest.raises(InvalidInput, match="no note"):
        read_aside(node.files, aside.path)
