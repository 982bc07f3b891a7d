"""The command line, as an administrator types it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from node.app import only_one
from node.dicom.sink import Sink
from node.domain.instance import Aside, AsideReason
from node.store.database import Database
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests.running import free_port


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_series(make_phantom(PhantomSpec(shape=(60, 128, 128), spacing=(5.0, 2.8, 2.8))), folder)
    (folder / "notes.txt").write_text("no DICOM file")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.yaml"
    settings = {
        "node": {"data_dir": str(tmp_path / "var")},
        "peers": {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port(), "send": True}},
        "routes": [
            {"name": "chest", "when": {"Modality": "CT"}, "pipeline": "lung_density_ct", "send_to": ["PACS"]},
            {"name": "brain", "when": {"Modality": "MR"}, "pipeline": "lung_density_ct"},
        ],
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def ainode(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node", "--config", str(config), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_run_prints_the_findings_and_writes_the_objects(config: Path, study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = ainode(config, "run", "lung_density_ct", str(study), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["outcome"] == "succeeded"
    assert said["findings"]["regions"]["lungs"]["measurements"]["volume_ml"]["unit"] == "ml"
    assert {Path(p) for p in said["results"]} == set(out.glob("*.dcm"))


def test_run_says_what_is_wrong(config: Path, study: Path, tmp_path: Path) -> None:
    unknown = ainode(config, "run", "nothing", str(study), "--out", str(tmp_path / "out"))
    assert unknown.returncode == 1
    assert "no pipeline is named 'nothing'" in unknown.stderr
    assert "lung_density_ct" in unknown.stderr
    (tmp_path / "empty").mkdir()
    empty = ainode(config, "run", "lung_density_ct", str(tmp_path / "empty"), "--out", str(tmp_path / "out"))
    assert empty.returncode == 1
    assert "holds 0 studies" in empty.stderr


def test_routes_are_explained(config: Path, study: Path) -> None:
    said = json.loads(ainode(config, "routes", "explain", str(study), "--json").stdout)
    assert [(r["route"], r["matched"]) for r in said] == [("chest", True), ("brain", False)]
    assert said[1]["series"][0]["reason"] == "Modality is CT, wanted Modality MR"
    assert "takes it" in ainode(config, "routes", "explain", str(study)).stdout


def test_send_to_a_name_or_an_address(config: Path, study: Path, tmp_path: Path) -> None:
    sink = Sink("PACS", yaml.safe_load(config.read_text())["peers"]["PACS"]["port"], tmp_path / "pacs")
    sink.start()
    try:
        by_name = ainode(config, "send", str(study), "--to", "PACS")
        assert by_name.returncode == 0, by_name.stderr
        assert "60 of 60 accepted by PACS, 1 files were no DICOM files" in by_name.stdout
        assert ainode(config, "send", str(study), "--to", f"PACS@127.0.0.1:{sink.port}").returncode == 0
    finally:
        sink.stop()
    down = ainode(config, "send", str(study), "--to", "PACS")
    assert down.returncode == 1
    assert "0 of 60 accepted" in down.stdout
    assert "refused" in down.stderr
    wrong = ainode(config, "send", str(study), "--to", "ARCHIVE")
    assert wrong.returncode == 1
    assert "AE@host:port" in wrong.stderr
    assert "PACS" in wrong.stderr


def test_lists_are_empty_before_anything_came(config: Path) -> None:
    assert json.loads(ainode(config, "status", "--json").stdout)["instances"] == 0
    for command in ("studies", "jobs", "deliveries"):
        assert json.loads(ainode(config, command, "--json").stdout) == []
    assert ainode(config, "jobs", "--state", "asleep").returncode == 2


def test_the_token_stays_until_it_is_rotated(config: Path) -> None:
    first = ainode(config, "token").stdout
    assert len(first.strip()) >= 32
    assert ainode(config, "token").stdout == first
    assert ainode(config, "token", "--rotate").stdout != first
    assert (config.parent / "var" / "api.token").stat().st_mode & 0o077 == 0


def test_a_wrong_setting_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("assemble:\n  quiet_secs: 5\n")
    done = ainode(path, "check-config")
    assert done.returncode == 1
    assert "line 2" in done.stderr
    assert "quiet_seconds" in done.stderr


def test_the_example_settings_are_valid() -> None:
    example = Path(__file__).resolve().parents[2] / "config" / "node.example.yaml"
    done = ainode(example, "check-config")
    assert done.returncode == 0, done.stderr


def test_a_route_to_a_pipeline_that_is_not_there_is_found(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("routes:\n  - {name: r, pipeline: gone}\n")
    done = ainode(path, "check-config")
    assert done.returncode == 1
    assert "no pipeline is named 'gone'" in done.stderr


def test_what_is_old_is_said_and_then_removed(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text()) | {"retention": {"aside_days": 30}}
    config.write_text(yaml.safe_dump(settings))
    database = Database(f"sqlite:///{tmp_path / 'var' / 'ainode.db'}")
    lies = tmp_path / "var" / "aside" / "conflict" / "2020-01-02" / "x.dcm"
    lies.parent.mkdir(parents=True)
    lies.write_bytes(b"x" * 3_000_000)
    lies.with_suffix(".json").write_text("{}")
    database.prepare()
    with database.write() as tx:
        path = "aside/conflict/2020-01-02/x.dcm"
        tx.instances.add_aside(Aside(AsideReason.CONFLICT, "x", path, datetime(2020, 1, 2, tzinfo=UTC)))
    database.close()
    said = ainode(config, "prune", "--dry-run")
    assert "1 objects aside, 3.0 MB: would go" in said.stdout
    with only_one(tmp_path / "var"):
        refused = ainode(config, "prune")
    assert (refused.returncode, "by itself" in refused.stderr, lies.exists()) == (1, True, True)
    done = ainode(config, "prune", "--json")
    assert json.loads(done.stdout)["amounts"]["aside"] == {"number": 1, "size": 3_000_000}
    assert not lies.parent.parent.exists()
    assert "0 objects aside, 0.0 MB" in ainode(config, "prune", "--dry-run").stdout
