"""What is kept for long enough is removed: studies that are done with, objects aside, quarantine, old rows.

A study goes in one transaction: its files are moved into the trash, its rows deleted, and that it went becomes a row.
Files in the trash without such a row belong to a transaction that never ended, and are put back; the others are
removed whenever there is time. So a crash leaves a study whole, or gone, and what arrives meanwhile stays.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from node.domain.errors import AinodeError, IllegalStep
from node.domain.instance import Instance
from node.domain.job import JobState
from node.domain.retention import UNFINISHED, Amount, Keep, Kind, QuarantinedRun, Removal, kept_by
from node.domain.study import Study, StudyStep
from node.ports import Clock, InstanceFiles, Trash
from node.repositories import Transaction, UnitOfWork
from node.services.steps import move_study

log = logging.getLogger(__name__)

_HISTORY_EVERY = timedelta(hours=6)  # it looks through whole tables
_MOST_CHUNKS = 50
_SCRATCH = timedelta(days=1)
_OPEN_COMMITMENT = "a peer has asked for storage commitment and was not told yet"
_BEING_SENT = "it is being sent"


@dataclass
class Due:
    """What may be removed now, by kind; ``held`` counts studies that are old enough, by what keeps them."""

    amounts: dict[Kind, Amount] = field(default_factory=lambda: dict.fromkeys(Kind, Amount()))
    held: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Retained:
    """What is kept, for how long, and what was removed; ``oldest_study``: when its last instance came."""

    keep: Keep
    removed: Mapping[Kind, Amount]
    oldest_study: datetime | None
    quarantine: tuple[QuarantinedRun, ...]


class Prune:
    """Removes what is old enough. One process at a time does; others do nothing meanwhile.

    Args:
        verified: names of the peers at which it is looked for what they were sent.
        index: gives rows to instances that have none.
        read_kept: rebuilds a row from a file; raises ``AinodeError`` or ``OSError`` when it cannot be read.
        being_sent: whether an association is open in which instances of a study were acknowledged.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        files: InstanceFiles,
        trash: Trash,
        keep: Keep,
        *,
        verified: Collection[str],
        index: Callable[[list[Instance]], None],
        read_kept: Callable[[str], Instance],
        being_sent: Callable[[str], bool] = lambda study_uid: False,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._trash = trash
        self._keep = keep
        self._verified = verified
        self._index = index
        self._read_kept = read_kept
        self._being_sent = being_sent
        self._history_at: datetime | None = None

    def recover(self) -> None:
        """Put back what a crash has left half-removed, before rows are rebuilt from disk; the rest can wait."""
        with self._trash.held() as ours:
            if ours:
                self._put_back()

    def prune(self) -> bool:
        """Remove what is old enough; False where another process is at it."""
        with self._trash.held() as ours:
            if not ours:
                return False
            self._finish()
            self._files.sweep()
            for study in self._old_studies():
                self._remove_study(study)
            self._asides()
            self._quarantine()
            self._scratch()
            self._history()
        return True

    def due(self) -> Due:
        """What `prune` would remove now; only reads."""
        found = Due()
        for study in self._old_studies():
            with self._read() as tx:
                why = self._kept_by(tx, study)
                contents = tx.retention.contents(study.study_uid)
            if why is None:
                found.amounts[Kind.STUDIES] += Amount(1, contents.size)
            else:
                found.held[why] += 1
        with self._read() as tx:
            if (before := self._before(self._keep.aside)) is not None:
                for aside in tx.retention.asides_before(before, limit=1_000_000):
                    found.amounts[Kind.ASIDE] += Amount(1, _size(self._files, aside.path))
            if (before := self._before(self._keep.history)) is not None:
                rows = sum(map(len, tx.retention.stale(before, limit=1_000_000).values()))
                found.amounts[Kind.HISTORY] += Amount(rows)
        for run in self._old_quarantine():
            found.amounts[Kind.QUARANTINE] += Amount(1, run.amount.size)
        return found

    def retained(self) -> Retained:
        """What is kept, and what was removed so far."""
        with self._read() as tx:
            removed, oldest = tx.retention.totals(), tx.retention.oldest_study()
        return Retained(self._keep, removed, oldest, tuple(self._trash.quarantined()))

    def _before(self, keep: timedelta | None) -> datetime | None:
        return None if keep is None else self._clock.now() - keep

    def _old_studies(self) -> Iterator[Study]:
        before, after = self._before(self._keep.studies), ""
        while before is not None:
            with self._read() as tx:
                chunk = tx.retention.routed_before(before, after=after)
            yield from chunk
            if not chunk:
                return
            after = chunk[-1].study_uid

    def _kept_by(self, tx: UnitOfWork, study: Study) -> str | None:
        before = self._clock.now() - (self._keep.studies or timedelta())
        if self._being_sent(study.study_uid):
            return _BEING_SENT
        jobs, deliveries = tx.jobs.of_study(study.study_uid), tx.deliveries.of_study(study.study_uid)
        if (why := kept_by(jobs, deliveries, self._verified, before)) is not None:
            return why
        return _OPEN_COMMITMENT if tx.retention.is_named_by_open_commitment(study.study_uid) else None

    def _remove_study(self, study: Study) -> None:
        with self._read() as tx:
            if self._kept_by(tx, study) is not None:
                return
        try:
            if not self._expire(study):
                return
        except IllegalStep:
            self._finish()  # somebody moved it at the same moment
            return
        except Exception:
            log.exception("study %s cannot be removed", study.study_uid)
            self._finish()
            return
        self._mend(study.study_uid)
        self._finish()

    def _expire(self, study: Study) -> bool:
        """Files into the trash and rows out of the tables, or neither."""
        now, uid = self._clock.now(), study.study_uid
        name = f"{uid}-{study.revision}"
        with self._write() as tx:
            if tx.studies.get(uid) != study or self._kept_by(tx, study) is not None:
                return False
            contents = tx.retention.contents(uid)
            self._trash.take(name, uid, contents)
            tx.retention.drop(uid)
            tx.retention.add_removal(Removal(name, uid, contents.size, now))
            detail = {"instances": len(contents.instances), "bytes": contents.size}
            move_study(tx, study, StudyStep.EXPIRE, now, detail, instances=0)
        log.info("study %s removed: %d instances, %d bytes", uid, len(contents.instances), contents.size)
        return True

    def _mend(self, study_uid: str) -> None:
        """What arrived while the rows went may have been taken for known, by a database that lets both go on."""
        paths = list(self._files.all_instances(study_uid))
        with self._read() as tx:
            known = tx.instances.indexed(paths)
        for path in paths:
            if path not in known:
                try:
                    self._index([self._read_kept(path)])
                except (AinodeError, OSError) as error:
                    log.error("cannot index %s: %s", path, error)

    def _put_back(self) -> list[Removal]:
        """Put back what is in the trash but not removed; returns what is removed."""
        with self._read() as tx:
            removals = tx.retention.removals()
        for name in set(self._trash.names()).difference(removal.name for removal in removals):
            log.warning("study %s is put back: its removal was interrupted", name)
            self._trash.put_back(name)
        return removals

    def _finish(self) -> None:
        """Empty the trash of what is removed, and put back the rest."""
        for removal in self._put_back():
            self._trash.empty(removal.name)
            with self._write() as tx:
                tx.retention.removed(removal.name)
                tx.retention.count(Kind.STUDIES, Amount(1, removal.size), self._clock.now())

    def _asides(self) -> None:
        before = self._before(self._keep.aside)
        while before is not None:
            # Rows first: a file without one is given one by the next start. And no file is removed while a transaction
            # holds up those who write.
            with self._write() as tx:
                old = tx.retention.asides_before(before)
                for aside in old:
                    tx.retention.drop_aside(aside.path)
            if not old:
                return
            gone = sum((Amount(1, self._trash.remove(aside.path).size) for aside in old), Amount())
            with self._write() as tx:
                tx.retention.count(Kind.ASIDE, gone, self._clock.now())
            log.info("%d objects aside removed: %d bytes", gone.number, gone.size)

    def _old_quarantine(self) -> Iterator[QuarantinedRun]:
        """Runs of jobs that nobody has to look at any more."""
        before = self._before(self._keep.quarantine)
        for run in self._trash.quarantined() if before is not None else ():
            with self._read() as tx:
                job = tx.jobs.get(run.job_id)
            if before is not None and run.at < before and (job is None or job.state not in UNFINISHED):
                yield run

    def _quarantine(self) -> None:
        for run in self._old_quarantine():
            size = self._trash.remove(run.path).size
            with self._write() as tx:
                tx.retention.count(Kind.QUARANTINE, Amount(1, size), self._clock.now())
            log.info("%s removed: %d bytes", run.path, size)

    def _scratch(self) -> None:
        """What jobs have left that were killed and never ran again."""
        for path, job_id in self._trash.scratch(self._clock.now() - _SCRATCH).items():
            with self._read() as tx:
                job = tx.jobs.get(job_id)
            if job is None or job.state is not JobState.RUNNING:
                self._trash.remove(path)

    def _history(self) -> None:
        now, before = self._clock.now(), self._before(self._keep.history)
        if before is None or (self._history_at is not None and now < self._history_at + _HISTORY_EVERY):
            return
        for _ in range(_MOST_CHUNKS):
            with self._read() as tx:
                stale = tx.retention.stale(before)
            if not stale:
                self._history_at = now
                return
            with self._write() as tx:
                number = tx.retention.drop_stale(stale)
                tx.retention.count(Kind.HISTORY, Amount(number), now)
            log.info("%d rows removed: %s", number, ", ".join(stale))


def _size(files: InstanceFiles, path: str) -> int:
    try:
        return files.absolute(path).stat().st_size
    except FileNotFoundError:
        return 0
