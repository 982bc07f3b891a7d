"""Where the real peers and judges are. A missing one skips the test by name, or fails it where all are required.

``.ci/run`` installs every one of them and sets ``AINODE_TEST_REQUIRE_PEERS=1``.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

# What npm brings (OHIF's built viewer, playwright-core) lies in the project, out of version control.
_CACHE = Path(__file__).resolve().parents[1] / ".cache" / "ohif"


@dataclass(frozen=True)
class PixelMed:
    """PixelMed's toolkit (its SR validator among it) and the JDK to call it with."""

    jar: Path
    java: Path
    javac: Path


@dataclass(frozen=True)
class Orthanc:
    """The Orthanc server and its DICOMweb plug-in."""

    program: Path
    dicom_web: Path


@dataclass(frozen=True)
class Viewer:
    """OHIF as static files, and what drives it: Chromium by playwright-core on node."""

    dist: Path
    node: Path
    modules: Path
    chromium: Path


def missing(name: str) -> NoReturn:
    """Skip the test that needs ``name``; fail it where every peer is required."""
    if os.environ.get("AINODE_TEST_REQUIRE_PEERS") == "1":
        pytest.fail(f"{name} is not installed, and AINODE_TEST_REQUIRE_PEERS=1 wants it")
    pytest.skip(f"{name} is not installed")


def program(name: str) -> Path:
    """A system program, for instance ``storescu`` or ``dciodvfy``.

    Only system folders are searched: pynetdicom installs commands with the names of DCMTK's into the environment.
    """
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/bin")
    return Path(found) if found else missing(name)


def pixelmed() -> PixelMed:
    """PixelMed, with java and javac."""
    return PixelMed(_file("PixelMed", "/usr/share/java/pixelmed.jar"), program("java"), program("javac"))


def orthanc() -> Orthanc:
    """Orthanc, with DICOMweb."""
    plugin = _file("Orthanc's DICOMweb plug-in", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    return Orthanc(program("Orthanc"), plugin)


def viewer() -> Viewer:
    """OHIF and a browser for it."""
    dist = _file("OHIF", _CACHE / "package" / "dist" / "index.html").parent
    modules = _file("playwright-core", _CACHE / "node_modules" / "playwright-core" / "package.json").parents[1]
    return Viewer(dist, program("node"), modules, program("chromium"))


def _file(name: str, path: str | Path) -> Path:
    return Path(path) if Path(path).exists() else missing(name)
