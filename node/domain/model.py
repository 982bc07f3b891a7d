"""An immutable model version: name, version and digest together are its identity."""

from __future__ import annotations

from dataclasses import dataclass
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
