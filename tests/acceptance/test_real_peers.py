"""Real senders before a receiver as a site runs it: Orthanc, moved and sending, DCMTK's tools, stock pynetdicom."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE, StoragePresentationContexts, build_context

from node.dicom.scu import StorageSender
from node.dicom.send_dir import collect
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.peer import Peer
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests import objects, peers
from tests.orthanc import Orthanc
from tests.running import RunningNode, eventually

pytestmark = [pytest.mark.peer, pytest.mark.slow]

SLICES = 12
# What storescu offers beside the uncompressed transfer syntaxes, and first; the last six are of videos.
PROPOSALS = [
    "-x=",
    "-xe",
    "-xb",
    "-xi",
    "-xs",
    "-xy",
    "-xx",
    "-xv",
    "-xw",
    "-xt",
    "-xu",
    "-xr",
    "-xd",
    "-xm",
    "-xh",
    "-xn",
    "-xl",
    "-x4",
    "-x5",
]


@dataclass(frozen=True)
class Site:
    """A receiver, and Orthanc with one study."""

    node: RunningNode
    orthanc: Orthanc
    files: list[Path]

    @property
    def study_uid(self) -> str:
        return str(dcmread(self.files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)

    def kept(self) -> list[Path]:
        return list((self.node.data_dir / "instances").rglob("*.dcm"))

    def dcmtk(self, program: str, port: int, called: str, *options: str, send: Path | None = None) -> str:
        """Run one of DCMTK's tools as CT1; gives what it said."""
        command = [peers.program(program), "-v", "-aet", "CT1", "-aec", called, *options, "127.0.0.1", str(port)]
        command += [send] if send else []
        environment = {**os.environ, "TCP_NODELAY": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        return f"{done.stdout}{done.stderr}\nexit code {done.returncode}"


@pytest.fixture(scope="module")
def orthanc_and_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, list[Path]]]:
    root = tmp_path_factory.mktemp("orthanc")
    orthanc = Orthanc(root)
    orthanc.start()
    try:
        phantom = make_phantom(PhantomSpec(shape=(SLICES, 64, 64), spacing=(25.0, 5.6, 5.6)))
        files = write_series(phantom, root / "ct")
        peer = Peer("PACS", "PACS", "127.0.0.1", orthanc.port)
        StorageSender("CT1").send(peer, files, lambda index, status, comment: None)
        yield orthanc, files
    finally:
        orthanc.stop()


@pytest.fixture
def site(orthanc_and_study: tuple[Orthanc, list[Path]], tmp_path: Path) -> Iterator[Site]:
    orthanc, files = orthanc_and_study
    node = RunningNode(tmp_path, pacs_port=orthanc.port, routes=[]).start("scp")
    ask(orthanc, "PUT", "/modalities/AINODE", {"AET": "AINODE", "Host": "127.0.0.1", "Port": node.port})
    yield Site(node, orthanc, files)
    node.close()


def ask(orthanc: Orthanc, method: str, path: str, content: object) -> Any:
    body = json.dumps(content).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{orthanc.http_port}{path}", data=body, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or "null")


def data_set(path: Path) -> bytes:
    content = path.read_bytes()
    return content[split(content[:HEAD_LIMIT]).offset :]


def came_as_orthanc_has_them(site: Site) -> bool:
    held = sorted(data_set(path) for path in site.files)
    return sorted(data_set(path) for path in site.kept()) == held and len(site.node.kept()) == SLICES


def test_findscu_counts_and_movescu_moves_a_study_from_orthanc_to_us(site: Site) -> None:
    study = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={site.study_uid}"]
    counted = site.dcmtk("findscu", site.orthanc.port, "PACS", *study, "-k", "NumberOfStudyRelatedInstances")
    assert re.search(rf"\[{SLICES} *\].*NumberOfStudyRelatedInstances", counted), counted
    moved = site.dcmtk("movescu", site.orthanc.port, "PACS", "-aem", "AINODE", *study)
    assert "exit code 0" in moved, moved
    eventually(lambda: came_as_orthanc_has_them(site), "all came, and has rows")


def test_orthanc_echoes_and_sends(site: Site) -> None:
    ask(site.orthanc, "POST", "/modalities/AINODE/echo", {})
    (study,) = site.orthanc.get("/studies")
    told = ask(site.orthanc, "POST", "/modalities/AINODE/store", {"Resources": [study], "Synchronous": True})
    assert (told["InstancesCount"], told["FailedInstancesCount"]) == (SLICES, 0)
    eventually(lambda: came_as_orthanc_has_them(site), "all came, and has rows")
    eventually(lambda: site.node.rows()[0][0].state.value != "receiving", "the study settles")


def test_dcmsend_sends_a_folder(site: Site) -> None:
    said = site.dcmtk("dcmsend", site.node.port, "AINODE", "+sd", send=site.files[0].parent)
    assert "exit code 0" in said, said
    eventually(lambda: len(site.node.kept()) == SLICES, "all came, and has rows")


def test_echoscu_echoes(site: Site) -> None:
    assert "exit code 0" in site.dcmtk("echoscu", site.node.port, "AINODE")


@pytest.mark.filterwarnings("ignore")  # of pydicom, of odd values in the published files
def test_storescu_with_whatever_it_can_propose(site: Site, shared_data: Path) -> None:
    """Every option offers 120 presentation contexts and more; what can be sent by one of them comes in as sent."""
    files = collect(shared_data / "syntaxes" / "ctimage-all-ts").files
    for option in PROPOSALS:
        said = site.dcmtk("storescu", site.node.port, "AINODE", option, "-nh", "+sd", send=files[0].parent)
        assert "Association Accepted" in said, f"{option}: {said}"
        assert "Refused" not in said, f"{option}: {said}"
    stored = {split(path.read_bytes()[:HEAD_LIMIT]).transfer_syntax_uid for path in site.kept()}
    aside = (site.node.data_dir / "aside").rglob("*.dcm")
    stored |= {split(path.read_bytes()[:HEAD_LIMIT]).transfer_syntax_uid for path in aside}
    assert len(stored) >= 12, stored
    assert "Traceback" not in site.node.log


@pytest.mark.filterwarnings("ignore")  # of pydicom, of odd values in the published files
def test_stock_pynetdicom_sends(site: Site) -> None:
    ae = AE("CT1")
    ae.requested_contexts = [
        build_context(str(of.abstract_syntax), objects.EXPLICIT) for of in StoragePresentationContexts[:127]
    ]
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", site.node.port, ae_title="AINODE")
    assert association.is_established
    try:
        assert association.send_c_echo().Status == 0
        assert [association.send_c_store(path).Status for path in site.files] == [0] * SLICES
    finally:
        association.release()
    eventually(lambda: len(site.node.kept()) == SLICES, "all came, and has rows")
