"""An immutable model version: name, version and digest together are its identity. And what the node knows of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Qualification(StrEnum):
    """ContentQualification (0018,9004) of everything that a model emits (PS3.3 C.8.13.2.1.1)."""

    RESEARCH = "RESEARCH"
    PRODUCT = "PRODUCT"
    SERVICE = "SERVICE"


@dataclass(frozen=True)
class ModelVersion:
    """``digest`` is the SHA-256, in hex, over the files that make the version: code, parameters, weights."""

    name: str
    version: str
    digest: str
    title: str = ""

    @property
    def label(self) -> str:
        """``name@version (digest)``, short enough for a log line or a banner."""
        return f"{self.name}@{self.version} ({self.digest[:12]})"


INSTALLED = (
    "installed"  # the kind of a version that is a Python package found by entry point; others lie in a directory
)


class VersionState(StrEnum):
    """What may be done with a version: only a ready one is given a role."""

    REGISTERED = "registered"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"


class VersionStep(StrEnum):
    """What can happen to a version."""

    ADD = "add"
    ACCEPT = "accept"  # it passed the gate on this device
    FAIL = "fail"  # at the gate, or in a job that could not verify or load it
    RETIRE = "retire"


VERSION: Mapping[VersionState, Mapping[VersionStep, VersionState]] = {
    VersionState.REGISTERED: {
        VersionStep.ACCEPT: VersionState.READY,
        VersionStep.FAIL: VersionState.FAILED,
        VersionStep.RETIRE: VersionState.RETIRED,
    },
    VersionState.READY: {
        VersionStep.ACCEPT: VersionState.READY,
        VersionStep.FAIL: VersionState.FAILED,
        VersionStep.RETIRE: VersionState.RETIRED,
    },
    VersionState.FAILED: {
        VersionStep.ACCEPT: VersionState.READY,
        VersionStep.FAIL: VersionState.FAILED,
        VersionStep.RETIRE: VersionState.RETIRED,
        VersionStep.ADD: VersionState.REGISTERED,
    },
    VersionState.RETIRED: {VersionStep.ADD: VersionState.REGISTERED},
}


@dataclass(frozen=True)
class Acquired:
    """From where the files of a model came, as exactly as can be said, and what they are called there."""

    source: str
    name: str


@dataclass(frozen=True)
class KnownVersion:
    """One row of the version table. Its files never change, what is known of it does.

    ``kind`` is ``INSTALLED`` or that of its manifest. ``path`` is its directory, relative to the data directory; None
    for an installed one. ``trusted``: an administrator allowed the code that it brings. ``reason`` says why it failed.
    """

    model: ModelVersion
    kind: str
    state: VersionState
    source: str
    added_at: datetime
    path: str | None = None
    trusted: bool = False
    reason: str | None = None
