"""``ainode pull`` and ``ainode echo`` against Orthanc, with a node running and without one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread

from node.dicom.scu import StorageSender
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.peer import Peer
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests.orthanc import Orthanc
from tests.running import RunningNode, eventually

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(300)]

SLICES = 20


@dataclass(frozen=True)
class Site:
    """Orthanc with one study, and a node that is not started yet."""

    node: RunningNode
    orthanc: Orthanc
    files: list[Path]
    study_uid: str

    def pull(self, *words: str, source: str = "PACS") -> subprocess.CompletedProcess[str]:
        """``ainode pull`` of the study."""
        return self.ainode("pull", "--from", source, "--study", self.study_uid, *words)

    def ainode(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.node.command(*words), capture_output=True, text=True, timeout=120, check=False)

    def set_peer(self, **changes: bool) -> None:
        """Change what the node's settings say of the PACS."""
        settings = yaml.safe_load(self.node.config.read_text())
        settings["peers"]["PACS"].update(changes)
        self.node.config.write_text(yaml.safe_dump(settings))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    node = RunningNode(tmp_path, pacs_port=1, routes=[])
    (tmp_path / "orthanc").mkdir()
    orthanc = Orthanc(tmp_path / "orthanc", knows={"AINODE": node.port})
    settings = yaml.safe_load(node.config.read_text())
    settings["peers"]["PACS"]["port"] = orthanc.port
    node.config.write_text(yaml.safe_dump(settings))
    orthanc.start()
    try:
        phantom = make_phantom(PhantomSpec(shape=(SLICES, 64, 64), spacing=(15.0, 5.6, 5.6)))
        files = write_series(phantom, tmp_path / "ct")
        pacs = Peer("PACS", "PACS", "127.0.0.1", orthanc.port)
        StorageSender("CT1").send(pacs, files, lambda index, status, comment: None)
        yield Site(node, orthanc, files, str(dcmread(files[0]).StudyInstanceUID))
    finally:
        node.close()
        orthanc.stop()


def data_sets(paths: list[Path]) -> list[bytes]:
    contents = [path.read_bytes() for path in paths]
    return sorted(content[split(content[:HEAD_LIMIT]).offset :] for content in contents)


def kept(site: Site) -> list[Path]:
    return list((site.node.data_dir / "instances" / site.study_uid).rglob("*.dcm"))


def test_without_a_node_the_study_comes_into_the_data_directory_and_the_next_start_settles_it(site: Site) -> None:
    done = site.pull("--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["operation"], said["held"], said["here"], said["problem"]) == ("get", SLICES, SLICES, "")
    assert said["counts"] == {"remaining": 0, "completed": SLICES, "failed": 0, "warning": 0}
    assert data_sets(kept(site)) == data_sets(site.files)
    assert len(site.node.kept()) == SLICES
    again = site.pull()
    assert again.returncode == 0
    assert f"{SLICES} of {SLICES} instances are here (20250102, CT, CT chest phantom" in again.stdout
    site.node.start()
    eventually(lambda: site.node.rows()[0][0].state.value == "routed", "the study settles")


def test_with_a_node_running_it_is_the_node_that_receives(site: Site) -> None:
    site.node.start()
    done = site.pull("--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["operation"], said["held"], said["here"]) == ("move", SLICES, SLICES)
    assert data_sets(kept(site)) == data_sets(site.files)
    refused = site.pull("--with", "get")
    assert refused.returncode == 1
    assert "a node is running" in refused.stderr
    assert "Give move" in refused.stderr


def test_what_is_wrong_is_named_with_the_fix(site: Site) -> None:
    assert "AE@host:port, or one of: PACS" in site.pull(source="ARCHIVE").stderr
    nothing = site.ainode("pull", "--from", "PACS", "--study", "1.2.3")
    assert nothing.returncode == 1
    assert "PACS holds no study 1.2.3" in nothing.stderr
    assert "--study" in site.ainode("pull", "--from", "PACS", "--study", "../x").stderr
    assert site.pull("--with", "fetch").returncode == 2
    nobody = site.pull("--with", "move")
    assert nobody.returncode == 1
    assert "not reach it" in nobody.stderr
    site.set_peer(receive=False)
    unwelcome = site.pull("--with", "move")
    assert unwelcome.returncode == 1
    assert "none with the AE title PACS has receive: true" in unwelcome.stderr
    site.orthanc.stop()
    gone = site.pull()
    assert gone.returncode == 1
    assert "Connection refused" in gone.stderr
    assert site.ainode("echo", "--to", "PACS").returncode == 1


def test_echo(site: Site) -> None:
    done = site.ainode("echo", "--to", f"PACS@127.0.0.1:{site.orthanc.port}")
    assert done.returncode == 0, done.stderr
    assert "PACS answered in" in done.stdout


def test_a_full_disk_here_is_told_as_ours(site: Site) -> None:
    settings = yaml.safe_load(site.node.config.read_text())
    settings["node"]["min_free_mb"] = 1 << 30
    site.node.config.write_text(yaml.safe_dump(settings))
    done = site.pull()
    assert done.returncode == 1
    assert f"{SLICES} instances could not be kept here: A700 " in done.stderr
    assert not kept(site)
