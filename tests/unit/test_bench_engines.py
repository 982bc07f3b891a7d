"""The engine parts of the pipeline bench: their bundles, a side, their tables. Figures are never tested."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines.bundle import image_bundle, volume_bundle
from engines.measure import SideError, batches_markdown, bundles_markdown, once

from pipelines.bundle import open_version, problems


def test_the_bundles_are_sound(tmp_path: Path) -> None:
    for write, batches in ((volume_bundle, False), (image_bundle, True)):
        version = write(tmp_path / write.__name__)
        assert problems(version) == []
        assert open_version(version, trust_code=False).batches is batches  # type: ignore[attr-defined]


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SideError, match="KeyError: 'nobody'"):
        once("nobody", tmp_path, tmp_path, tmp_path)


def test_tables() -> None:
    times = {"seconds": 2.0, "cpu_seconds": 3.0, "process_seconds": 9.0}
    part = {
        "study": "a phantom",
        "repeat": 3,
        "medians": {"ainode": times, "monai": times | {"seconds": 3.0}},
        "faster": 1.5,
        "faster_by_cpu": 1.0,
        "faster_by_round": [1.4, 1.5],
        "largest_difference": 2e-6,
    }
    text = bundles_markdown(part)
    assert "| ainode, from DICOM | 2.00 | 3.00 | 9.00 |" in text
    assert "| MONAI, from NIfTI | 3.00 | 3.00 | 9.00 |" in text
    assert "1.50 × as fast by the clock" in text
    assert "probability is 2.0e-06" in text
    single = {"seconds": 8.0, "network_seconds": 2.0, "cpu_seconds": 9.0}
    together = {"seconds": 4.0, "network_seconds": 1.0, "cpu_seconds": 6.0}
    images = {
        "studies": 8,
        "batch": 4,
        "repeat": 1,
        "medians": {"one by one": single, "together": together},
        "faster": 2.0,
        "faster_by_cpu": 1.5,
        "network_faster": 2.0,
        "same_findings": False,
    }
    text = batches_markdown(images)
    assert "| 4 together | 4.00 | 6.00 | 1.00 | 2.0 |" in text
    assert "NOT the same" in text
