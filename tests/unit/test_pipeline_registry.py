"""Pipelines by name: what is known without torch, and what is said when one is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pipelines.lung_density_ct
import pipelines.read
from node.domain.errors import NotFound, Unavailable
from pipelines import registry
from pipelines.contract import Pipeline
from pipelines.digest import digest_of


def test_available_names_the_module_of_each() -> None:
    assert registry.available()["lung_density_ct"] == "pipelines.lung_density_ct.pipeline:LungDensityCT"


def test_create_gives_a_pipeline() -> None:
    pipeline = registry.create("lung_density_ct")
    assert isinstance(pipeline, Pipeline)
    assert pipeline.model == registry.model_version("lung_density_ct")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"'lung_densty'.*lung_density_ct"):
        registry.create("lung_densty")


def test_the_model_version_is_known_without_torch() -> None:
    program = (
        "import sys; from pipelines.registry import available, create, model_version; available();"
        "create('lung_density_ct'); print(model_version('lung_density_ct').digest);"
        "assert not {'torch', 'monai', 'skimage'} & set(sys.modules), 'torch was imported'"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == registry.model_version("lung_density_ct").digest


def test_a_missing_framework_is_named() -> None:
    program = (
        "import sys; sys.modules['monai'] = None\n"
        "from node.domain.errors import Unavailable; from pipelines.registry import create\n"
        "try: create('lung_density_ct').load('cpu')\n"
        "except Unavailable as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pipeline lung_density_ct needs the module 'monai" in answer.stdout


def test_a_device_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cuda:77"):
        registry.create("lung_density_ct").load("cuda:77")


def test_the_digest_is_that_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "copied_pipeline"
    shutil.copytree(Path(pipelines.lung_density_ct.__path__[0]), package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    copied = import_module("copied_pipeline")
    before = digest_of(copied, pipelines.read)
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "x.pyc").write_bytes(b"bytecode")
    assert digest_of(copied, pipelines.read) == before
    card = package / "MODEL_CARD.md"
    card.write_text(card.read_text() + " ")
    assert digest_of(copied, pipelines.read) != before
    card.write_text(card.read_text()[:-1])
    assert digest_of(copied, pipelines.read) == before
    card.rename(package / "OTHER.md")
    assert digest_of(copied, pipelines.read) != before
