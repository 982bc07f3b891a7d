"""The life of a job in a worker: claim, run in a process of its own, write how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from node.domain.delivery import backoff
from node.domain.errors import AinodeError, Interrupted, InvalidModel, LostLease, StorageFull
from node.domain.instance import Instance
from node.domain.job import (
    Job,
    JobInput,
    JobOutput,
    JobState,
    JobStep,
    Outcome,
    Provenance,
    ResultReference,
    Role,
)
from node.domain.profile import FULL, Profile
from node.domain.study import InstanceFile, SeriesContent, StudyContent
from node.ports import Clock, Engine, InstanceFiles
from node.repositories import Transaction, UnitOfWork
from node.services.batches import Batches
from node.services.beside import Beside
from node.services.locate import Locate
from node.services.oversight import Oversight
from node.services.owe import instance_of, owed
from node.services.steps import job_event, move_job

log = logging.getLogger(__name__)

# Gives the provenance of a job from the job and the time its analysis starts.
Provenances = Callable[[Job, datetime], Provenance]


class Work:
    """Claims one job at a time and runs it; several of them run jobs beside each other.

    Args:
        beside: shared by all that work on one device, as are ``batches``; ``spare`` works only beside another.
        owner: this process, as it is written into leases.
        attempts: how often a job is claimed before it goes dead.
        profiles: of the peers, by their name; a peer that is not among them gets all.
        oversight: compares what ended, and replaces versions that fail.
        stopping: whether the node is being stopped; a running job then goes back to the queue at once.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        files: InstanceFiles,
        engine: Engine,
        provenances: Provenances,
        locate: Locate,
        oversight: Oversight,
        beside: Beside,
        *,
        owner: str,
        device: str,
        attempts: int,
        lease: timedelta,
        timeout: timedelta,
        retry: timedelta,
        profiles: Mapping[str, Profile] = MappingProxyType({}),
        batches: Batches | None = None,
        spare: bool = False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stopping = stopping
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._engine = engine
        self._provenances = provenances
        self._locate = locate
        self._oversight = oversight
        self._beside = beside
        self._owner = owner
        self._device = device
        self._attempts = attempts
        self._lease = lease
        self._timeout = timeout
        self._retry = retry
        self._profiles = profiles
        self._batches = batches or Batches()
        self._spare = spare

    def work(self) -> bool:
        """Run one job that is due, or several that run together; says whether there was one."""
        first = self._beside.begin(self._claim, self._engine.has_room, spare=self._spare)
        if first is None:
            return False
        jobs = [first]
        try:
            jobs += self._claim_like(first)
            for job in jobs:
                log.info("job %s: study %s, %s, attempt %d", job.id, job.study_uid, job.model.label, job.attempt)
            self._work_on(list(jobs))
        finally:
            self._beside.end(first)
            for job in jobs:
                self._files.clear_job_dir(job.id)
        return True

    def _claim(self, untried: bool) -> Job | None:
        now = self._clock.now()
        with self._write() as tx:
            hold = self._batches.hold(tx, now)
            job = tx.jobs.claim(owner=self._owner, now=now, lease=self._lease, untried=untried, hold=hold)
            if job is not None:
                tx.journal.add(job_event(job, JobStep.CLAIM, JobState.QUEUED.value, now))
        return job

    def _claim_like(self, first: Job) -> list[Job]:
        """The jobs that run together with a claimed one."""
        room = self._batches.room(first)
        if not room:
            return []
        now = self._clock.now()
        with self._write() as tx:
            jobs = tx.jobs.claim_like(first, owner=self._owner, now=now, lease=self._lease, limit=room)
            for job in jobs:
                tx.journal.add(job_event(job, JobStep.CLAIM, JobState.QUEUED.value, now))
        return jobs

    def _work_on(self, pending: list[Job]) -> None:
        """Run claimed jobs and write how each ended; one that is done, or lost, is taken out of ``pending``."""
        try:
            outputs = self._together(pending) if len(pending) > 1 else {}
            while pending:
                job = pending[0]
                try:
                    self._end(job, outputs.get(job.id) or self._run(job, pending))
                except LostLease as error:
                    _dropped(job, error)
                pending.remove(job)
        except Interrupted as error:
            for job in pending:
                try:
                    self._give_back(job, str(error))
                except LostLease as lost:
                    _dropped(job, lost)

    def _end(self, job: Job, output: JobOutput) -> None:
        self._batches.learn(job, output)
        self._finish(job, output)
        self._oversight.look(job)

    def _together(self, pending: list[Job]) -> Mapping[str, JobOutput]:
        """Run jobs as one batch; those without an output have to run by themselves."""
        jobs = tuple(pending)
        log.info("%d jobs of %s run together", len(jobs), jobs[0].model.label)
        beat = heart(self._clock, self._lease, self._stopping, lambda now: self._keep(pending, now))
        try:
            outputs = self._engine.run_batch([self._input(job) for job in jobs], timeout=self._timeout, beat=beat)
        except Interrupted:
            raise
        except AinodeError as error:
            log.warning("%d jobs of %s failed together, each runs by itself: %s", len(jobs), jobs[0].model.label, error)
            return {}
        return {job.id: output for job, output in zip(jobs, outputs, strict=True) if output is not None}

    def _input(self, job: Job) -> JobInput:
        located = self._locate(job.model)
        return JobInput(
            provenance=self._provenances(job, self._clock.now()),
            study=self.content(job.study_uid, job.revision),
            device=self._device,
            out_dir=self._files.job_dir(job.id, job.attempt),
            version_dir=located.directory,
            trust_code=located.trust_code,
            profiles=self._wanted(job),
            **self._before(job),
        )

    def _run(self, job: Job, pending: list[Job]) -> JobOutput:
        try:
            beat = heart(self._clock, self._lease, self._stopping, lambda now: self._keep(pending, now, job))
            return self._engine.run(self._input(job), timeout=self._timeout, beat=beat)
        except (LostLease, Interrupted):
            raise
        except AinodeError as error:
            failed = isinstance(error, InvalidModel)
            return JobOutput(
                Outcome.FAILED, reason=f"{type(error).__name__}: {error}", retry=error.retry, model_failed=failed
            )

    def _profile(self, peer: str) -> Profile:
        return self._profiles.get(peer, FULL)

    def _wanted(self, job: Job) -> tuple[Profile, ...]:
        """The profiles of where the results go; what goes nowhere is written in full."""
        return tuple({p.name: p for p in map(self._profile, job.send_to)}.values()) or (FULL,)

    def _before(self, job: Job) -> dict[str, Any]:
        """What came before: the results that are replaced, for each profile, and the latest correction of the patient
        or order, as the job's revision knows it.
        """
        with self._read() as tx:
            corrections = tx.instances.corrections(job.study_uid, up_to_revision=job.revision)
            replaced = tx.instances.results_before(job) if job.send_to else {}
        supersedes: dict[str, dict[ResultReference, None]] = {}
        for peer in job.send_to:
            lying = (replace(r, path=r.path and self._files.absolute(str(r.path))) for r in replaced.get(peer, ()))
            supersedes.setdefault(self._profile(peer).name, {}).update(dict.fromkeys(lying))
        return {
            "supersedes": {name: tuple(references) for name, references in supersedes.items() if references},
            "identity": self._files.absolute(corrections[-1].path) if corrections else None,
        }

    def _keep(self, pending: list[Job], now: datetime, alone: Job | None = None) -> None:
        """Prolong leases; a job that lost its own is out of ``pending``, unless it runs ``alone``.

        Raises:
            LostLease: of that one.
        """
        for job in list(pending):
            try:
                with self._write() as tx:
                    tx.jobs.heartbeat(job, now=now, lease=self._lease)
            except LostLease as error:
                if job is alone:
                    raise
                _dropped(job, error)
                pending.remove(job)

    def _give_back(self, job: Job, reason: str) -> None:
        now = self._clock.now()
        free: dict[str, Any] = {"owner": None, "lease_until": None, "not_before": now, "attempt": job.attempt - 1}
        with self._write() as tx:
            move_job(tx, job, JobStep.RETRY, now, reason=reason, **free)

    def content(self, study_uid: str, revision: int) -> StudyContent:
        """What a revision of a study holds, by series."""
        with self._read() as tx:
            instances = tx.instances.of_study(study_uid, up_to_revision=revision)
        by_series: dict[str, list[InstanceFile]] = {}
        for i in instances:
            by_series.setdefault(i.series_uid, []).append(
                InstanceFile(
                    i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, i.digest, self._files.absolute(i.path)
                )
            )
        return StudyContent(
            study_uid, revision, tuple(SeriesContent(uid, tuple(found)) for uid, found in by_series.items())
        )

    def _finish(self, job: Job, output: JobOutput) -> None:
        now = self._clock.now()
        match output.outcome:
            case Outcome.SUCCEEDED:
                self._succeed(job, output, now)
            case Outcome.REFUSED:
                log.info("job %s: %s refused: %s", job.id, job.model.label, output.reason)
                with self._write() as tx:
                    self._oversight.answered(tx, move_job(tx, job, JobStep.REFUSE, now, **_ended(output, now)))
            case Outcome.FAILED:
                output = self._quarantined(job, output, now)
                reason = output.reason or "the version failed"
                handed_over = output.model_failed and self._oversight.model_failed(job, reason)
                if not handed_over or job.role is Role.REPLAY:
                    self._fail(job, output, now)

    def _quarantined(self, job: Job, output: JobOutput, now: datetime) -> JobOutput:
        """Objects that failed the check are kept for a person to look at; the reason says where."""
        if not output.problems:
            return output
        note = quarantine_note(job, output.problems, now)
        try:
            lie = f"lie in {self._files.quarantine(job_id=job.id, attempt=job.attempt, note=note)}"
        except (StorageFull, OSError) as error:
            lie = f"could not be kept: {error}"
        return replace(output, reason=f"{output.reason}; nothing was sent, the objects {lie}")

    def _succeed(self, job: Job, output: JobOutput, now: datetime) -> None:
        """Job done, its results and their deliveries: together or not at all."""
        paths = self._files.adopt([r.path for r in output.results], job_id=job.id, attempt=job.attempt)
        kept = [instance_of(job, r, path, now) for r, path in zip(output.results, paths, strict=True)]
        sets: dict[str, list[Instance]] = {}
        for result, instance in zip(output.results, kept, strict=True):
            sets.setdefault(result.profile, []).append(instance)
        rejections = {r.sop_instance_uid for r in output.results if r.rejects}
        with self._write() as tx:
            tx.instances.add(kept)
            reason = _overtaken(tx, job) if job.send_to else None
            peers = () if reason else job.send_to
            for peer in peers:
                results = sets.get(self._profile(peer).name, ())
                tx.deliveries.add(owed(job, results, peer, now, rejections=rejections))
            done = move_job(tx, job, JobStep.SUCCEED, now, **_ended(output, now) | {"reason": reason})
            self._oversight.answered(tx, done)
        to = ", ".join(peers) or "nobody"
        log.info("job %s: %s succeeded, %d results for %s", job.id, job.model.label, len(paths), to)

    def _fail(self, job: Job, output: JobOutput, now: datetime) -> None:
        again = output.retry and job.attempt < self._attempts
        then, model = "again" if again else "dead", job.model.label
        log.error("job %s: %s, attempt %d failed: %s; %s", job.id, model, job.attempt, output.reason, then)
        with self._write() as tx:
            if again:
                wait = backoff(job.attempt, base=self._retry, cap=self._retry * 32)
                move_job(tx, job, JobStep.RETRY, now, not_before=now + wait, **_ended(output, now))
            else:
                move_job(tx, job, JobStep.GIVE_UP, now, **_ended(output, now))


def quarantine_note(job: Job, problems: Sequence[str], now: datetime) -> dict[str, Any]:
    """What lies beside objects that failed the check; no patient data."""
    return {
        "job": job.id,
        "attempt": job.attempt,
        "study_uid": job.study_uid,
        "revision": job.revision,
        "model": job.model.label,
        "at": now.isoformat(),
        "problems": list(problems),
    }


def _dropped(job: Job, error: LostLease) -> None:
    log.warning("job %s: %s; its result is dropped", job.id, error)


def heart(
    clock: Clock, lease: timedelta, stopping: Callable[[], bool], keep: Callable[[datetime], None]
) -> Callable[[], None]:
    """What is called often during a run; prolongs the lease by ``keep`` each time a quarter of it has passed."""
    due = clock.now() + lease / 4

    def beat() -> None:
        nonlocal due
        if stopping():
            raise Interrupted("the node was stopped")
        now = clock.now()
        if now >= due:
            keep(now)
            due = now + lease / 4

    return beat


def release(tx: UnitOfWork, job: Job, now: datetime, reason: str, *, attempts: int) -> None:
    """Take a job back from a worker that is gone: queue it again, or end it where its attempts are used up."""
    free: dict[str, Any] = {"owner": None, "lease_until": None, "finished_at": now, "reason": reason}
    if job.attempt >= attempts:
        move_job(tx, job, JobStep.GIVE_UP, now, **free)
    else:
        move_job(tx, job, JobStep.LEASE_EXPIRED, now, not_before=now, **free)


def _ended(output: JobOutput, now: datetime) -> dict[str, Any]:
    return {
        "owner": None,
        "lease_until": None,
        "finished_at": now,
        "reason": output.reason,
        "findings": dict(output.findings) or None,
        "timings": dict(output.timings) or None,
    }


def _overtaken(tx: UnitOfWork, job: Job) -> str | None:
    """Why the results of a job that has just ended are not sent any more, if they are not."""
    corrections = tx.instances.corrections(job.study_uid, since_revision=job.revision + 1)
    if corrections:
        return f"not sent: patient or order were corrected in revision {corrections[-1].revision}"
    for other in tx.jobs.of_study(job.study_uid):
        same = (other.route, other.model.name) == (job.route, job.model.name)
        if same and other.created_at > job.created_at and other.send_to and other.state is JobState.SUCCEEDED:
            return f"not sent: job {other.id} of revision {other.revision} was done before it"
    return None
