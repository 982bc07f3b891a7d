"""A person gives a dead job or delivery another chance, or says that it needs none; the event says who."""

from __future__ import annotations

from node.domain.delivery import DELIVERY, Delivery, DeliveryStep
from node.domain.errors import IllegalStep, required
from node.domain.job import JOB, Job, JobStep
from node.domain.machine import sources
from node.ports import Clock
from node.repositories import Transaction, UnitOfWork
from node.services.steps import move_delivery, move_job

_PAST = {"requeue": "requeued", "dismiss": "dismissed"}


class Requeue:
    """Puts dead jobs and deliveries back into their queues, with all attempts and all their time, or ends them."""

    def __init__(self, write: Transaction, clock: Clock) -> None:
        self._write = write
        self._clock = clock

    def requeue_job(self, job_id: str, actor: str) -> Job:
        """Queue a dead job again.

        Args:
            actor: who asked for it, written on the event.

        Raises:
            NotFound: there is no such job.
            IllegalStep: it is not dead.
            LostLease: somebody else moved it at the same moment.
        """
        now = self._clock.now()
        with self._write() as tx:
            return move_job(
                tx,
                _dead_job(tx, job_id, JobStep.REQUEUE),
                JobStep.REQUEUE,
                now,
                actor=actor,
                attempt=0,
                not_before=now,
                started_at=None,
                finished_at=None,
                reason=None,
                findings=None,
                timings=None,
            )

    def requeue_delivery(self, delivery_id: int, actor: str) -> Delivery:
        """Make a dead delivery pending again.

        Args:
            actor: who asked for it, written on the event.

        Raises:
            NotFound: there is no such delivery.
            IllegalStep: it is not dead.
            LostLease: somebody else moved it at the same moment.
        """
        now = self._clock.now()
        with self._write() as tx:
            return move_delivery(
                tx,
                _dead_delivery(tx, delivery_id, DeliveryStep.REQUEUE),
                DeliveryStep.REQUEUE,
                now,
                actor=actor,
                attempt=0,
                not_before=now,
                created_at=now,  # the time after which a delivery is given up runs from here
                delivered_at=None,
                verify_at=None,
                transaction_uid=None,
                missing=0,
                status=None,
                reason=None,
                refusals=0,
            )

    def dismiss_job(self, job_id: str, actor: str) -> Job:
        """A dead job was looked at, and is not to run again: nothing waits for it any more.

        Raises:
            NotFound, LostLease: as above.
            IllegalStep: it is not dead, or who is to be told of its end has not been told yet.
        """
        now = self._clock.now()
        with self._write() as tx:
            job = _dead_job(tx, job_id, JobStep.DISMISS)
            if not job.noticed:
                raise IllegalStep(f"job {job_id} has only just ended; dismiss it when its notice was given")
            return move_job(tx, job, JobStep.DISMISS, now, actor=actor)

    def dismiss_delivery(self, delivery_id: int, actor: str) -> Delivery:
        """A dead delivery was looked at, and is not to be sent any more.

        Raises:
            NotFound, IllegalStep, LostLease: as above.
        """
        now = self._clock.now()
        with self._write() as tx:
            delivery = _dead_delivery(tx, delivery_id, DeliveryStep.DISMISS)
            return move_delivery(tx, delivery, DeliveryStep.DISMISS, now, actor=actor)


def _dead_job(tx: UnitOfWork, job_id: str, step: JobStep) -> Job:
    job = required(tx.jobs.get(job_id), f"job {job_id}")
    if job.state not in sources(JOB, step):
        raise IllegalStep(f"job {job_id} is {job.state.value}; only a dead job can be {_PAST[step.value]}")
    return job


def _dead_delivery(tx: UnitOfWork, delivery_id: int, step: DeliveryStep) -> Delivery:
    delivery = required(tx.deliveries.get(delivery_id), f"delivery {delivery_id}")
    if delivery.state not in sources(DELIVERY, step):
        said = f"delivery {delivery_id} is {delivery.state.value}"
        raise IllegalStep(f"{said}; only a dead one can be {_PAST[step.value]}")
    return delivery
