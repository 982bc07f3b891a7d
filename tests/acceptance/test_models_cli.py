"""Models on the command line and in a running node, as an administrator works with them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.dicom.scu import StorageSender
from node.dicom.sink import Sink
from node.domain.job import JobState
from node.domain.peer import Peer
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests.bundles import segmentation_config, write_version
from tests.forked import Forked
from tests.running import RunningNode, eventually, free_port

pytestmark = pytest.mark.slow

INSTALLED = "lung_density_ct@1.0.0"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    made = RunningNode(tmp_path, pacs_port=free_port())
    yield made
    made.close()


class Administrator:
    """Somebody at the command line."""

    def __init__(self, forked: Forked) -> None:
        self._forked = forked

    def types(self, node: RunningNode, *words: str) -> subprocess.CompletedProcess[str]:
        return self._forked(node.config, *words)

    def reads(self, node: RunningNode, *words: str) -> Any:
        done = self.types(node, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def admin() -> Iterator[Administrator]:
    with Forked() as forked:
        yield Administrator(forked)


def test_a_process_of_its_own_prints_the_same(node: RunningNode, admin: Administrator) -> None:
    for words in (("models", "list", "--json"), ("models", "show", "nothing")):
        done = subprocess.run(node.command(*words), capture_output=True, text=True, timeout=240, check=False)
        forked = admin.types(node, *words)
        assert (forked.returncode, forked.stderr) == (done.returncode, done.stderr)
        if done.returncode == 0:
            assert json.loads(forked.stdout) == json.loads(done.stdout)


def test_the_installed_version_leads_by_default(node: RunningNode, admin: Administrator) -> None:
    (model,) = admin.reads(node, "models", "list")
    assert model["rollout"]["champion"]["name"] == "lung_density_ct"
    assert (model["versions"][0]["kind"], model["versions"][0]["state"]) == ("installed", "ready")
    assert "champion" in admin.types(node, "models", "list").stdout
    assert admin.reads(node, "pipelines", "list")[0]["model"]["version"] == "1.0.0"
    assert admin.reads(node, "pipelines", "show", "lung_density_ct")["routes"] == ["chest-ct"]
    assert admin.reads(node, "models", "audit") == []


def test_without_a_running_node_the_command_tries_the_version_itself(node: RunningNode, admin: Administrator) -> None:
    refused = admin.types(node, "models", "activate", INSTALLED, "--why", "a trial")
    assert refused.returncode == 1
    assert "has no golden case" in refused.stderr
    passed = admin.types(node, "models", "activate", INSTALLED, "--why", "a trial", "--without-golden")
    assert passed.returncode == 0, passed.stderr
    assert "passed on cpu" in passed.stdout
    entry = admin.reads(node, "models", "audit")[0]
    assert (entry["change"], entry["why"], entry["detail"]["golden case"]) == ("activated", "a trial", "waived")
    assert entry["who"]
    nothing = admin.types(node, "models", "rollback", "lung_density_ct", "--why", "back")
    assert nothing.returncode == 1
    assert "has no former champion" in nothing.stderr


def test_a_source_that_is_no_bundle_is_told(node: RunningNode, admin: Administrator, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = admin.types(node, "models", "add", str(tmp_path / "empty"), "--version", "1", "--why", "a test")
    assert done.returncode == 1
    assert done.stderr.startswith("ainode: ")
    assert not list((tmp_path / "var" / "models").glob("empty"))


@pytest.mark.long
def test_a_running_node_tries_versions_and_replays_studies(tmp_path: Path, admin: Administrator) -> None:
    pacs = Sink("PACS", free_port(), tmp_path / "pacs")
    pacs.start()
    node = RunningNode(tmp_path, pacs_port=pacs.port).start()
    try:
        passed = admin.reads(node, "models", "activate", INSTALLED, "--why", "a trial", "--without-golden")
        assert passed["state"] == "passed"
        assert passed["owner"] is None
        files = write_series(make_phantom(PhantomSpec(shape=(60, 128, 128), spacing=(5.0, 2.8, 2.8))), tmp_path / "ct")
        caller = Peer("node", "AINODE", "127.0.0.1", node.port)
        StorageSender("CT1").send(caller, files, lambda index, status, comment: None)
        eventually(node.all_delivered, "the results are delivered", seconds=240)
        ((study,), (first,), before) = node.rows()
        job = admin.reads(node, "replay", study.study_uid, "--model", INSTALLED, "--why", "once more")
        assert (job["role"], job["send_to"]) == ("replay", [])
        done = eventually(lambda: [j for j in node.rows()[1] if j.id == job["id"] and j.finished_at], "the replay ends")
        assert done[0].state is JobState.SUCCEEDED
        assert done[0].findings == first.findings
        assert len(node.rows()[2]) == len(before)
        loud = admin.reads(node, "replay", study.study_uid, "--model", INSTALLED, "--why", "for the PACS", "--send")
        assert loud["send_to"] == ["PACS"]
        eventually(lambda: len(node.rows()[2]) == 2 * len(before) and node.all_delivered(), "the replay is sent")
    finally:
        node.close()
        pacs.stop()


_LOUD = """
import torch

class Loud(torch.nn.Conv3d):
    def __init__(self, **told):
        super().__init__(**told)
        print("As some networks of MONAI do.")
"""


def test_what_a_network_prints_is_no_part_of_the_answer(
    node: RunningNode, admin: Administrator, tmp_path: Path
) -> None:
    config = segmentation_config()
    config["network_def"]["_target_"] = "scripts.loud.Loud"
    made = write_version(tmp_path / "made", config, scripts={"scripts/loud.py": _LOUD})
    side = ("--side-file", str(made / "ainode.yaml"))
    words = ("models", "add", str(made / "bundle"), "--name", "ball", "--version", "1", *side, "--why", "a test")
    admin.reads(node, *words, "--trust-code")
    spec = PhantomSpec(shape=(24, 32, 32), spacing=(12.0, 11.0, 11.0))
    write_series(make_phantom(spec), tmp_path / "ct")
    done = admin.types(node, "run", "ball@1", str(tmp_path / "ct"), "--out", str(tmp_path / "out"), "--json")
    assert json.loads(done.stdout)["outcome"] == "succeeded"
    assert "As some networks of MONAI do." in done.stderr


@pytest.mark.long
@pytest.mark.timeout(900)  # torch and MONAI are imported by three processes
def test_a_bundle_from_the_first_look_to_a_champion_that_breaks(tmp_path: Path, admin: Administrator) -> None:
    """As docs/models.md says: look, golden case, activate, a second version; its file breaks, the first one goes on."""
    made = write_version(tmp_path / "made", segmentation_config())
    common = (str(made / "bundle"), "--name", "ball", "--side-file", str(made / "ainode.yaml"), "--why", "a test")
    golden = tmp_path / "golden"
    files = write_series(make_phantom(PhantomSpec(shape=(24, 64, 64), spacing=(12.0, 5.6, 5.6))), golden / "input")
    pacs = Sink("PACS", free_port(), tmp_path / "pacs")
    pacs.start()
    route = {"name": "balls", "when": {"Modality": "CT"}, "pipeline": "ball", "send_to": ["PACS"]}
    node = RunningNode(tmp_path, pacs_port=pacs.port, routes=[route])
    try:
        admin.reads(node, "models", "add", *common, "--version", "look")
        looked = admin.reads(node, "run", "ball@look", str(golden / "input"), "--out", str(tmp_path / "out"))
        assert looked["findings"]["regions"]["ball"]["measurements"]["volume_ml"]["value"] > 0
        (golden / "expected.json").write_text(json.dumps(looked))
        admin.reads(node, "models", "add", *common, "--version", "1.0", "--golden", str(golden))
        looked["tolerance"] = 0.02
        (golden / "expected.json").write_text(json.dumps(looked))
        second = admin.reads(node, "models", "add", *common, "--version", "2.0", "--golden", str(golden))
        for version in ("1.0", "2.0"):
            passed = admin.reads(node, "models", "activate", f"ball@{version}", "--why", "a test")
            assert list(passed["stages"]) == ["verify", "load", "warm up", "golden case"]
        weights = node.data_dir / second["path"] / "bundle" / "models" / "model.pt"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        node.start()
        StorageSender("CT1").send(Peer("n", "AINODE", "127.0.0.1", node.port), files, lambda index, status, text: None)
        eventually(node.all_delivered, "the results are delivered", seconds=240)
        jobs = {j.model.version: j for j in node.rows()[1]}
        assert (jobs["2.0"].state, jobs["1.0"].state) == (JobState.CANCELLED, JobState.SUCCEEDED)
        assert "bundle/models/model.pt: has changed since registration" in (jobs["2.0"].reason or "")
        assert node.status("/readyz") == 503
        assert "runs in its place" in node.get("/api/v1/status")["problems"][0]
        sent = [dcmread(path, stop_before_pixels=True) for path in (tmp_path / "pacs").iterdir()]
        digest = jobs["1.0"].model.digest
        assert {(str(d.SoftwareVersions[0]), str(d.SoftwareVersions[1])) for d in sent} == {
            ("ball@1.0", f"sha256:{digest[:12]}")
        }
        assert {str(d.Modality) for d in sent} == {"SR", "SEG", "OT"}
    finally:
        node.close()
        pacs.stop()
