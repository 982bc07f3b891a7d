"""How much memory is left: of the machine, or of the container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.workers.memory import available_bytes, held_bytes, peak_bytes

MIB = 1 << 20


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal: 4194304 kB\nMemFree: 1 kB\nMemAvailable: 1048576 kB\n")
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "left"), [(f"{900 * MIB}", 500), (f"{9000 * MIB}", 1024), ("max", 1024)], ids=["less", "more", "none"]
)
def test_the_smaller_of_machine_and_container_counts(proc: Path, limit: str, left: int) -> None:
    (proc / "memory.max").write_text(limit + "\n")
    (proc / "memory.current").write_text(f"{700 * MIB}\n")
    (proc / "memory.stat").write_text(f"anon {400 * MIB}\ninactive_file {300 * MIB}\n")
    assert available_bytes(proc, proc) == left * MIB


def test_without_control_groups_the_machine_counts(proc: Path) -> None:
    assert available_bytes(proc, proc / "none") == 1024 * MIB


def test_a_process_holds_at_most_its_peak() -> None:
    assert 0 < held_bytes(os.getpid()) <= peak_bytes(os.getpid())
    assert held_bytes(0) == peak_bytes(0) == 0
