"""What happens after a job: it is compared with the champion's, a canary may be stopped, a broken version replaced."""

from __future__ import annotations

from statistics import fmean, median

from node.domain.comparison import Comparison, differences
from node.domain.job import Job, JobState, Role
from node.domain.rollout import Canary, Figures, Rollout, beyond
from node.ports import Clock
from node.repositories import Transaction, UnitOfWork
from node.services.rollout import Rollouts

_ANSWERED = (JobState.SUCCEEDED, JobState.REFUSED)
_REFERENCE = (Role.CHAMPION, Role.CONTROL)
_COMPARED = (Role.CANARY, Role.SHADOW)


class Oversight:
    """Watches over the versions that run."""

    def __init__(self, write: Transaction, clock: Clock, rollouts: Rollouts) -> None:
        self._write = write
        self._clock = clock
        self._rollouts = rollouts

    def answered(self, tx: UnitOfWork, job: Job) -> None:
        """A job has succeeded or was refused: compare those of this study revision that can be compared now."""
        # Of two that end at the same instant each would miss the other, where writers do not exclude each other anyway.
        tx.comparisons.lock(job.study_uid)
        beside = [
            j
            for j in tx.jobs.of_study(job.study_uid)
            if (j.revision, j.route, j.model.name) == (job.revision, job.route, job.model.name) and j.state in _ANSWERED
        ]
        champions = [j for j in beside if j.role in _REFERENCE]
        if not champions:
            return
        for other in beside:
            if other.role in _COMPARED and tx.comparisons.of_job(other.id) is None:
                tx.comparisons.add(self._compare(champions[-1], other))

    def _compare(self, champion: Job, other: Job) -> Comparison:
        found = differences(champion.findings or {}, other.findings or {})
        largest = max((d.relative for d in found), default=0.0)
        return Comparison(
            name=other.model.name,
            study_uid=other.study_uid,
            revision=other.revision,
            champion=champion.model,
            champion_job=champion.id,
            champion_state=champion.state,
            model=other.model,
            job=other.id,
            state=other.state,
            role=other.role,
            differences=found,
            disagreement=largest if champion.state is other.state else 1.0,
            at=self._clock.now(),
        )

    def look(self, job: Job) -> None:
        """After any end of a run: stop the canary of this name where its figures are beyond its bounds."""
        if job.role not in (Role.CANARY, Role.CONTROL):
            return
        with self._write() as tx:
            rollout = tx.rollouts.get(job.model.name, lock=True)
            if rollout is None or rollout.canary is None:
                return
            found = figures(tx, rollout, rollout.canary)
            reason = beyond(rollout.canary.bounds, found)
            if reason is not None:
                self._rollouts.stop(tx, rollout, reason, found)

    def model_failed(self, job: Job, reason: str) -> bool:
        """The version of a job cannot be verified or loaded; says whether its jobs, this one too, were handed over."""
        with self._write() as tx:
            return self._rollouts.fail(tx, job.model, reason)


def figures(tx: UnitOfWork, rollout: Rollout, canary: Canary) -> Figures:
    """How a canary has done since it began, beside the champion in the same time."""
    ours = [j for j in tx.jobs.of_model(canary.model, since=canary.since) if j.role is Role.CANARY]
    failed = [j for j in ours if j.state is JobState.DEAD or (j.state is JobState.QUEUED and j.attempt > 0)]
    seconds = _seconds(ours)
    champion = _seconds([j for j in tx.jobs.of_model(rollout.champion, since=canary.since) if j.role in _REFERENCE])
    compared = [c for c in tx.comparisons.of_model(canary.model, since=canary.since) if c.role is Role.CANARY]
    return Figures(
        jobs=len([j for j in ours if j.state in _ANSWERED]) + len(failed),
        failed=len(failed),
        timed=min(len(seconds), len(champion)),
        seconds=round(median(seconds), 3) if seconds else None,
        champion_seconds=round(median(champion), 3) if champion else None,
        compared=len(compared),
        disagreement=round(fmean(c.disagreement for c in compared), 6) if compared else None,
    )


def _seconds(jobs: list[Job]) -> list[float]:
    return [
        (j.finished_at - j.started_at).total_seconds()
        for j in jobs
        if j.state is JobState.SUCCEEDED and j.started_at is not None and j.finished_at is not None
    ]
