"""Storage commitment, procedure steps and availability: whole nodes; Orthanc and pynetdicom are the ones who ask."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom.uid import generate_uid

from node.domain.study import StudyState
from tests import objects
from tests.manifests import (
    INSTANCE_AVAILABILITY,
    PROCEDURE_STEP,
    available,
    step_begun,
    step_ended,
)
from tests.orthanc import Orthanc
from tests.running import RunningNode, eventually, free_port
from tests.scu import Modality, committed, failed, store

pytestmark = pytest.mark.slow

QUIET = 60.0
NO_SUCH_INSTANCE = 0x0112
UIDS = [f"1.2.3.1.{number}" for number in range(1, 6)]


def files(folder: Path, uids: list[str] = UIDS) -> list[Path]:
    """Projection images: their geometry is no evidence of anything."""
    folder.mkdir(exist_ok=True)
    return [objects.write(folder / f"{u}.dcm", objects.incoming(SOPInstanceUID=u, Modality="CR")) for u in uids]


def running(root: Path, *, report_port: int | None = None, **peers: Any) -> RunningNode:
    ct1 = {"ae_title": "CT1", "host": "127.0.0.1", "receive": True, "port": report_port}
    return RunningNode(root, pacs_port=free_port(), quiet=QUIET, routes=[], peers={"CT1": ct1, **peers})


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningNode]:
    """A node that does not know where to call CT1; with as many receivers as its parameter says."""
    node = running(tmp_path)
    settings = yaml.safe_load(node.config.read_text())
    settings["node"]["receivers"] = getattr(request, "param", 1)
    node.config.write_text(yaml.safe_dump(settings))
    yield node.start()
    node.close()


def settled(node: RunningNode) -> Any:
    """What the study settled by, once it has, of all its events."""
    (study,) = eventually(lambda: node.rows()[0], "the study has a row", seconds=20)
    eventually(lambda: node.rows()[0][0].state is not StudyState.RECEIVING, "it settles", seconds=20)
    events = node.get(f"/api/v1/studies/{study.study_uid}")["timeline"]
    return next(e["detail"]["evidence"] for e in events if e["to_state"] == "settled")


def why_it_waits(node: RunningNode) -> str:
    def wait() -> str | None:
        found = [
            event["detail"]["why"]
            for study in node.rows()[0]
            for event in node.get(f"/api/v1/studies/{study.study_uid}")["timeline"]
            if event["step"] == "wait"
        ]
        return found[0] if found else None

    why: str = eventually(wait, "it says why it waits", seconds=20)
    assert node.rows()[0][0].state is StudyState.RECEIVING
    return why


@pytest.mark.parametrize("node", [1, 2], indirect=True, ids=["one receiver", "two receivers"])
def test_a_report_on_the_association_on_which_it_was_asked_for(node: RunningNode, tmp_path: Path) -> None:
    modality = Modality(node.port)
    with modality.association() as assoc:
        store(assoc, files(tmp_path / "cr"))
        assert modality.ask(assoc, "2.25.1", UIDS) == 0
        event_type, information = modality.report()
        store(assoc, files(tmp_path / "cr"))  # the association goes on
    assert event_type == 1
    assert information.TransactionUID == "2.25.1"
    assert committed(information) == set(UIDS)
    assert settled(node) == "storage commitment asked for 5 instances, all of them are here"
    events = [e for e in node.get("/api/v1/events") if e["subject"] == "commitment"]
    assert {(e["step"], e["subject_id"]) for e in events} == {(s, "2.25.1") for s in ("ask", "judge", "ack")}


def test_a_missing_instance_fails_and_the_study_waits(node: RunningNode, tmp_path: Path) -> None:
    modality = Modality(node.port)
    with modality.association() as assoc:
        store(assoc, files(tmp_path / "cr"))
        assert modality.ask(assoc, "2.25.2", [*UIDS, "1.2.3.1.99"]) == 0
        event_type, information = modality.report()
    assert event_type == 2
    assert committed(information) == set(UIDS)
    assert failed(information) == {"1.2.3.1.99": NO_SUCH_INSTANCE}
    assert why_it_waits(node) == "storage commitment asked for 6 instances, 5 of them are here"


def test_a_report_on_an_association_of_the_node(tmp_path: Path) -> None:
    port = free_port()
    node = running(tmp_path, report_port=port).start()
    try:
        modality = Modality(node.port)
        with modality.association() as assoc:
            store(assoc, files(tmp_path / "cr"))
            assert modality.ask(assoc, "2.25.3", UIDS) == 0
        eventually(lambda: "no connection" in node.log, "it finds nobody who listens")
        modality.status = 0x0110
        with modality.listening(port):
            eventually(lambda: modality.reports, "a report that is refused")
            modality.status = 0x0000
            eventually(lambda: len(modality.reports) > 1, "a report again")
            assert {committed(information) == set(UIDS) for _, information in modality.reports} == {True}

            def counted() -> bool:
                return _commitments(node) == {"reported": 1}

            eventually(counted, "it is counted as reported")
    finally:
        node.close()


def _commitments(node: RunningNode) -> dict[str, int]:
    token = (node.data_dir / "api.token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{node.api_port}/metrics", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = [line.split('"') for line in lines if line.startswith("ainode_commitments{")]
    return {state: int(float(value.split()[-1])) for _, state, value in samples if float(value.split()[-1])}


def test_killed_between_the_answer_and_the_report(tmp_path: Path) -> None:
    port = free_port()
    node = running(tmp_path, report_port=port).start()
    try:
        modality = Modality(node.port)
        with modality.association() as assoc:
            store(assoc, files(tmp_path / "cr"))
            assert modality.ask(assoc, "2.25.4", UIDS) == 0
            node.kill()
        assert modality.reports == []
        with modality.listening(port):
            node.start()
            event_type, information = modality.report()
        assert event_type == 1
        assert committed(information) == set(UIDS)
    finally:
        node.close()


def test_a_procedure_step_holds_the_study_until_it_is_completed(node: RunningNode, tmp_path: Path) -> None:
    modality, step = Modality(node.port), generate_uid()
    with modality.association() as assoc:
        assert assoc.send_n_create(step_begun("1.2.3"), PROCEDURE_STEP, step)[0].Status == 0
    with modality.association() as assoc:
        store(assoc, files(tmp_path / "cr"))
    assert why_it_waits(node) == "a performed procedure step is in progress"
    with modality.association() as assoc:
        assert assoc.send_n_set(step_ended(UIDS[:3], documents=UIDS[3:]), PROCEDURE_STEP, step)[0].Status == 0
    assert settled(node) == "procedure step completed with 5 instances, all of them are here"


def test_what_is_announced_before_it_comes(node: RunningNode, tmp_path: Path) -> None:
    modality = Modality(node.port)
    with modality.association() as assoc:
        status, _ = assoc.send_n_create(available("1.2.3", UIDS), INSTANCE_AVAILABILITY, generate_uid())
        assert status.Status == 0
    with modality.association() as assoc:
        store(assoc, files(tmp_path / "cr", UIDS[:4]))
    assert why_it_waits(node) == "availability notified of 5 instances, 4 of them are here"
    with modality.association() as assoc:
        store(assoc, files(tmp_path / "cr", UIDS[4:]))
    assert settled(node) == "availability notified of 5 instances, all of them are here"


@pytest.mark.long
@pytest.mark.peer
def test_orthanc_asks_for_commitment(tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    orthanc = Orthanc(tmp_path / "orthanc")
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": orthanc.port, "receive": True}
    node = running(tmp_path, PACS=pacs)
    orthanc.start()
    node.start()
    _put(orthanc, "/modalities/AINODE", ["AINODE", "127.0.0.1", node.port])
    try:
        stored = []
        for file in files(tmp_path / "cr"):
            stored.append(_post(orthanc, "/instances", file.read_bytes())["ID"])
        sending = {"Resources": stored, "Synchronous": True, "StorageCommitment": True}
        sent = _post(orthanc, "/modalities/AINODE/store", json.dumps(sending).encode())
        assert _answer(orthanc, sent["StorageCommitmentTransactionUID"])["Status"] == "Success"
        assert settled(node) == "storage commitment asked for 5 instances, all of them are here"
        references = [[objects.CT, uid] for uid in UIDS]
        whole = _ask(orthanc, references)
        assert _answer(orthanc, whole)["Status"] == "Success"
        partly = _ask(orthanc, [*references, [objects.CT, "1.2.3.1.99"], ["1.2.840.10008.5.1.4.1.1.4", UIDS[0]]])
        report = _answer(orthanc, partly)
        assert report["Status"] == "Failure"
        reasons = {f["SOPInstanceUID"]: f["FailureReason"] for f in report["Failures"]}
        assert reasons == {"1.2.3.1.99": NO_SUCH_INSTANCE, UIDS[0]: 0x0119}
        assert {s["SOPInstanceUID"] for s in report["Success"]} == set(UIDS[1:])
    finally:
        node.close()
        orthanc.stop()


def _ask(orthanc: Orthanc, references: list[list[str]]) -> str:
    instances = [{"SOPClassUID": c, "SOPInstanceUID": u} for c, u in references]
    body = json.dumps({"DicomInstances": instances, "Timeout": 30}).encode()
    return str(_post(orthanc, "/modalities/AINODE/storage-commitment", body)["ID"])


def _answer(orthanc: Orthanc, transaction_uid: str) -> Any:
    def answered() -> Any:
        report = orthanc.get(f"/storage-commitment/{transaction_uid}")
        return report if report["Status"] != "Pending" else None

    return eventually(answered, "Orthanc has its report")


def _put(orthanc: Orthanc, path: str, content: object) -> None:
    url, body = f"http://127.0.0.1:{orthanc.http_port}{path}", json.dumps(content).encode()
    urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT"), timeout=60).close()


def _post(orthanc: Orthanc, path: str, body: bytes) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{orthanc.http_port}{path}", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())
