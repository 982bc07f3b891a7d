"""A stored study revision under another version, because a person asks for it."""

from __future__ import annotations

from node.domain.audit import AuditEntry, Change
from node.domain.errors import IllegalStep, InvalidInput, required
from node.domain.job import Job, Role
from node.domain.model import KnownVersion, VersionState
from node.domain.priority import Priority
from node.domain.study import StudyState
from node.ports import Clock
from node.repositories import Transaction, UnitOfWork
from node.services.enqueue import queue_again

_NO_ROUTE = "replay"


class Replay:
    """Queues replays.

    Args:
        node: UID of this installation.
    """

    def __init__(self, write: Transaction, clock: Clock, *, node: str) -> None:
        self._write = write
        self._clock = clock
        self._node = node

    def replay(self, study_uid: str, known: KnownVersion, *, send: bool, who: str, why: str) -> Job:
        """Queue a version over the latest settled revision of a study. Its results are kept, with UIDs of their own.

        Args:
            send: also owe them to where the study's own results of this model went.

        Raises:
            NotFound: the study is not here.
            IllegalStep: no revision of it has settled, or the version cannot be used.
            InvalidInput: there is nowhere to send to, or no reason was given.
        """
        if not why.strip():
            raise InvalidInput("why", "is empty", "Say why: it is kept in the audit")
        if known.state is VersionState.FAILED or (send and known.state is not VersionState.READY):
            raise IllegalStep(f"{known.model.label} is {known.state.value}; only a ready version is sent from")
        now = self._clock.now()
        with self._write() as tx:
            revision = _settled(tx, study_uid)
            route, send_to, priority = _as_before(tx, study_uid, known.model.name)
            if send and not send_to:
                fix = "Replay it without sending"
                raise InvalidInput("send", f"no results of {known.model.name} on this study were sent anywhere", fix)
            job = queue_again(
                tx,
                self._node,
                (study_uid, revision),
                route,
                known.model,
                now,
                role=Role.REPLAY,
                send_to=send_to if send else (),
                priority=priority,
            )
            detail = {"study": study_uid, "revision": revision, "job": job.id, "send_to": list(job.send_to)}
            tx.audit.add(AuditEntry(now, who, Change.REPLAYED, known.model, why, detail))
        return job


def _settled(tx: UnitOfWork, study_uid: str) -> int:
    study = required(tx.studies.get(study_uid), f"study {study_uid}")
    if study.state is StudyState.EXPIRED:
        raise IllegalStep(f"the instances of study {study_uid} are not kept any more; send it again")
    revision = study.revision - 1 if study.state is StudyState.RECEIVING else study.revision
    if revision < 1:
        raise IllegalStep(f"study {study_uid} is still arriving; no revision of it has settled")
    return revision


def _as_before(tx: UnitOfWork, study_uid: str, name: str) -> tuple[str, tuple[str, ...], Priority]:
    """The route by which a model came to the study last, where its results went, and how urgent they were."""
    routed = [
        job
        for job in tx.jobs.of_study(study_uid)
        if job.model.name == name and job.role in (Role.CHAMPION, Role.CANARY)
    ]
    if not routed:
        return _NO_ROUTE, (), Priority.ROUTINE
    return routed[-1].route, routed[-1].send_to, routed[-1].priority
