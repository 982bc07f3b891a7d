"""A whole node, and a PACS that sends a study again with another patient; and who is told when nothing came of one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from node.dicom.sink import Sink
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests import peers
from tests.running import RunningNode, eventually, free_port

pytestmark = [pytest.mark.peer, pytest.mark.slow]


@dataclass(frozen=True)
class Site:
    """A node with two receivers, an archive and a viewer, each with a profile of its own."""

    node: RunningNode
    folders: dict[str, Path]

    def send(self, files: list[Path], calling: str) -> None:
        """By DCMTK's storescu, on one association."""
        command = [peers.program("storescu"), "-aet", calling, "-aec", "AINODE", "127.0.0.1", str(self.node.port)]
        subprocess.run([*command, *files], check=True, capture_output=True, timeout=120)

    def results(self, name: str, study_uid: str) -> list[Dataset]:
        """What a peer has of a study."""
        headers = [dcmread(path, stop_before_pixels=True) for path in self.folders[name].glob("*.dcm")]
        return [header for header in headers if header.StudyInstanceUID == study_uid]

    def ended(self, study_uid: str, revision: int) -> None:
        """Wait until a revision is done, and everything is delivered."""

        def done() -> bool:
            _, jobs, deliveries = self.node.rows()
            of_study = [j for j in jobs if j.study_uid == study_uid]
            owed = [d for d in deliveries if d.study_uid == study_uid]
            return (
                any(j.revision == revision and j.finished_at for j in of_study)
                and bool(owed)
                and all(d.state.value == "delivered" for d in owed)
                and all(j.noticed or j.state.value == "succeeded" for j in of_study)
            )

        eventually(done, f"revision {revision} is delivered", seconds=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("PACS", "VIEWER")}
    sinks = [Sink(name, free_port(), folder) for name, folder in folders.items()]
    for sink in sinks:
        sink.start()
    node = RunningNode(tmp_path_factory.mktemp("node"), pacs_port=sinks[0].port, node={"receivers": 2})
    host = {"host": "127.0.0.1", "send": True}
    node.settings["peers"]["VIEWER"] = {"ae_title": "VIEWER", "port": sinks[1].port, "profile": "german", **host}
    node.settings["profiles"] = {"german": {"from": "sr+sc", "language": "de"}}
    node.settings["routes"][0]["send_to"] = ["PACS", "VIEWER"]
    node.write_settings()
    node.start()
    yield Site(node, folders)
    node.close()
    for sink in sinks:
        sink.stop()


def phantom(folder: Path, seed: str) -> list[Path]:
    spec = PhantomSpec(shape=(60, 96, 96), spacing=(5.0, 3.6, 3.6), seed=seed)
    return write_series(make_phantom(spec), folder)


def test_a_study_that_comes_again_of_another_patient(site: Site, tmp_path: Path) -> None:
    files = phantom(tmp_path, "corrected")
    study_uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    site.send(files, "CT1")
    site.ended(study_uid, 1)
    kept = {path: path.read_bytes() for path in (site.node.data_dir / "instances" / study_uid).rglob("*.dcm")}
    first = {name: {str(r.SOPInstanceUID) for r in site.results(name, study_uid)} for name in site.folders}
    assert all(first.values())
    assert first["PACS"].isdisjoint(first["VIEWER"])

    changes = ["-m", "PatientID=R-1", "-m", "PatientName=Right^Rita", "-i", "AccessionNumber=A-2"]
    modify = [peers.program("dcmodify"), "--no-backup", *changes]
    subprocess.run([*modify, *files], check=True, capture_output=True, timeout=60)
    for part in (files[:20], files[20:]):
        site.send(part, "PACS")
    site.ended(study_uid, 2)

    assert {path: path.read_bytes() for path in kept} == kept
    detail = site.node.get(f"/api/v1/studies/{study_uid}")
    assert (detail["study"]["revision"], detail["study"]["instances"]) == (2, 60)
    assert sorted(job["revision"] for job in detail["jobs"]) == [1, 2]
    assert {aside["reason"] for aside in detail["asides"]} == {"correction"}
    (correction,) = [e for e in detail["timeline"] if e["step"] == "correction"]
    assert correction["detail"]["what"].startswith("PatientName, PatientID, AccessionNumber: ")
    for name, earlier in first.items():
        later = [r for r in site.results(name, study_uid) if r.SOPInstanceUID not in earlier]
        assert {(str(r.PatientName), r.PatientID, r.AccessionNumber) for r in later} == {("Right^Rita", "R-1", "A-2")}
        assert any(r.Modality == "SR" for r in later)


def test_who_wants_to_know_is_told_that_the_ai_did_not_run(site: Site, tmp_path: Path) -> None:
    files = phantom(tmp_path, "hole")
    study_uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    site.send(files[:30] + files[31:], "CT1")
    site.ended(study_uid, 1)
    (notice,) = site.results("VIEWER", study_uid)
    assert notice.PatientID == dcmread(files[0], stop_before_pixels=True).PatientID
    assert notice.SeriesDescription.startswith("AI ")
    assert site.results("PACS", study_uid) == []
    detail = site.node.get(f"/api/v1/studies/{study_uid}")
    assert [job["state"] for job in detail["jobs"]] == ["refused"]
    assert [e["detail"]["peers"] for e in detail["timeline"] if e["step"] == "notice"] == [["VIEWER"]]
