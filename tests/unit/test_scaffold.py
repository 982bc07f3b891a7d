"""``ainode pipelines new``: what it writes is whole, and what it cannot write is told."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli import app
from node.domain.errors import InvalidInput
from node.scaffold import scaffold

LONGEST = "a_pipeline_of_a_very_long_name"


def test_the_project_is_whole(tmp_path: Path) -> None:
    project = scaffold("bone_ct", tmp_path)
    assert project == tmp_path / "bone_ct"
    assert {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()} == {
        "pyproject.toml",
        "test_bone_ct.py",
        "bone_ct/__init__.py",
        "bone_ct/MODEL_CARD.md",
        "bone_ct/manifest.py",
        "bone_ct/measure.py",
        "bone_ct/pipeline.py",
    }
    described = tomllib.loads((project / "pyproject.toml").read_text())
    assert described["project"]["entry-points"] == {"ainode.pipelines": {"bone_ct": "bone_ct.pipeline:BoneCtPipeline"}}


@pytest.mark.parametrize("name", ["b", LONGEST])
def test_the_project_passes_ruff(name: str, tmp_path: Path) -> None:
    project = scaffold(name, tmp_path)
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "."], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bone-ct", "'bone-ct' cannot name a pipeline. Use a to z"),
        ("Bone", "cannot name a pipeline"),
        ("1bone", "cannot name a pipeline"),
        ("bone_", "cannot name a pipeline"),
        ("_bone", "cannot name a pipeline"),
        ("", "cannot name a pipeline"),
        ("../bone", "cannot name a pipeline"),
        ("knöchel", "cannot name a pipeline"),
        ("lambda", "cannot name a pipeline"),
        (LONGEST + "r", "cannot name a pipeline"),
        ("lung_density_ct", "a pipeline lung_density_ct is installed already. Choose another name"),
        ("numpy", "Python has a module numpy already"),
        ("sys", "Python has a module sys already"),
    ],
)
def test_a_name_that_will_not_do_is_told(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as raised:
        scaffold(name, tmp_path)
    assert said in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bone_ct").mkdir()
    (tmp_path / "bone_ct" / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="bone_ct is there already"):
        scaffold("bone_ct", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["bone_ct", "mine.txt"]


def test_the_command_says_what_comes_next(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pipelines", "new", "bone_ct", "--in", str(tmp_path)])
    assert done.exit_code == 0
    assert f"pip install -e {tmp_path / 'bone_ct'}" in done.stdout
    assert "ainode run bone_ct STUDY_DIR --out out" in done.stdout
