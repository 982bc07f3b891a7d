"""Pipelines kept loaded: the latest used, within a budget that the size of their files tells."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from node.domain.model import ModelVersion
from node.workers.warm import Warm
from pipelines.contract import Pipeline


def version(name: str) -> ModelVersion:
    return ModelVersion(name, "1", name * 64)


def loaded(name: str) -> Pipeline:
    return cast(Pipeline, f"pipeline {name}")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A version whose files take 100 bytes."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.pt").write_bytes(b"w" * 90)
    (tmp_path / "version.json").write_bytes(b"j" * 10)
    return tmp_path


def kept(warm: Warm, names: str) -> str:
    return "".join(name for name in names if warm.take(version(name)) is not None)


def test_the_one_not_used_for_longest_goes_first(directory: Path) -> None:
    warm = Warm(250)
    for name in "ab":
        warm.keep(version(name), loaded(name), directory)
    used = warm.take(version("a"))
    assert used == loaded("a")
    warm.keep(version("a"), loaded("a"), directory)
    warm.keep(version("c"), loaded("c"), directory)
    assert kept(warm, "abc") == "ac"


def test_the_latest_stays_though_it_is_too_large(directory: Path) -> None:
    warm = Warm(0)
    for name in "ab":
        warm.keep(version(name), loaded(name), directory)
    assert kept(warm, "ab") == "b"


def test_installed_ones_count_as_nothing(directory: Path) -> None:
    warm = Warm(100)
    for name in "abc":
        warm.keep(version(name), loaded(name), None)
    warm.keep(version("d"), loaded("d"), directory)
    assert kept(warm, "abcd") == "abcd"
