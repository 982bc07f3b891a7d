"""Which version runs on which study: the pointers of one model name, and the pure choice among them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation

from node.domain.errors import InvalidInput
from node.domain.job import Role
from node.domain.model import ModelVersion

PLACES = 10_000  # a canary's share is counted in ten-thousandths: 0.01 %
_KEPT = 5  # former champions that a rollback can go to


@dataclass(frozen=True)
class Bounds:
    """When a canary is taken back by itself.

    ``after``: jobs (or comparisons) that have to be there before a share or a mean counts. ``errors``: share of its
    jobs that failed, 0 to 1. ``slowdown``: its median run time over that of the champion. ``disagreement``: mean over
    the comparisons with the champion, 0 to 1 (``node.domain.comparison``). Each is the most that is allowed.
    """

    after: int = 10
    errors: float = 0.05
    slowdown: float = 2.0
    disagreement: float = 0.2

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("after", self.after, 1, PLACES),
            ("errors", self.errors, 0.0, 1.0),
            ("slowdown", self.slowdown, 1.0, 1000.0),
            ("disagreement", self.disagreement, 0.0, 1.0),
        ):
            if not least <= value <= most:
                raise InvalidInput(name, f"{value} is out of range", f"Give {least:g} to {most:g}")


@dataclass(frozen=True)
class Figures:
    """How a canary has done since it began; None where nothing was measured. ``seconds`` are medians of run times.

    ``failed`` counts jobs that are dead, and those that wait for another attempt.
    """

    jobs: int
    failed: int
    timed: int
    seconds: float | None
    champion_seconds: float | None
    compared: int
    disagreement: float | None


def beyond(bounds: Bounds, figures: Figures) -> str | None:
    """Which bound the figures pass, in words; None while they keep all of them."""
    if figures.jobs >= bounds.after and figures.failed / figures.jobs > bounds.errors:
        return f"{figures.failed} of {figures.jobs} jobs failed, allowed is a share of {bounds.errors:g}"
    if figures.timed >= bounds.after and figures.seconds and figures.champion_seconds:
        slowdown = figures.seconds / figures.champion_seconds
        if slowdown > bounds.slowdown:
            return f"it takes {slowdown:.2f} times as long as the champion, allowed is {bounds.slowdown:g}"
    disagreement = figures.disagreement or 0.0
    if figures.compared >= bounds.after and disagreement > bounds.disagreement:
        said = f"disagreement {disagreement:.3f} with the champion over {figures.compared} studies"
        return f"{said}, allowed is {bounds.disagreement:g}"
    return None


@dataclass(frozen=True)
class Canary:
    """A version that a share of the studies gets, in ten-thousandths, until it is activated or taken back."""

    model: ModelVersion
    share: int
    since: datetime
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        if not 1 <= self.share <= PLACES:
            raise InvalidInput("percent", f"{self.share / 100:g} is out of range", "Give 0.01 to 100")


@dataclass(frozen=True)
class Rollout:
    """The pointers of one model name. A version has one role at most.

    ``previous``: former champions that were good, the latest first. ``problem``: what a person has to look at, after
    the node has acted by itself. ``number`` counts the changes; 0 has not been stored.
    """

    name: str
    champion: ModelVersion
    previous: tuple[ModelVersion, ...] = ()
    canary: Canary | None = None
    shadows: tuple[ModelVersion, ...] = ()
    problem: str | None = None
    number: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        roles = [self.champion, *([self.canary.model] if self.canary else []), *self.shadows]
        if len(set(roles)) != len(roles):
            raise ValueError(f"a version of {self.name} has two roles")

    def role_of(self, model: ModelVersion) -> Role | None:
        """The role that a version has now."""
        if model == self.champion:
            return Role.CHAMPION
        if self.canary is not None and model == self.canary.model:
            return Role.CANARY
        return Role.SHADOW if model in self.shadows else None

    def without(self, model: ModelVersion) -> Rollout:
        """The rollout with a version in no role and not to go back to; a champion keeps its role."""
        return replace(
            self,
            canary=None if self.canary is not None and self.canary.model == model else self.canary,
            shadows=tuple(s for s in self.shadows if s != model),
            previous=tuple(p for p in self.previous if p != model),
        )

    def led_by(self, model: ModelVersion) -> Rollout:
        """The rollout with a new champion; the old one becomes what a rollback goes to."""
        if model == self.champion:
            return self
        previous = (self.champion, *(p for p in self.previous if p not in (model, self.champion)))
        return replace(self.without(model), champion=model, previous=previous[:_KEPT])

    def back_to(self, model: ModelVersion) -> Rollout:
        """The rollout with a former champion in the lead again, the present one in no role."""
        return replace(self.without(model), champion=model)

    def replacing(self, old: ModelVersion, new: ModelVersion) -> Rollout:
        """The rollout with one version in place of another, wherever that stands."""

        def swap(model: ModelVersion) -> ModelVersion:
            return new if model == old else model

        canary = self.canary and replace(self.canary, model=swap(self.canary.model))
        previous, shadows = tuple(map(swap, self.previous)), tuple(map(swap, self.shadows))
        return replace(self, champion=swap(self.champion), previous=previous, canary=canary, shadows=shadows)

    def with_canary(self, canary: Canary) -> Rollout:
        """The rollout with this canary, in place of another."""
        return replace(self.without(canary.model), canary=canary)

    def with_shadow(self, model: ModelVersion) -> Rollout:
        """The rollout with one more shadow."""
        without = self.without(model)
        return replace(without, shadows=(*without.shadows, model))


@dataclass(frozen=True)
class Choice:
    """What runs on one study. ``unsent`` run beside it: shadows, and the champion as control of a canary."""

    model: ModelVersion
    role: Role
    unsent: tuple[tuple[ModelVersion, Role], ...] = ()


def place(name: str, study_uid: str) -> int:
    """Where a study stands for a model name: 0 to 9999, uniform over StudyInstanceUIDs, the same for ever.

    The first eight bytes of SHA-256 over ``name|StudyInstanceUID``, modulo 10000 (the bias is below 1e-15).
    """
    digest = hashlib.sha256(f"{name}|{study_uid}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % PLACES


def choose(rollout: Rollout, study_uid: str) -> Choice:
    """The version for a study, a pure function of the rollout and the StudyInstanceUID.

    A canary has the studies whose place is below its share: so widening it takes no study away from it.
    """
    shadows = tuple((shadow, Role.SHADOW) for shadow in rollout.shadows)
    canary = rollout.canary
    if canary is not None and place(rollout.name, study_uid) < canary.share:
        return Choice(canary.model, Role.CANARY, ((rollout.champion, Role.CONTROL), *shadows))
    return Choice(rollout.champion, Role.CHAMPION, shadows)


def share_of(percent: str) -> int:
    """A percentage in ten-thousandths.

    Raises:
        InvalidInput: no number from 0.01 to 100, or finer than 0.01.
    """
    try:
        places = Decimal(percent.strip().removesuffix("%")) * 100
    except InvalidOperation:
        raise InvalidInput("percent", f"{percent!r} is no number", "Give 0.01 to 100") from None
    if not places.is_finite() or places != places.to_integral_value() or not 1 <= places <= PLACES:
        raise InvalidInput("percent", f"{percent} cannot be a share", "Give 0.01 to 100, in steps of 0.01")
    return int(places)
