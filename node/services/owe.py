"""What a job has made, as rows, and as it is owed to a peer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from node.domain.delivery import Delivery, DeliveryState
from node.domain.instance import Instance, Origin
from node.domain.job import Job, ResultFile


def instance_of(job: Job, result: ResultFile, path: str, now: datetime) -> Instance:
    """The row of a result of a job; ``path`` is where it was kept."""
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


def owed(
    job: Job, results: Sequence[Instance], peer: str, now: datetime, *, rejections: Collection[str] = ()
) -> Iterator[Delivery]:
    """A set of results as it is owed to a peer, in sending order: the last one closes it, and what rejects comes after.

    Args:
        rejections: SOPInstanceUIDs of those that withdraw earlier results; they end ``results``.
    """
    last = len([r for r in results if r.sop_instance_uid not in rejections]) - 1
    for position, result in enumerate(results):
        yield Delivery(
            id=0,
            job_id=job.id,
            study_uid=result.study_uid,
            sop_instance_uid=result.sop_instance_uid,
            sop_class_uid=result.sop_class_uid,
            transfer_syntax_uid=result.transfer_syntax_uid,
            path=result.path,
            peer=peer,
            state=DeliveryState.PENDING,
            attempt=0,
            position=position,
            created_at=now,
            not_before=now,
            priority=job.priority,
            closes=position >= last,
            rejects=result.sop_instance_uid in rejections,
        )
