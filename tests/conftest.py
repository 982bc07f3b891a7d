"""Fixtures that every kind of test shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import peers
from tests import postgres as pg
from tests.house import House

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


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
