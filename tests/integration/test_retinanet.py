"""MONAI's own detector, without the Python of the bundle, beside a torch that its torchvision was not made for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests import retinanet
from tests.peers import missing


def test_a_detector_of_monai_runs_without_the_scripts_of_its_bundle(tmp_path: Path) -> None:
    if not retinanet.is_there():
        missing("torchvision (pip install --no-deps --target .cache/torchvision torchvision)")
    command = [sys.executable, "-m", "tests.retinanet", str(tmp_path / "version")]
    root = Path(__file__).parents[2]
    ran = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    marks = json.loads(ran.stdout.splitlines()[-1])
    assert len(marks) == 3
    scores = [mark["score"] for mark in marks]
    assert scores == sorted(scores, reverse=True)
    # What weights find that nobody trained is anywhere, but within the images.
    upper = np.array(retinanet.small().shape) - 0.5
    for mark in marks:
        low, high = np.array(mark["points"])
        assert (low < high).all()
        assert (high > -0.5).all()
        assert (low < upper).all()
