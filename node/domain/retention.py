"""How long what the node holds is kept, and what keeps it longer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain

from node.domain.delivery import Delivery, DeliveryState
from node.domain.job import Job, JobState


class Kind(StrEnum):
    """What is removed."""

    STUDIES = "studies"  # with results and corrections
    ASIDE = "aside"  # but corrections
    QUARANTINE = "quarantine"  # what one run made that failed the check
    HISTORY = "history"  # rows alone


@dataclass(frozen=True)
class Keep:
    """For how long, by `Kind`; None is for ever."""

    studies: timedelta | None = None
    aside: timedelta | None = None
    quarantine: timedelta | None = None
    history: timedelta | None = None


@dataclass(frozen=True)
class Amount:
    """How many, and the bytes of their files: studies, objects, runs or rows, by the kind of what is counted."""

    number: int = 0
    size: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.number + other.number, self.size + other.size)


@dataclass(frozen=True)
class Removal:
    """Files that no row names any more, on their way out: a folder of the trash, by its name."""

    name: str
    study_uid: str
    size: int
    at: datetime


@dataclass(frozen=True)
class Contents:
    """The files of a study, relative to the data directory.

    ``instances`` are those that came, ``asides`` its corrections; ``jobs`` are ids, whose results go as a whole.
    """

    instances: frozenset[str]
    asides: tuple[str, ...]
    jobs: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class QuarantinedRun:
    """What one run made that failed the check; ``at`` is when, ``path`` a folder, ``job_id`` the job that ran."""

    path: str
    job_id: str
    at: datetime
    amount: Amount


_WAITS = (JobState.QUEUED, JobState.RUNNING)
UNFINISHED = (*_WAITS, JobState.DEAD)


def kept_by(
    jobs: Iterable[Job], deliveries: Iterable[Delivery], verified: Collection[str], before: datetime
) -> str | None:
    """Why a study may not be removed yet, None where all of it is done for long enough.

    Args:
        verified: the peers at which it is looked for what they were sent.
        before: all has to be done since then.
    """
    by_job = (_kept_by_job(job, before) for job in jobs)
    by_delivery = (_kept_by_delivery(delivery, verified, before) for delivery in deliveries)
    return next((why for why in chain(by_job, by_delivery) if why is not None), None)


def _kept_by_job(job: Job, before: datetime) -> str | None:
    if job.state in _WAITS:
        return "a job waits or runs"
    if job.state is JobState.DEAD:
        return "a job is dead: requeue or dismiss it"
    if job.state is JobState.REFUSED and not job.noticed:
        return "a notice is still to be given"
    return "a job ended too lately" if job.finished_at is None or job.finished_at >= before else None


def _kept_by_delivery(delivery: Delivery, verified: Collection[str], before: datetime) -> str | None:
    if delivery.state in (DeliveryState.PENDING, DeliveryState.SENDING):
        return "a result is not delivered yet"
    if delivery.state is DeliveryState.DEAD:
        return "a delivery is dead: requeue or dismiss it"
    if delivery.state is DeliveryState.DELIVERED and delivery.verify_at is not None and delivery.peer in verified:
        return "a result is not verified yet"
    lately = delivery.delivered_at is not None and delivery.delivered_at >= before
    return "a result was delivered too lately" if lately else None
