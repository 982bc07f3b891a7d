"""The gate in a worker: claim a trial, try the version in a process of its own, and give it the role or refuse it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from node.domain.audit import AuditEntry, Change
from node.domain.errors import AinodeError, IllegalStep, Interrupted, InvalidInput, InvalidModel, LostLease
from node.domain.job import Provenance
from node.domain.machine import advance
from node.domain.model import KnownVersion, VersionState
from node.domain.trial import TRIAL, Trial, TrialInput, TrialOutput, TrialStep
from node.ports import Clock, Engine, InstanceFiles
from node.repositories import Transaction, UnitOfWork
from node.services.locate import Locate
from node.services.rollout import Rollouts, unready
from node.services.work import heart

log = logging.getLogger(__name__)


class Gate:
    """Tries one version at a time on this device.

    Args:
        owner: this process, as it is written into leases.
        provenances: gives the provenance of what a golden case makes.
        stopping: whether the node is being stopped; a running trial then goes back to the queue at once.
    """

    def __init__(
        self,
        write: Transaction,
        clock: Clock,
        files: InstanceFiles,
        engine: Engine,
        rollouts: Rollouts,
        provenances: Callable[[Trial, datetime], Provenance],
        locate: Locate,
        *,
        owner: str,
        device: str,
        lease: timedelta,
        timeout: timedelta,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._write = write
        self._clock = clock
        self._files = files
        self._engine = engine
        self._rollouts = rollouts
        self._provenances = provenances
        self._locate = locate
        self._owner = owner
        self._device = device
        self._lease = lease
        self._timeout = timeout
        self._stopping = stopping

    def work(self) -> bool:
        """Try one version, if one waits; says whether there was."""
        with self._write() as tx:
            trial = tx.trials.claim(owner=self._owner, now=self._clock.now(), lease=self._lease)
            known = tx.versions.get(trial.model) if trial is not None else None
        if trial is None:
            return False
        log.info("trial %s: %s, attempt %d", trial.id, trial.model.label, trial.attempt)
        try:
            output = self._try_out(trial, known)
            self._finish(trial, output)
        except LostLease as error:
            log.warning("trial %s of %s: %s", trial.id, trial.model.label, error)
        except Interrupted:
            with self._write() as tx:
                move_trial(tx, trial, TrialStep.LEASE_EXPIRED, owner=None, lease_until=None, attempt=trial.attempt - 1)
        finally:
            self._files.clear_job_dir(trial.id)
        return True

    def _try_out(self, trial: Trial, known: KnownVersion | None) -> TrialOutput:
        if known is None or known.state is VersionState.RETIRED:
            return TrialOutput("it is not a version that can be used any more")
        try:
            located = self._locate(trial.model)
            task = TrialInput(
                provenance=self._provenances(trial, self._clock.now()),
                device=self._device,
                scratch=self._files.job_dir(trial.id, trial.attempt),
                version_dir=located.directory,
                trust_code=located.trust_code,
                without_golden=trial.wish.without_golden,
            )
            keep = heart(self._clock, self._lease, self._stopping, lambda now: self._keep(trial, now))
            return self._engine.try_out(task, timeout=self._timeout, beat=keep)
        except (LostLease, Interrupted):
            raise
        except AinodeError as error:
            return TrialOutput(f"{type(error).__name__}: {error}", model_failed=isinstance(error, InvalidModel))

    def _keep(self, trial: Trial, now: datetime) -> None:
        with self._write() as tx:
            tx.trials.heartbeat(trial, now=now, lease=self._lease)

    def _finish(self, trial: Trial, output: TrialOutput) -> None:
        now = self._clock.now()
        reason = output.reason
        if reason is None:
            try:
                self._passed(trial, output, now)
            except (IllegalStep, InvalidInput) as error:
                reason = str(error)
        if reason is not None:
            self._failed(trial, output, reason, now)

    def _passed(self, trial: Trial, output: TrialOutput, now: datetime) -> None:
        with self._write() as tx:
            ended = move_trial(
                tx,
                trial,
                TrialStep.SUCCEED,
                owner=None,
                lease_until=None,
                finished_at=now,
                device=output.device or self._device,
                stages=dict(output.stages),
            )
            self._rollouts.grant(tx, ended, now)
        log.info("trial %s: %s passed", trial.id, trial.model.label)

    def _failed(self, trial: Trial, output: TrialOutput, reason: str, now: datetime) -> None:
        log.error("trial %s: %s did not pass: %s", trial.id, trial.model.label, reason)
        with self._write() as tx:
            move_trial(
                tx,
                trial,
                TrialStep.FAIL,
                owner=None,
                lease_until=None,
                finished_at=now,
                device=output.device or self._device,
                stages=dict(output.stages),
                reason=reason,
            )
            detail = {"trial": trial.id, "device": output.device or self._device, "wished": trial.why}
            tx.audit.add(AuditEntry(now, trial.who, Change.FAILED, trial.model, reason, detail))
            if output.model_failed and not self._rollouts.fail(tx, trial.model, reason):
                unready(tx, trial.model, reason)


def move_trial(tx: UnitOfWork, trial: Trial, step: TrialStep, **changes: object) -> Trial:
    """Take a step; ``changes`` are written with it.

    Raises:
        IllegalStep: not legal from this state.
        LostLease: somebody else moved the trial meanwhile.
    """
    after = replace(trial, state=advance(TRIAL, trial.state, step), **changes)  # type: ignore[arg-type]
    tx.trials.update(trial, after)
    return after


def release_trial(tx: UnitOfWork, trial: Trial, now: datetime, *, attempts: int) -> None:
    """Take a trial back from a worker that is gone: queue it again, or end it where its attempts are used up."""
    if trial.attempt < attempts:
        move_trial(tx, trial, TrialStep.LEASE_EXPIRED, owner=None, lease_until=None)
    else:
        move_trial(
            tx, trial, TrialStep.FAIL, owner=None, lease_until=None, finished_at=now, reason="its worker died each time"
        )
