"""Fixtures that every kind of test shares."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real series beside the project; tests that need it skip where it is not."""
    if not _SHARED.is_dir():
        pytest.skip(f"no real series: {_SHARED} is not there")
    return _SHARED
