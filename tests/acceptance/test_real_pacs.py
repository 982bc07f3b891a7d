"""The main job, judged from outside: DCMTK sends a real chest CT, Orthanc is the PACS, OHIF is what is seen."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from tests import judges, ohif, peers
from tests.orthanc import Orthanc
from tests.running import RunningNode, eventually, modalities

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

SLICES = 275


@dataclass(frozen=True)
class Round:
    """One study, sent and come back."""

    sources: list[Path]
    results: list[Path]
    orthanc: Orthanc
    findings: Any
    study_uid: str

    def first(self, modality: str) -> Dataset:
        """One result of a modality."""
        return next(d for p in self.results if (d := dcmread(p)).Modality == modality)


@pytest.fixture(scope="module")
def returned(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    """The CT lies in the PACS, as it does in a hospital; the node gets it by C-STORE and answers."""
    storescu = peers.program("storescu")
    series = shared_data / "ct-chest" / "fnndsc-chest-275"
    root = tmp_path_factory.mktemp("hospital")
    (root / "orthanc").mkdir()
    orthanc = Orthanc(root / "orthanc")
    orthanc.start()
    node = RunningNode(root, pacs_port=orthanc.port).start()
    try:
        for ae_title, called, port in (("CT1", "PACS", orthanc.port), ("CT1", "AINODE", node.port)):
            command = [storescu, "-aet", ae_title, "-aec", called, "--scan-directories", "127.0.0.1", str(port), series]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        eventually(node.all_delivered, "all is delivered", seconds=240)
        study_uid = node.rows()[0][0].study_uid
        (job,) = node.get(f"/api/v1/studies/{study_uid}")["jobs"]
        (root / "results").mkdir()
        results = orthanc.download(root / "results", leave_out=frozenset({"CT"}))
        yield Round(sorted(series.iterdir()), results, orthanc, job["findings"], study_uid)
    finally:
        node.close()
        orthanc.stop()


def test_report_segmentation_and_overlay_are_in_the_pacs_once(returned: Round) -> None:
    assert modalities(returned.results) == {"SR": 1, "SEG": 1, "OT": SLICES + 1}


def test_the_measures_are_plausible_for_this_patient(returned: Round) -> None:
    found = {
        region: {key: m["value"] for key, m in said["measurements"].items()}
        for region, said in returned.findings["regions"].items()
    }
    assert 2000 < found["lungs"]["volume_ml"] < 4000
    # A large opacity on the right: that side holds much less air.
    assert found["lung_right"]["volume_ml"] < 0.7 * found["lung_left"]["volume_ml"]
    assert -870 < found["lungs"]["mean_hu"] < -750
    assert 0 < found["lungs"]["laa950_percent"] < 10
    assert -950 < found["lungs"]["perc15_hu"] < -850


def test_dciodvfy_and_dsrdump_find_no_error(returned: Round, tmp_path: Path) -> None:
    overlays = [p for p in returned.results if p.name.startswith("OT")]
    others = [p for p in returned.results if not p.name.startswith("OT")]
    for path in [*others, *overlays[::50]]:
        assert judges.dciodvfy(path) == []
    for path in others:
        if dcmread(path, stop_before_pixels=True).Modality == "SR":
            assert judges.dsrdump(path) == []


def test_pixelmed_finds_no_error(returned: Round, tmp_path: Path) -> None:
    report = next(p for p in returned.results if p.name.startswith("SR"))
    assert judges.pixelmed(report, tmp_path) == []


def test_ohif_shows_the_report_the_segments_and_the_overlay(returned: Round, tmp_path: Path) -> None:
    numbers = {kind: int(returned.first(m).SeriesNumber) for kind, m in (("SR", "SR"), ("SEG", "SEG"), ("SC", "OT"))}
    seen = ohif.look(returned.study_uid, returned.orthanc.http_port, tmp_path, series=numbers)
    assert seen["errors"] == []
    shown = {d["modality"]: d for d in seen["displaySets"]}
    assert not any(d["unsupported"] for d in seen["displaySets"])
    assert shown["CT"]["images"] == SLICES
    assert shown["OT"]["images"] == SLICES + 1  # the summary is first
    assert seen["report"]["measurements"]
    assert all(m["loaded"] for m in seen["report"]["measurements"])
    assert {"Left lung", "Right lung", "Low attenuation (below -950 HU)"} <= set(seen["segments"])
    assert seen["after"] > seen["before"]
