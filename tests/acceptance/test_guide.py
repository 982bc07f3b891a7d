"""The guide "Your own pipeline", followed to the letter in an empty folder."""

from __future__ import annotations

import os
import re
import sysconfig
import venv
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_sr.render import text
from tests.guide import blocks, follow

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "your-own-pipeline.md"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has ainode installed: one of its own, over the libraries of this one."""
    home = tmp_path / "installed"
    venv.create(home, symlinks=True)
    site_packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    libraries = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    Path(site_packages, "libraries.pth").write_text("\n".join(libraries) + "\n")
    ainode = home / "bin" / "ainode"
    ainode.write_text(f'#!/bin/sh\nexec {home}/bin/python -m node "$@"\n')
    ainode.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AINODE_", "PYTHON", "PIP_"))}
    return kept | {
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "COLUMNS": "160",
    }


@pytest.mark.long
@pytest.mark.slow
def test_the_guide_gives_a_working_pipeline_and_a_working_bundle(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert len(list(blocks(GUIDE))) == len(re.findall(r"^```\w", GUIDE.read_text(), re.MULTILINE)), "all are marked"
    follow(GUIDE, folder, environ)
    for out, version in (("out", "bone_ct@0.1.0"), ("out-0.2", "bone_ct@0.2.0"), ("out-bundle", "dense_ct@0.1.0-look")):
        results = [dcmread(path, stop_before_pixels=True) for path in (folder / out).glob("*.dcm")]
        assert {result.Modality for result in results} >= {"SEG", "SR"}
        (report,) = (result for result in results if result.Modality == "SR")
        assert f"Software: {version}, sha256:" in text(report)
