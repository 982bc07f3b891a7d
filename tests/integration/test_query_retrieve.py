"""C-FIND, C-MOVE and C-GET with Orthanc, and with an SCP that answers as oddly as it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread
from pynetdicom import AE, _config, evt

from node.dicom.query import find_instances, find_studies, related_instances
from node.dicom.retrieve import Retrieved, SubOperations, get, move
from node.dicom.scp import StorageSCP
from node.dicom.scu import StorageSender
from node.dicom.study_root import FIND, GET, MOVE
from node.domain.errors import PeerUnreachable, Rejected
from node.domain.instance import Answer, Incoming
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.peer import Peer
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests import objects
from tests.orthanc import Orthanc
from tests.running import free_port

CT = objects.CT
STUDY = "1.2.3"
SLICES = 12


def data_set(path: Path) -> bytes:
    content = path.read_bytes()
    return content[split(content[:HEAD_LIMIT]).offset :]


# --- Orthanc -------------------------------------------------------------------------------------------------------


class Kept(list[Incoming]):
    """What a receiver was handed."""

    def __call__(self, incoming: Incoming) -> Answer:
        self.append(incoming)
        return Answer(0)

    def data_sets(self) -> list[bytes]:
        return sorted(incoming.dataset for incoming in self)


@dataclass(frozen=True)
class Archive:
    """Orthanc with the series of one study, and the receiver that it knows as AINODE."""

    peer: Peer
    files: list[Path]
    sent: Kept

    @property
    def study_uid(self) -> str:
        return str(dcmread(self.files[0]).StudyInstanceUID)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    root = tmp_path_factory.mktemp("orthanc")
    sent = Kept()
    scp = StorageSCP("AINODE", "127.0.0.1", 0, sent, lambda calling: calling == "PACS")
    scp.start()
    orthanc = Orthanc(root, knows={"AINODE": scp.port, "GONE": free_port()})
    orthanc.start()
    try:
        phantom = make_phantom(PhantomSpec(shape=(SLICES, 32, 32), spacing=(25.0, 11.0, 11.0)))
        files = write_series(phantom, root / "ct")
        peer = Peer("PACS", "PACS", "127.0.0.1", orthanc.port)
        StorageSender("CT1").send(peer, files, lambda index, status, comment: None)
        yield Archive(peer, files, sent)
    finally:
        orthanc.stop()
        scp.stop(grace=1.0)


@pytest.mark.peer
def test_orthanc_says_what_it_holds(archive: Archive) -> None:
    (study,) = find_studies(archive.peer, ae_title="AINODE", StudyInstanceUID=archive.study_uid)
    assert (study.date, study.modalities, study.instances) == ("20250102", ("CT",), SLICES)
    assert related_instances(archive.peer, archive.study_uid, ae_title="AINODE") == SLICES
    assert related_instances(archive.peer, STUDY, ae_title="AINODE") is None
    found = find_instances(archive.peer, archive.study_uid, ae_title="AINODE")
    assert {i.sop_instance_uid for i in found} == {str(dcmread(f).SOPInstanceUID) for f in archive.files}
    assert {i.sop_class_uid for i in found} == {CT}


@pytest.mark.peer
@pytest.mark.parametrize("sop_classes", [{CT}, {""}], ids=["told", "not told"])
def test_orthanc_gives_a_study_over_our_association_as_the_bytes_that_it_has(
    archive: Archive, sop_classes: set[str]
) -> None:
    kept, progress = Kept(), list[SubOperations]()
    ended = get(
        archive.peer,
        archive.study_uid,
        sop_classes=sop_classes,
        ae_title="AINODE",
        receive=kept,
        on_progress=progress.append,
    )
    assert ended == Retrieved(SubOperations(completed=SLICES))
    assert kept.data_sets() == sorted(map(data_set, archive.files))
    assert {i.peer for i in kept} == {"PACS"}
    assert [counts.completed for counts in progress] == list(range(1, SLICES + 1))


@pytest.mark.peer
def test_orthanc_moves_a_study_to_us(archive: Archive) -> None:
    archive.sent.clear()
    progress: list[SubOperations] = []
    ended = move(archive.peer, archive.study_uid, destination="AINODE", ae_title="AINODE", on_progress=progress.append)
    assert ended == Retrieved(SubOperations(completed=SLICES))
    assert archive.sent.data_sets() == sorted(map(data_set, archive.files))
    assert progress[0].remaining > progress[-1].remaining


@pytest.mark.peer
@pytest.mark.parametrize("destination", ["NOBODY", "GONE"])
def test_orthanc_does_not_know_or_reach_the_destination(archive: Archive, destination: str) -> None:
    with pytest.raises(Rejected, match=f"may not know the AE title {destination}, or not reach it"):
        move(archive.peer, archive.study_uid, destination=destination, ae_title="AINODE")


@pytest.mark.peer
def test_a_failure_to_keep_what_orthanc_gives_is_told(archive: Archive) -> None:
    with pytest.raises(Rejected, match="C-GET with A702"):
        get(
            archive.peer,
            archive.study_uid,
            sop_classes={CT},
            ae_title="AINODE",
            receive=lambda incoming: Answer(0xA700, "full"),
        )


# --- an SCP that is told what to answer ----------------------------------------------------------------------------


@dataclass
class OddPacs:
    """Answers each C-FIND by its level, and each retrieval with ``retrieval``: a script of pynetdicom's yields."""

    matches: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    status: int = 0x0000
    retrieval: list[Any] = field(default_factory=list)
    models: tuple[str, ...] = (FIND, MOVE, GET)
    sends: bool = True
    asked: list[Dataset] = field(default_factory=list)
    peer: Peer = field(default_factory=lambda: Peer("PACS", "PACS", "127.0.0.1"))

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append(event.identifier)
        for values in self.matches.get(event.identifier.QueryRetrieveLevel, []):
            match = Dataset()
            for keyword, value in values.items():
                setattr(match, keyword, value)
            yield 0xFF00, match
        yield self.status, None

    def retrieve(self, event: evt.Event) -> Iterator[Any]:
        for step in self.retrieval:
            if step == "abort":
                event.assoc.abort()
                return
            yield step


@pytest.fixture
def odd_pacs() -> Iterator[Callable[..., OddPacs]]:
    servers = []

    def start(**said: Any) -> OddPacs:
        pacs = OddPacs(**said)
        ae = AE("PACS")
        for model in pacs.models:
            ae.add_supported_context(model)
        roles = {"scu_role": True, "scp_role": True} if pacs.sends else {}
        ae.add_supported_context(CT, **roles)
        handlers = [(evt.EVT_C_FIND, pacs.find), (evt.EVT_C_GET, pacs.retrieve), (evt.EVT_C_MOVE, pacs.retrieve)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        servers.append(server)
        pacs.peer = Peer("PACS", "PACS", "127.0.0.1", server.server_address[1], timeout_seconds=5)
        return pacs

    yield start
    for server in servers:
        server.shutdown()


SERIES = [{"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"1.2.3.{n}"} for n in (1, 2)]


def test_an_empty_count_of_the_study_is_made_up_of_those_of_its_series(odd_pacs: Callable[..., OddPacs]) -> None:
    counts = [series | {"NumberOfSeriesRelatedInstances": n} for series, n in zip(SERIES, ("7", "5"), strict=True)]
    pacs = odd_pacs(
        matches={"STUDY": [{"StudyInstanceUID": STUDY, "NumberOfStudyRelatedInstances": ""}], "SERIES": counts}
    )
    assert related_instances(pacs.peer, STUDY, ae_title="AINODE") == 12
    assert [asked.QueryRetrieveLevel for asked in pacs.asked] == ["STUDY", "SERIES"]


def test_a_peer_that_counts_nothing_is_counted(odd_pacs: Callable[..., OddPacs]) -> None:
    images = [{"SOPInstanceUID": f"1.2.3.4.{n}"} for n in range(3)]
    pacs = odd_pacs(matches={"STUDY": [{"StudyInstanceUID": STUDY}], "SERIES": SERIES, "IMAGE": images})
    assert related_instances(pacs.peer, STUDY, ae_title="AINODE") == 6
    below = [asked for asked in pacs.asked if asked.QueryRetrieveLevel == "IMAGE"]
    assert [(a.StudyInstanceUID, a.SeriesInstanceUID) for a in below] == [(STUDY, "1.2.3.1"), (STUDY, "1.2.3.2")]


def test_a_study_that_was_not_asked_for_counts_for_nothing(odd_pacs: Callable[..., OddPacs]) -> None:
    pacs = odd_pacs(matches={"STUDY": [{"StudyInstanceUID": "9.9", "NumberOfStudyRelatedInstances": "4"}]})
    assert related_instances(pacs.peer, STUDY, ae_title="AINODE") is None


def test_a_refused_query_gives_no_count_and_says_why_where_it_is_asked_for(odd_pacs: Callable[..., OddPacs]) -> None:
    for pacs, why in (
        (odd_pacs(status=0xA700), "out of resources"),
        (odd_pacs(models=(MOVE,)), "does not offer C-FIND"),
    ):
        assert related_instances(pacs.peer, STUDY, ae_title="AINODE") is None
        with pytest.raises(Rejected, match=why):
            find_studies(pacs.peer, ae_title="AINODE", StudyInstanceUID=STUDY)


def test_nobody_there() -> None:
    peer = Peer("PACS", "PACS", "127.0.0.1", free_port())
    for ask in (related_instances, find_instances):
        with pytest.raises(PeerUnreachable, match="refused"):
            ask(peer, STUDY, ae_title="AINODE")
    with pytest.raises(PeerUnreachable, match="refused"):
        move(peer, STUDY, destination="AINODE", ae_title="AINODE")


def test_an_unknown_destination_is_told_with_the_fix(odd_pacs: Callable[..., OddPacs]) -> None:
    pacs = odd_pacs(retrieval=[(None, None)])
    with pytest.raises(Rejected, match=r"A801, move destination unknown\. Tell .* AINODE with the host and port"):
        move(pacs.peer, STUDY, destination="AINODE", ae_title="AINODE")


def test_an_association_that_breaks_in_the_retrieval(odd_pacs: Callable[..., OddPacs]) -> None:
    pacs = odd_pacs(retrieval=[2, "abort"])
    with pytest.raises(PeerUnreachable, match="broke the association in the C-GET"):
        get(pacs.peer, STUDY, sop_classes={CT}, ae_title="AINODE", receive=Kept())


def test_what_could_not_be_kept_is_counted_and_named(odd_pacs: Callable[..., OddPacs]) -> None:
    sent = []
    for number in range(2):
        ds = objects.dataset(SOPInstanceUID=f"1.2.3.{number}")
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = objects.EXPLICIT
        sent.append((0xFF00, ds))
    pacs = odd_pacs(retrieval=[2, *sent])
    ended = get(
        pacs.peer,
        STUDY,
        sop_classes={CT},
        ae_title="AINODE",
        receive=lambda incoming: Answer(0xA700 if incoming.sop_instance_uid == "1.2.3.1" else 0, ""),
    )
    assert ended.counts == SubOperations(completed=1, failed=1)
    assert ended.failed_sop_instance_uids == ("1.2.3.1",)
    assert ended.problem.startswith("B000, some sub-operations failed")


def test_a_peer_that_does_not_send_over_our_association(
    odd_pacs: Callable[..., OddPacs], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The node's own option, which would hold for this SCP too: it shares the process.
    monkeypatch.setattr(_config, "UNRESTRICTED_STORAGE_SERVICE", False)
    pacs = odd_pacs(sends=False)
    with pytest.raises(Rejected, match="no role selection"):
        get(pacs.peer, STUDY, sop_classes={CT}, ae_title="AINODE", receive=Kept())
