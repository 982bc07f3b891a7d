"""A whole node beside a real Orthanc, which is asked for storage commitment as one peer and queried as another."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node.domain.delivery import Delivery, DeliveryState
from node.store.database import Database
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests.archive import Archive
from tests.manifests import STORAGE_COMMITMENT, made
from tests.objects import CT, EXPLICIT
from tests.orthanc import Orthanc
from tests.running import RunningNode, eventually
from tests.scu import Modality, store

pytestmark = [pytest.mark.peer, pytest.mark.slow]

PEERS = {"COMMITS": "commitment", "LISTS": "query", "WEB": "query"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node whose results of a small phantom went to all peers, and were verified there."""
    root = tmp_path_factory.mktemp("verified")
    (root / "orthanc").mkdir()
    route = {"name": "chest-ct", "pipeline": "lung_density_ct", "send_to": list(PEERS)}
    node = RunningNode(root, pacs_port=0, routes=[route], profiles={"few": {"from": "full", "captures": "none"}})
    orthanc = Orthanc(root / "orthanc", knows={"AINODE": node.port})
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": orthanc.port, "send": True, "profile": "few"}
    node.settings["peers"] = {
        "CT1": node.settings["peers"]["CT1"],
        "COMMITS": pacs | {"verify": "commitment"},
        "LISTS": pacs | {"verify": "query"},
        "WEB": {
            "profile": "few",
            "ae_title": "WEB",
            "host": "127.0.0.1",
            "send": True,
            "verify": "query",
            "stow": {"url": f"http://127.0.0.1:{orthanc.http_port}/dicom-web"},
        },
    }
    node.write_settings()
    orthanc.start()
    node.start()
    try:
        phantom = make_phantom(PhantomSpec(shape=(60, 128, 128), spacing=(5.0, 2.8, 2.8)))
        with Modality(node.port).association() as association:
            store(association, write_series(phantom, root / "ct"))
        eventually(lambda: verified(node), f"all is committed: {node.log[-3000:]}", seconds=60)
        yield node
    finally:
        node.close()
        orthanc.stop()


def verified(node: RunningNode) -> bool:
    states = Counter((d.peer, d.state.value) for d in node.rows()[2])
    return set(states) == {(peer, "committed") for peer in PEERS}


def by_name(node: RunningNode) -> dict[str, Any]:
    return {peer["name"]: peer for peer in node.get("/api/v1/status")["peers"]}


def test_all_that_was_delivered_is_committed_by_all(node: RunningNode) -> None:
    deliveries = node.rows()[2]
    assert len(deliveries) == len(PEERS) * len({d.sop_instance_uid for d in deliveries}) > 0
    assert {(d.missing, d.verify_at, d.reason) for d in deliveries} == {(0, None, None)}
    assert {d.transaction_uid is None for d in deliveries if d.peer != "COMMITS"} == {True}
    assert {d.transaction_uid is None for d in deliveries if d.peer == "COMMITS"} == {False}


def test_status_api_metrics_and_command_line_say_so(node: RunningNode) -> None:
    count = len(node.rows()[2]) // len(PEERS)
    for name, verify in PEERS.items():
        peer = by_name(node)[name]
        assert (peer["verify"], peer["unverified"], peer["deliveries"]["committed"]) == (verify, 0, count)
        assert f'ainode_deliveries{{peer="{name}",state="committed"}} {count}.0' in node.text("/metrics")
        assert f'ainode_deliveries_unverified{{peer="{name}"}} 0.0' in node.text("/metrics")
    said = subprocess.run(node.command("status"), capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"0 delivered and not verified, {count} committed, 0 dead" in said


def test_the_timeline_of_the_study_tells_it(node: RunningNode) -> None:
    study_uid = node.rows()[0][0].study_uid
    timeline = node.get(f"/api/v1/studies/{study_uid}")["timeline"]
    asked = [(e["step"], e["detail"]["peer"]) for e in timeline if e["subject"] == "commitment"]
    assert asked == [("request", "COMMITS"), ("report", "COMMITS")]
    commits = Counter(e["detail"]["peer"] for e in timeline if (e["subject"], e["step"]) == ("delivery", "commit"))
    assert commits == dict.fromkeys(PEERS, len(node.rows()[2]) // len(PEERS))


def test_the_archive_may_report_but_not_send(node: RunningNode) -> None:
    with Modality(node.port, ae_title="PACS").association() as association:
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    assert accepted == {STORAGE_COMMITMENT}


def test_killed_between_the_request_and_the_report(tmp_path: Path) -> None:
    """Stages that run alone: one asks and dies, the other hears the report."""
    archive = Archive().start()
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": archive.port, "send": True, "verify": "commitment"}
    node = RunningNode(tmp_path, pacs_port=0, routes=[], peers={"PACS": pacs},
                       deliver={"retry_seconds": 60})  # fmt: skip
    delivered(node, "2.25.1", "2.25.2", "2.25.3")
    try:
        node.start("deliver")
        (asked,) = eventually(lambda: archive.asked, "it asks")
        node.kill()
        for uid in ("2.25.1", "2.25.2"):
            archive.keep(made(SOPInstanceUID=uid))
        node.start("scp")
        assert archive.report(node.port, archive.information(asked)) == [0]
        states = {d.sop_instance_uid: (d.state.value, d.missing) for d in node.rows()[2]}
        assert states == {"2.25.1": ("committed", 0), "2.25.2": ("committed", 0), "2.25.3": ("pending", 1)}
    finally:
        node.close()
        archive.stop()


def delivered(node: RunningNode, *uids: str) -> None:
    """Write what a node has delivered before."""
    now = datetime.now(UTC)
    node.data_dir.mkdir()
    database = Database(f"sqlite:///{node.data_dir}/ainode.db")
    database.prepare()
    with database.write() as tx:
        tx.deliveries.add(
            Delivery(
                id=0,
                job_id="j1",
                study_uid="1.2",
                sop_instance_uid=uid,
                sop_class_uid=CT,
                transfer_syntax_uid=EXPLICIT,
                path=f"results/{uid}",
                peer="PACS",
                state=DeliveryState.DELIVERED,
                attempt=1,
                position=0,
                created_at=now,
                not_before=now,
                delivered_at=now,
                verify_at=now,
            )
            for uid in uids
        )
    database.close()
