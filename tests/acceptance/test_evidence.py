"""Evidence makes waiting short: a whole node with a quiet time of a minute, and DCMTK as the scanner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread

from node.domain.events import Event
from node.domain.ids import derived_uid
from node.domain.study import Study, StudyState
from node.store.database import Database
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests import objects, peers
from tests.orthanc import Orthanc
from tests.running import RunningNode, eventually, free_port

pytestmark = [pytest.mark.slow, pytest.mark.peer]

DX = "1.2.840.10008.5.1.4.1.1.1.1"
QUIET = 60.0
SLICES = 275

# Far below the quiet time of a minute, and room for whatever else the machine does; alone it takes 0.4 s.
PROMPT_SECONDS = 10.0


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """275 slices, small ones: it is their number that takes time to judge."""
    spec = PhantomSpec(shape=(SLICES, 64, 64), spacing=(1.0, 5.0, 5.0))
    return write_series(make_phantom(spec), tmp_path_factory.mktemp("phantom"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    running = RunningNode(tmp_path, pacs_port=free_port(), quiet=QUIET, routes=[])
    yield running.start()
    running.close()


def storescu(node: RunningNode, files: Sequence[Path]) -> subprocess.Popen[bytes]:
    """One association that sends the files and is released."""
    address = ["-aet", "CT1", "-aec", "AINODE", "127.0.0.1", str(node.port)]
    command = [str(peers.program("storescu")), *address, *map(str, files)]
    return subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, stdout=subprocess.DEVNULL)


def send(node: RunningNode, files: Sequence[Path]) -> None:
    assert storescu(node, files).wait(120) == 0


def the_study(node: RunningNode) -> tuple[Study, list[Event]]:
    """The only study, and what happened to it."""
    (study,) = eventually(lambda: node.rows()[0], "the study has a row", seconds=10)
    database = Database(f"sqlite:///{node.data_dir}/ainode.db")
    try:
        with database.read() as tx:
            current = tx.studies.get(study.study_uid)
            assert current is not None
            return current, tx.journal.of_study(study.study_uid)
    finally:
        database.close()


def event(node: RunningNode, step: str) -> Event:
    """The event of a step, once it has happened."""

    def found() -> Event | None:
        return next((e for e in the_study(node)[1] if e.step == step), None)

    event: Event = eventually(found, f"a study event {step}", seconds=10)
    return event


def seconds_to_settle(node: RunningNode) -> float:
    """From when the last instance was kept, which is before its C-STORE response, to the settling."""
    settled = event(node, "evidence")
    return (settled.at - the_study(node)[0].last_at).total_seconds()


def test_a_complete_phantom_settles_within_a_second(node: RunningNode, phantom: list[Path]) -> None:
    send(node, phantom)
    assert seconds_to_settle(node) < PROMPT_SECONDS
    detail = event(node, "evidence").detail
    assert detail["evidence"] == "association released, 1 series geometrically complete"
    assert detail["instances"] == SLICES
    (said,) = detail["series"]
    assert said.endswith(f": {SLICES} slices 1.00 mm apart")


def test_a_complete_scan_settles_within_a_second(node: RunningNode, shared_data: Path) -> None:
    send(node, sorted((shared_data / "ct-chest" / "fnndsc-chest-275").glob("*.dcm")))
    assert seconds_to_settle(node) < PROMPT_SECONDS


def test_a_series_with_a_hole_waits(node: RunningNode, phantom: list[Path]) -> None:
    send(node, [*phantom[:100], *phantom[101:]])
    wait = event(node, "wait")
    assert "hole at" in wait.detail["why"]
    with pytest.raises(AssertionError, match="not within"):
        eventually(lambda: the_study(node)[0].state is not StudyState.RECEIVING, "it settles", seconds=3)
    send(node, [phantom[100]])
    event(node, "evidence")
    study, _ = the_study(node)
    assert (study.revision, study.instances) == (1, SLICES)


def test_a_study_that_is_sent_by_two_associations_at_once_settles_once(node: RunningNode, phantom: list[Path]) -> None:
    senders = [storescu(node, part) for part in (phantom[:40], phantom[40:])]
    assert [sender.wait(120) for sender in senders] == [0, 0]
    assert seconds_to_settle(node) < PROMPT_SECONDS
    study, events = the_study(node)
    assert study.revision == 1
    assert [e.detail["instances"] for e in events if e.step == "evidence"] == [SLICES]


def test_the_same_bytes_again_open_no_revision_and_a_late_series_does(
    node: RunningNode, phantom: list[Path], tmp_path: Path
) -> None:
    send(node, phantom)
    event(node, "evidence")
    send(node, phantom)
    late = _another_series(phantom[:20], tmp_path / "late")
    send(node, late)

    def settled_again() -> bool:
        study, _ = the_study(node)
        return study.revision == 2 and study.state is not StudyState.RECEIVING

    eventually(settled_again, "the second revision settles", seconds=10)
    settled = [e.detail["instances"] for e in the_study(node)[1] if e.step == "evidence"]
    assert settled == [SLICES, SLICES + 20]


def test_what_the_archive_counts_is_evidence_where_there_is_no_geometry(tmp_path: Path) -> None:
    """Orthanc sends a part of a study of radiographs, then the rest."""
    (tmp_path / "orthanc").mkdir()
    orthanc = Orthanc(tmp_path / "orthanc")
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": orthanc.port, "receive": True, "query": True}
    node = RunningNode(tmp_path, pacs_port=orthanc.port, quiet=QUIET, routes=[], peers={"PACS": pacs})
    orthanc.start()
    try:
        node.start()
        ours = {"AET": "AINODE", "Host": "127.0.0.1", "Port": node.port}
        _send_json(orthanc, "PUT", "/modalities/AINODE", ours)
        for file in _radiographs(tmp_path, 6):
            _request(orthanc, "POST", "/instances", file.read_bytes())
        instances = [instance["ID"] for instance in orthanc.get("/instances?expand")]
        _send_json(orthanc, "POST", "/modalities/AINODE/store", instances[:4])
        assert event(node, "wait").detail["why"] == "PACS counts 6 instances, 4 of them are here"
        _send_json(orthanc, "POST", "/modalities/AINODE/store", instances)
        assert event(node, "evidence").detail["evidence"] == "PACS counts 6 instances, all of them are here"
    finally:
        node.close()
        orthanc.stop()


def _request(orthanc: Orthanc, method: str, path: str, body: bytes) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{orthanc.http_port}{path}", data=body, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def _send_json(orthanc: Orthanc, method: str, path: str, content: object) -> None:
    _request(orthanc, method, path, json.dumps(content).encode())


def _radiographs(folder: Path, count: int) -> list[Path]:
    names = [f"1.2.3.1.{number}" for number in range(1, count + 1)]
    return [
        objects.write(folder / f"{uid}.dcm", objects.incoming(SOPInstanceUID=uid, Modality="DX", SOPClassUID=DX))
        for uid in names
    ]


def _another_series(files: Sequence[Path], folder: Path) -> list[Path]:
    """The same slices as a series of its own in the same study."""
    folder.mkdir()
    copies = [Path(shutil.copy(file, folder)) for file in files]
    for number, copy in enumerate(copies):
        dataset = dcmread(copy)
        dataset.SeriesInstanceUID = derived_uid("late series")
        dataset.SOPInstanceUID = derived_uid("late series", str(number))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(copy)
    return copies
