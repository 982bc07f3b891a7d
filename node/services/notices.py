"""Jobs that ended without results: whoever is to be told of that gets a notice, once.

The mark on the job, the notice's row and its deliveries are written in one transaction. A crash before it leaves a file
that no row names, and the next look makes the notice again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation

from node.domain.errors import CheckFailed, StorageFull, TimedOut
from node.domain.events import Event, Subject
from node.domain.instance import Instance
from node.domain.job import Job, JobState, ResultFile
from node.domain.profile import FULL, NoticeKind, Profile
from node.ports import Clock, InstanceFiles
from node.repositories import Transaction
from node.services.owe import instance_of, owed
from node.services.work import Provenances, quarantine_note

log = logging.getLogger(__name__)

_STANDS_FOR_IT = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
_AGAIN = timedelta(seconds=60)
_LONGEST_REASON = 400


class Notices:
    """Gives notices. Several processes may look at the same jobs.

    Args:
        profiles: of the peers, by their name, as in `Work`.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        files: InstanceFiles,
        provenances: Provenances,
        profiles: Mapping[str, Profile],
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._provenances = provenances
        self._profiles = profiles
        self._waiting: dict[str, datetime] = {}

    def give(self) -> int:
        """Look at the jobs that have ended since the last look; returns how many notices were given."""
        now = self._clock.now()
        with self._read() as tx:
            ended = tx.jobs.unnoticed()
        return sum(self._give(job, now) for job in ended if self._waiting.get(job.id, now) <= now)

    def _give(self, job: Job, now: datetime) -> int:
        wanted = self._wanted(job)
        kept: dict[str, Instance] = {}
        problem = None
        try:
            if wanted:
                kept = self._kept(job, wanted, now)
        except CheckFailed as error:
            problem = f"its notice failed the check and was not sent: {error}"
            log.error("job %s: %s", job.id, problem)
        except (StorageFull, OSError) as error:
            log.error("job %s: its notice cannot be kept: %s; it is tried again", job.id, error)
            self._waiting[job.id] = now + _AGAIN
            return 0
        except Exception as error:
            # The edge: whatever this study's headers hold, the other notices are given.
            log.exception("job %s: its notice cannot be made", job.id)
            problem = f"its notice cannot be made: {type(error).__name__}: {error}"
        self._waiting.pop(job.id, None)
        return self._settle(job, kept, now, problem)

    def _kept(self, job: Job, wanted: Mapping[str, Profile], now: datetime) -> dict[str, Instance]:
        """The notice for each profile, made, checked and durable.

        Raises:
            CheckFailed: one is not as it has to be; then all are in quarantine, and the error says where.
        """
        from dicom_sr.compose import write

        scratch = f"{job.id}-notice"
        directory = self._files.job_dir(scratch, 1)
        try:
            # What the source says is passed on as it is, and pydicom's warnings would put it into the log.
            with disable_value_validation():
                headers = self._headers(job)
                written = write([self._made(job, profile, headers) for profile in wanted.values()], directory)
            if problems := _problems(written, wanted.values(), headers):
                note = quarantine_note(job, problems, now)
                raise CheckFailed(
                    [*problems, f"it lies in {self._files.quarantine(job_id=scratch, attempt=1, note=note)}"]
                )
            return {
                name: instance_of(job, result, self._keep(job, result), now)
                for name, result in zip(wanted, written, strict=True)
            }
        finally:
            self._files.clear_job_dir(scratch)

    def _wanted(self, job: Job) -> dict[str, Profile]:
        """The profiles that want a notice; none where another job stands for this one."""
        profiles = {p.name: p for p in map(self._profile, job.send_to) if p.notice is not NoticeKind.NONE}
        with self._read() as tx:
            beside = [j for j in tx.jobs.of_study(job.study_uid) if j.id != job.id and j.route == job.route]
        stands = any(j.send_to and j.revision >= job.revision and j.state in _STANDS_FOR_IT for j in beside)
        return {} if stands else profiles

    def _profile(self, peer: str) -> Profile:
        return self._profiles.get(peer, FULL)

    def _made(self, job: Job, profile: Profile, headers: Sequence[Dataset]) -> Dataset:
        from dicom_sr import notice

        provenance = self._provenances(job, job.finished_at or job.created_at)
        provenance = replace(provenance, qualification=profile.qualification or provenance.qualification)
        reason = job.reason or ""
        why = notice.NotRun.FAILED
        if job.state is JobState.REFUSED:
            why = notice.NotRun.REFUSED
        elif reason.startswith(TimedOut.__name__):
            why = notice.NotRun.TIMED_OUT
        return notice.build(provenance, why, reason[:_LONGEST_REASON], headers, profile=profile)

    def _headers(self, job: Job) -> list[Dataset]:
        """One of each series; the corrected one first, where patient or order were corrected, also since."""
        from dicom_sr.header import drop_broken_numbers

        with self._read() as tx:
            instances = tx.instances.of_study(job.study_uid, up_to_revision=job.revision)
            corrections = tx.instances.corrections(job.study_uid)
        first: dict[str, Instance] = {}
        for instance in sorted(instances, key=lambda i: i.sop_instance_uid):
            first.setdefault(instance.series_uid, instance)
        paths = [*(aside.path for aside in corrections[-1:]), *(instance.path for instance in first.values())]
        headers: list[Dataset] = [dcmread(self._files.absolute(path), stop_before_pixels=True) for path in paths]
        for header in headers:
            drop_broken_numbers(header)
        return headers

    def _keep(self, job: Job, result: ResultFile) -> str:
        """Keep it beside the results of the job's attempts; what a crash has left of it there is left there."""
        for attempt in count(job.attempt):
            try:
                (path,) = self._files.adopt([result.path], job_id=job.id, attempt=attempt)
            except FileExistsError:
                continue
            return path
        raise AssertionError("count has no end")

    def _settle(self, job: Job, kept: Mapping[str, Instance], now: datetime, problem: str | None) -> int:
        """The mark, the rows and the event: together or not at all, and once."""
        with self._write() as tx:
            if not tx.jobs.mark_noticed(job):
                return 0  # another process was first, or the job has been queued again
            if problem:
                tx.jobs.update(job, replace(job, noticed=True, reason=f"{job.reason or job.state.value}; {problem}"))
            fresh = {name: i for name, i in kept.items() if tx.instances.get(i.sop_instance_uid) is None}
            tx.instances.add(fresh.values())
            peers = [peer for peer in job.send_to if self._profile(peer).name in fresh]
            for peer in peers:
                tx.deliveries.add(owed(job, [fresh[self._profile(peer).name]], peer, now))
            if peers or problem:
                tx.journal.add(_event(job, peers, problem, now))
        if peers:
            log.info("job %s: %s; notice for %s", job.id, job.state.value, ", ".join(peers))
        return len(fresh)


def _problems(written: Sequence[ResultFile], profiles: Iterable[Profile], headers: Sequence[Dataset]) -> list[str]:
    from dicom_sr.check import check_notice
    from dicom_sr.judge import judged

    found = [
        f"{profile.name}: {problem}"
        for result, profile in zip(written, profiles, strict=True)
        for problem in check_notice(result.path, headers, profile=profile)
    ]
    return found + judged([result.path for result in written])


def _event(job: Job, peers: Sequence[str], problem: str | None, at: datetime) -> Event:
    return Event(
        subject=Subject.JOB,
        subject_id=job.id,
        study_uid=job.study_uid,
        step="notice",
        at=at,
        detail={"route": job.route, "peers": list(peers)} | ({"problem": problem} if problem else {}),
    )
