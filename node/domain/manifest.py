"""What a peer says a study consists of, and whether that shows that the study is complete.

Three services say so: a storage commitment request names what its peer believes that we keep (PS3.4 annex J), a
performed procedure step what a modality made (annex F), an instance availability notification what an archive holds
(annex R). Each names instances; none says whether others are still to come, so this is evidence and no proof.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ManifestKind(StrEnum):
    """The service that a manifest came by."""

    COMMITMENT = "commitment"
    MPPS = "mpps"
    IAN = "ian"


class ManifestState(StrEnum):
    """PerformedProcedureStepStatus (0040,0252); a manifest of another kind is complete."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


_SAYS = {
    ManifestKind.COMMITMENT: "storage commitment asked for",
    ManifestKind.MPPS: "procedure step completed with",
    ManifestKind.IAN: "availability notified of",
}


@dataclass(frozen=True)
class Manifest:
    """What one message says of one study.

    ``uid`` is the TransactionUID of a commitment, else the SOPInstanceUID of the performed procedure step or of the
    notification. A commitment names no study: ``study_uid`` is None, and it is about every study of which it names an
    instance. ``peer`` is the calling AE title, ``at`` when it came or was last changed.
    """

    kind: ManifestKind
    uid: str
    study_uid: str | None
    peer: str
    at: datetime
    instances: frozenset[str]
    state: ManifestState = ManifestState.COMPLETED

    @property
    def said(self) -> str:
        """In words, without a judgement."""
        return f"{_SAYS[self.kind]} {len(self.instances)} instances"


@dataclass(frozen=True)
class Comparison:
    """What the manifests of a study show; ``reason`` is for a person."""

    complete: bool
    reason: str


def named(manifests: Sequence[Manifest]) -> frozenset[str]:
    """What the manifests that count name: those of completed steps; a discontinued one promises nothing."""
    return frozenset().union(*(m.instances for m in manifests if m.state is ManifestState.COMPLETED))


def compare(manifests: Sequence[Manifest], of_study: Collection[str], kept: AbstractSet[str]) -> Comparison | None:
    """Compare what is named with what is here.

    A study is complete when all that is named is here and all that is here of it is named, by one manifest or by
    several together: a modality may perform a step, or ask for commitment, for each series. It has to wait while a
    procedure step of it is in progress, or while something named is not here.

    Args:
        manifests: of one study.
        of_study: SOPInstanceUIDs of what is here of it.
        kept: those of ``named(manifests)`` that are here, in whatever study.

    Returns:
        None where the manifests show neither: something is here that none of them names, or there is none.
    """
    if any(m.state is ManifestState.IN_PROGRESS for m in manifests):
        return Comparison(False, "a performed procedure step is in progress")
    completed = [m for m in manifests if m.state is ManifestState.COMPLETED]
    for manifest in completed:
        here = len(manifest.instances & kept)
        if here < len(manifest.instances):
            return Comparison(False, f"{manifest.said}, {here} of them are here")
    if not of_study or not named(completed).issuperset(of_study):
        return None
    alone = [m.said for m in completed if m.instances.issuperset(of_study)]
    said = alone[-1] if alone else f"{len(completed)} manifests name {len(named(completed))} instances"
    return Comparison(True, f"{said}, all of them are here")
