"""The life of a job in a worker: claim, run in a process of its own, write how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from node.domain.delivery import Delivery, DeliveryState, backoff
from node.domain.errors import AinodeError, Interrupted, LostLease
from node.domain.instance import Instance, Origin
from node.domain.job import Job, JobInput, JobOutput, JobState, JobStep, Outcome, Provenance, ResultFile
from node.domain.study import InstanceFile, SeriesContent, StudyContent
from node.ports import Clock, Engine, InstanceFiles, Transaction, UnitOfWork
from node.services.steps import job_event, move_job

log = logging.getLogger(__name__)

# Gives the provenance of a job from the job and the time its analysis starts.
Provenances = Callable[[Job, datetime], Provenance]


class Work:
    """Claims one job at a time and runs it.

    Args:
        owner: this process, as it is written into leases.
        attempts: how often a job is claimed before it goes dead.
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
        *,
        owner: str,
        device: str,
        attempts: int,
        lease: timedelta,
        timeout: timedelta,
        retry: timedelta,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stopping = stopping
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._engine = engine
        self._provenances = provenances
        self._owner = owner
        self._device = device
        self._attempts = attempts
        self._lease = lease
        self._timeout = timeout
        self._retry = retry

    def work(self) -> bool:
        """Run one job, if there is one that is due; says whether there was."""
        with self._write() as tx:
            job = tx.jobs.claim(owner=self._owner, now=self._clock.now(), lease=self._lease)
            if job is not None:
                tx.journal.add(job_event(job, JobStep.CLAIM, JobState.QUEUED.value, self._clock.now()))
        if job is None:
            return False
        log.info("job %s: study %s, %s, attempt %d", job.id, job.study_uid, job.model.label, job.attempt)
        try:
            output = self._run(job)
            self._finish(job, output)
        except LostLease as error:
            log.warning("job %s: %s; its result is dropped", job.id, error)
        except Interrupted as error:
            self._give_back(job, str(error))
        finally:
            self._files.clear_job_dir(job.id)
        return True

    def _run(self, job: Job) -> JobOutput:
        started = self._clock.now()
        task = JobInput(
            provenance=self._provenances(job, started),
            study=self.content(job.study_uid, job.revision),
            device=self._device,
            out_dir=self._files.job_dir(job.id, job.attempt),
        )
        try:
            return self._engine.run(task, timeout=self._timeout, beat=self._heart(job))
        except (LostLease, Interrupted):
            raise
        except AinodeError as error:
            return JobOutput(Outcome.FAILED, reason=f"{type(error).__name__}: {error}", retry=error.retry)

    def _heart(self, job: Job) -> Callable[[], None]:
        """Called often; prolongs the lease each time a quarter of it has passed."""
        due = self._clock.now() + self._lease / 4

        def beat() -> None:
            nonlocal due
            if self._stopping():
                raise Interrupted("the node was stopped")
            now = self._clock.now()
            if now >= due:
                with self._write() as tx:
                    tx.jobs.heartbeat(job, now=now, lease=self._lease)
                due = now + self._lease / 4

        return beat

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
                log.info("job %s: refused: %s", job.id, output.reason)
                with self._write() as tx:
                    move_job(tx, job, JobStep.REFUSE, now, **_ended(output, now))
            case Outcome.FAILED:
                self._fail(job, output, now)

    def _succeed(self, job: Job, output: JobOutput, now: datetime) -> None:
        """Job done, its results and their deliveries: together or not at all."""
        paths = self._files.adopt([r.path for r in output.results], job_id=job.id, attempt=job.attempt)
        with self._write() as tx:
            tx.instances.add(_instance(job, r, path, now) for r, path in zip(output.results, paths, strict=True))
            tx.deliveries.add(
                _delivery(job, result, path, peer, position, now)
                for peer in job.send_to
                for position, (result, path) in enumerate(zip(output.results, paths, strict=True))
            )
            move_job(tx, job, JobStep.SUCCEED, now, **_ended(output, now))
        log.info("job %s: succeeded, %d results for %s", job.id, len(paths), ", ".join(job.send_to) or "nobody")

    def _fail(self, job: Job, output: JobOutput, now: datetime) -> None:
        again = output.retry and job.attempt < self._attempts
        log.error("job %s: attempt %d failed: %s; %s", job.id, job.attempt, output.reason, "again" if again else "dead")
        with self._write() as tx:
            if again:
                wait = backoff(job.attempt, base=self._retry, cap=self._retry * 32)
                move_job(tx, job, JobStep.RETRY, now, not_before=now + wait, **_ended(output, now))
            else:
                move_job(tx, job, JobStep.GIVE_UP, now, **_ended(output, now))


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


def _instance(job: Job, result: ResultFile, path: str, now: datetime) -> Instance:
    return Instance(
        sop_instance_uid=result.sop_instance_uid,
        sop_class_uid=result.sop_class_uid,
        study_uid=result.study_uid,
        series_uid=result.series_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        digest=result.digest,
        size=result.size,
        path=path,
        origin=Origin.RESULT,
        at=now,
        job_id=job.id,
    )


def _delivery(job: Job, result: ResultFile, path: str, peer: str, position: int, now: datetime) -> Delivery:
    return Delivery(
        id=0,
        job_id=job.id,
        study_uid=result.study_uid,
        sop_instance_uid=result.sop_instance_uid,
        sop_class_uid=result.sop_class_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        path=path,
        peer=peer,
        state=DeliveryState.PENDING,
        attempt=0,
        position=position,
        created_at=now,
        not_before=now,
    )
