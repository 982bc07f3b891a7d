"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.registry import KINDS
from tests import peers
from tests import postgres as pg
from tests.house import House
from tests.threshold_kind import KIND

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: begun last, the longest would keep one process busy when the others have ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if os.environ.get("AINODE_TEST_REQUIRE_PEERS") == "1" or os.environ.get("AINODE_TEST_LONG") == "1":
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip("takes fifteen seconds or more: AINODE_TEST_LONG=1 and .ci/run run it"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real series beside the project; tests that need it skip where it is not."""
    if not _SHARED.is_dir():
        pytest.skip(f"no real series: {_SHARED} is not there")
    return _SHARED


@pytest.fixture(scope="session")
def postgres() -> Iterator[pg.Postgres]:
    """A PostgreSQL cluster; tests that need it skip where PostgreSQL is not installed."""
    programs = pg.programs()
    if programs is None:
        peers.missing("PostgreSQL")
    cluster = pg.Postgres(programs)
    yield cluster
    cluster.stop()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node's inner rooms on a temporary directory."""
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture
def threshold_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of model that needs no framework."""
    monkeypatch.setitem(KINDS, KIND, "tests.threshold_kind")
