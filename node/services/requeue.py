"""A person gives a dead job or delivery another chance; the event says who."""

from __future__ import annotations

from node.domain.delivery import DELIVERY, Delivery, DeliveryStep
from node.domain.errors import IllegalStep, NotFound
from node.domain.job import JOB, Job, JobStep
from node.domain.machine import sources
from node.ports import Clock
from node.repositories import Transaction
from node.services.steps import move_delivery, move_job


class Requeue:
    """Puts dead jobs and deliveries back into their queues, with all their attempts and their time anew."""

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
            job = tx.jobs.get(job_id)
            if job is None:
                raise NotFound(f"no job {job_id} is known")
            if job.state not in sources(JOB, JobStep.REQUEUE):
                raise IllegalStep(f"job {job_id} is {job.state.value}; only a dead job can be requeued")
            return move_job(
                tx,
                job,
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
            delivery = tx.deliveries.get(delivery_id)
            if delivery is None:
                raise NotFound(f"no delivery {delivery_id} is known")
            if delivery.state not in sources(DELIVERY, DeliveryStep.REQUEUE):
                raise IllegalStep(f"delivery {delivery_id} is {delivery.state.value}; only a dead one can be requeued")
            return move_delivery(
                tx,
                delivery,
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
