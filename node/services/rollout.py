"""Who runs: the champion, the canary and the shadows of a model name, changed by people and by the node itself.

Every change of pointers, the jobs that move with it and its audit entry are one transaction.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from node.domain.audit import NODE, AuditEntry, Change
from node.domain.errors import AinodeError, IllegalStep, InvalidInput, NotFound
from node.domain.job import JobState, Role
from node.domain.machine import advance
from node.domain.model import INSTALLED, VERSION, KnownVersion, ModelVersion, VersionState, VersionStep
from node.domain.rollout import Canary, Figures, Rollout
from node.domain.trial import Trial, TrialState, Wish
from node.ports import Clock
from node.repositories import Transaction, UnitOfWork
from node.services.enqueue import Installed, hand_over_all, queue_again

log = logging.getLogger(__name__)


def rollout_of(tx: UnitOfWork, name: str, installed: Installed) -> Rollout:
    """The pointers of a name, held as they are until the transaction ends; by default its installed version leads.

    Raises:
        NotFound, Unavailable: nobody has set any, and none is installed.
    """
    held = tx.rollouts.get(name, lock=True)
    if held is not None:
        return held
    try:
        return Rollout(name, installed(name))
    except NotFound:
        if tx.versions.all(name=name):
            raise NotFound(f"no version of {name} is active; `ainode models activate {name}@VERSION`") from None
        raise


def move_version(tx: UnitOfWork, version: KnownVersion, step: VersionStep, **changes: Any) -> KnownVersion:
    """Take a step; ``changes`` are written with it.

    Raises:
        IllegalStep: not legal from this state, or somebody else moved the version meanwhile.
    """
    after = replace(version, state=advance(VERSION, version.state, step), **changes)
    tx.versions.update(version, after)
    return after


class Rollouts:
    """Changes the pointers.

    Args:
        installed: gives the installed version of a name.
        names: the names of installed pipelines.
        node: UID of this installation.
    """

    def __init__(
        self,
        write: Transaction,
        clock: Clock,
        installed: Installed,
        names: Callable[[], Iterable[str]],
        *,
        node: str,
    ) -> None:
        self._write = write
        self._clock = clock
        self._installed = installed
        self._names = names
        self._node = node

    def refresh(self) -> None:
        """Know the installed versions; after an upgrade of the node the new ones stand where the old ones stood."""
        for name in self._names():
            try:
                model = self._installed(name)
            except AinodeError as error:
                log.error("pipeline %s: %s", name, error)
                continue
            with self._write() as tx:
                self._refresh(tx, model)

    def _refresh(self, tx: UnitOfWork, model: ModelVersion) -> None:
        now = self._clock.now()
        known = tx.versions.get(model)
        if known is None:
            tx.versions.add(KnownVersion(model, INSTALLED, VersionState.READY, "entry point", now))
        elif known.state is VersionState.RETIRED:
            move_version(tx, move_version(tx, known, VersionStep.ADD), VersionStep.ACCEPT)
        for old in tx.versions.all(name=model.name):
            if old.kind != INSTALLED or old.model == model or old.state is VersionState.RETIRED:
                continue
            move_version(tx, old, VersionStep.RETIRE)
            rollout = tx.rollouts.get(model.name, lock=True)
            if rollout is not None:
                tx.rollouts.put(rollout.replacing(old.model, model))
            why = f"{old.model.label} is no longer installed"
            tx.audit.add(AuditEntry(now, NODE, Change.REPLACED, model, why))

    def request(self, model: ModelVersion, wish: Wish, *, who: str, why: str) -> Trial:
        """Ask for a role: it is given when a worker has seen the version pass its gate.

        Raises:
            InvalidInput: no reason was given, or this role cannot be given to this version.
            NotFound: the version is not known, or there is no champion to run beside.
        """
        now = self._clock.now()
        _checked(why)
        trial = Trial(str(uuid.uuid4()), model, wish, who, why, TrialState.QUEUED, 0, now)
        with self._write() as tx:
            known = tx.versions.get(model)
            if known is None or known.state is VersionState.RETIRED:
                raise NotFound(f"{model.label} is not a version that can be used; `ainode models list` shows them")
            self._wished(tx, trial, now)
            tx.trials.add(trial)
        return trial

    def _wished(self, tx: UnitOfWork, trial: Trial, now: datetime) -> Rollout | None:
        """The rollout as the wish would have it; None where it wants no role."""
        model, wish = trial.model, trial.wish
        if wish.role is None:
            return None
        try:
            rollout = rollout_of(tx, model.name, self._installed)
        except NotFound:
            if wish.role is not Role.CHAMPION:
                raise
            return Rollout(model.name, model)
        if wish.role is Role.CHAMPION:
            return rollout.led_by(model)
        if model == rollout.champion:
            raise InvalidInput("version", f"{model.label} is the champion", "Activate another version first")
        if wish.role is Role.SHADOW:
            return rollout.with_shadow(model)
        ongoing = rollout.canary is not None and rollout.canary.model == model
        since = rollout.canary.since if rollout.canary is not None and ongoing else now
        return rollout.with_canary(Canary(model, wish.share, since, wish.bounds))

    def grant(self, tx: UnitOfWork, trial: Trial, now: datetime) -> None:
        """The version of a trial has passed: it is ready, and gets the role that was wished for.

        Raises:
            IllegalStep, InvalidInput: things have changed meanwhile, and it cannot have the role any more.
        """
        known = tx.versions.get(trial.model)
        if known is None:
            raise IllegalStep(f"{trial.model.label} is not known any more")
        move_version(tx, known, VersionStep.ACCEPT, reason=None)
        after = self._wished(tx, trial, now)
        detail: dict[str, Any] = {"trial": trial.id, "device": trial.device}
        if trial.wish.without_golden:
            detail["golden case"] = "waived"
        if after is not None:
            after = replace(after, problem=None)
            tx.rollouts.put(after)
            detail |= standing(after)
        changes = {
            Role.CHAMPION: Change.ACTIVATED,
            Role.CANARY: Change.CANARY,
            Role.SHADOW: Change.SHADOW,
            None: Change.VERIFIED,
        }
        tx.audit.add(AuditEntry(now, trial.who, changes[trial.wish.role], trial.model, trial.why, detail))

    def rollback(self, name: str, *, who: str, why: str, model: ModelVersion | None = None) -> Rollout:
        """Take a version back at once, whatever its role; by default the champion, for the one before it.

        Its queued and running jobs end, and their studies get jobs of the version that takes over.

        Raises:
            InvalidInput: there is nothing to take back, or nothing to go back to; or no reason was given.
        """
        _checked(why)
        now = self._clock.now()
        with self._write() as tx:
            before = tx.rollouts.get(name, lock=True)
            if before is None:
                raise InvalidInput(
                    "name", f"nothing was ever activated for {name}", "`ainode models list` shows what is"
                )
            taken = model or before.champion
            if before.role_of(taken) is None:
                raise InvalidInput(
                    "version", f"{taken.label} has no role", f"`ainode models show {name}` shows who has"
                )
            after = before.without(taken)
            if taken == before.champion:
                good = last_good(tx, before)
                if good is None:
                    fix = "Activate another version, or retire the route"
                    raise InvalidInput("name", f"{taken.label} has no former champion that is ready", fix)
                after = before.back_to(good)
            after = replace(after, problem=None)
            tx.rollouts.put(after)
            moved = hand_over_all(tx, self._node, taken, after, f"{taken.label} was rolled back: {why}", now)
            detail = standing(after) | {"jobs handed over": moved}
            tx.audit.add(AuditEntry(now, who, Change.ROLLED_BACK, taken, why, detail))
        log.warning("%s was rolled back by %s, %d jobs handed over: %s", taken.label, who, moved, why)
        return after

    def stop(self, tx: UnitOfWork, rollout: Rollout, reason: str, figures: Figures) -> None:
        """The node takes a canary back by itself; studies that it has failed get a job of the champion too."""
        assert rollout.canary is not None
        now, model = self._clock.now(), rollout.canary.model
        after = rollout.without(model)
        tx.rollouts.put(after)
        moved = hand_over_all(tx, self._node, model, after, f"the canary was stopped: {reason}", now)
        for job in tx.jobs.of_model(model, since=rollout.canary.since):
            if job.role is Role.CANARY and job.state is JobState.DEAD:
                study = (job.study_uid, job.revision)
                again: dict[str, Any] = {"send_to": job.send_to, "priority": job.priority}
                queue_again(tx, self._node, study, job.route, after.champion, now, role=Role.CHAMPION, **again)
                moved += 1
        detail = {"figures": vars(figures), "bounds": vars(rollout.canary.bounds), "jobs handed over": moved}
        tx.audit.add(AuditEntry(now, NODE, Change.STOPPED, model, reason, detail | standing(after)))
        log.error("canary %s is stopped, %d jobs handed over: %s", model.label, moved, reason)

    def fail(self, tx: UnitOfWork, model: ModelVersion, reason: str) -> bool:
        """A version cannot be verified or loaded: the last good one takes its place, if it has one to give.

        Returns:
            Whether its jobs were handed over. False leaves them to fail with the reason.
        """
        now = self._clock.now()
        rollout = tx.rollouts.get(model.name, lock=True)
        if rollout is None:
            return False
        if rollout.role_of(model) is None and not tx.jobs.of_model(model, unfinished=True):
            return False
        known = tx.versions.get(model)
        first = known is not None and known.state is not VersionState.FAILED
        if known is not None and known.state is not VersionState.RETIRED:
            move_version(tx, known, VersionStep.FAIL, reason=reason)
        after, change = rollout.without(model), Change.FAILED
        if model == rollout.champion:
            good = last_good(tx, rollout)
            if good is None:
                if first:
                    self._no_good(tx, rollout, reason, now)
                return False
            problem = f"{model.label} failed and {good.label} runs in its place: {reason}"
            after, change = replace(rollout.back_to(good), problem=problem), Change.FELL_BACK
        tx.rollouts.put(after)
        moved = hand_over_all(tx, self._node, model, after, reason, now)
        tx.audit.add(AuditEntry(now, NODE, change, model, reason, standing(after) | {"jobs handed over": moved}))
        log.error(
            "%s is out of use, %s leads, %d jobs handed over: %s", model.label, after.champion.label, moved, reason
        )
        return True

    def _no_good(self, tx: UnitOfWork, rollout: Rollout, reason: str, now: datetime) -> None:
        problem = f"{rollout.champion.label} failed, and there is no former champion to fall back to: {reason}"
        tx.rollouts.put(replace(rollout, problem=problem))
        tx.audit.add(AuditEntry(now, NODE, Change.FAILED, rollout.champion, reason))
        log.error("%s", problem)

    def retire(self, model: ModelVersion, *, who: str, why: str) -> KnownVersion:
        """Put a version out of use for good; its files stay. Its jobs that wait go to the version that is chosen now.

        Raises:
            IllegalStep: it has a role, or is retired.
            InvalidInput: it is installed with the node; or no reason was given.
        """
        _checked(why)
        now = self._clock.now()
        with self._write() as tx:
            known = tx.versions.get(model)
            if known is None:
                raise NotFound(f"{model.label} is not known")
            if known.kind == INSTALLED:
                raise InvalidInput("version", f"{model.label} is installed with the node", "Uninstall its package")
            rollout = tx.rollouts.get(model.name, lock=True)
            role = rollout.role_of(model) if rollout is not None else None
            if role is not None:
                raise IllegalStep(f"{model.label} is the {role.value}; take it back first")
            retired = move_version(tx, known, VersionStep.RETIRE)
            if rollout is not None:
                after = rollout.without(model)
                tx.rollouts.put(after)
                hand_over_all(tx, self._node, model, after, f"{model.label} was retired: {why}", now)
            tx.audit.add(AuditEntry(now, who, Change.RETIRED, model, why))
        return retired


def unready(tx: UnitOfWork, model: ModelVersion, reason: str) -> None:
    """A version that runs nowhere has failed."""
    known = tx.versions.get(model)
    if known is not None and known.state in (VersionState.REGISTERED, VersionState.READY):
        move_version(tx, known, VersionStep.FAIL, reason=reason)


def last_good(tx: UnitOfWork, rollout: Rollout) -> ModelVersion | None:
    """The latest former champion that is still ready."""
    for model in rollout.previous:
        known = tx.versions.get(model)
        if known is not None and known.state is VersionState.READY:
            return model
    return None


def standing(rollout: Rollout) -> dict[str, Any]:
    """Who has which role, for the audit."""
    canary = rollout.canary
    return {
        "champion": rollout.champion.label,
        "canary": None if canary is None else f"{canary.model.label} {canary.share / 100:g} %",
        "shadows": [shadow.label for shadow in rollout.shadows],
    }


def _checked(why: str) -> None:
    if not why.strip():
        raise InvalidInput("why", "is empty", "Say why: it is kept in the audit")
