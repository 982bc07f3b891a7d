"""From a settled study to jobs: every route is asked, every answer is kept with its reason.

The rollout of the pipeline chooses the version, which is written on the job.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from node.domain.errors import AinodeError
from node.domain.instance import Aside, Instance
from node.domain.job import Job, JobState
from node.domain.priority import Priority, of_procedure
from node.domain.rollout import choose
from node.domain.route import NO_ROUTE, Decision, Route, decide
from node.domain.study import Study, StudyState, StudyStep
from node.ports import Clock, InstanceFiles
from node.repositories import Transaction, UnitOfWork
from node.services.correct import IDENTITY
from node.services.enqueue import Installed, hand_over, new_job, queue
from node.services.rollout import rollout_of
from node.services.steps import move_study

log = logging.getLogger(__name__)

_PROCEDURE_PRIORITY = "RequestedProcedurePriority"


class Dispatch:
    """Asks every route about a settled study and creates the jobs, in one transaction a study.

    Args:
        models: gives the installed version of a pipeline, which leads where no rollout says otherwise.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        files: InstanceFiles,
        routes: Sequence[Route],
        models: Installed,
        *,
        node: str,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._routes = routes
        self._models = models
        self._node = node

    def route(self) -> int:
        """Route every settled study; returns how many."""
        with self._read() as tx:
            settled = tx.studies.in_state(StudyState.SETTLED)
        for study in settled:
            self._route_one(study)
        return len(settled)

    def _route_one(self, study: Study) -> None:
        with self._read() as tx:
            instances = tx.instances.of_study(study.study_uid, up_to_revision=study.revision)
            corrections = tx.instances.corrections(study.study_uid, up_to_revision=study.revision)
        series = self._attributes(instances, corrections[-1] if corrections else None)
        now = self._clock.now()
        with self._write() as tx:
            if tx.studies.get(study.study_uid) != study:
                return  # an instance came in between: the next revision is routed instead
            decisions = [self._ask(tx, study, route, series, now) for route in self._routes]
            if not any(d.matched for d in decisions):
                reason = "no route took the study" if decisions else "no routes are configured"
                decisions.append(Decision(study.study_uid, study.revision, NO_ROUTE, False, reason, now))
            for decision in decisions:
                tx.journal.add_decision(decision)
            taken = [d.route for d in decisions if d.matched]
            move_study(tx, study, StudyStep.ROUTE, now, {"routes": taken})

    def renew(self) -> int:
        """Replace queued jobs whose model version is no longer installed (the node was upgraded) by jobs of the version
        that is; returns how many."""
        with self._read() as tx:
            queued = tx.jobs.latest(limit=10_000, state=JobState.QUEUED)
        return sum(self._renew_one(job) for job in queued)

    def _renew_one(self, job: Job) -> bool:
        with self._read() as tx:
            known = tx.versions.get(job.model)
        if known is not None and known.path is not None:
            return False
        try:
            model = self._models(job.model.name)
            if model == job.model:
                return False
            now = self._clock.now()
            with self._write() as tx:
                rollout = rollout_of(tx, job.model.name, self._models)
                reason = f"{job.model.label} is no longer installed; {rollout.champion.label} takes over"
                hand_over(tx, self._node, job, rollout, reason, now)
        except AinodeError as error:
            log.error("job %s: %s", job.id, error)
            return False
        log.warning("job %s: %s", job.id, reason)
        return True

    def _attributes(
        self, instances: Iterable[Instance], corrected: Aside | None
    ) -> dict[str, Mapping[str, Sequence[str]]]:
        first: dict[str, Instance] = {}
        for instance in sorted(instances, key=lambda i: i.sop_instance_uid):
            first.setdefault(instance.series_uid, instance)
        wanted = keywords(self._routes)
        found = {uid: attributes(self._files.absolute(i.path), wanted) for uid, i in first.items()}
        about_whom = [keyword for keyword in wanted if keyword in IDENTITY]
        if corrected is None or not about_whom:
            return dict(found)
        believed = attributes(self._files.absolute(corrected.path), about_whom)
        stays = {uid: {k: v for k, v in each.items() if k not in about_whom} for uid, each in found.items()}
        return {uid: {**each, **believed} for uid, each in stays.items()}

    def _ask(
        self,
        tx: UnitOfWork,
        study: Study,
        route: Route,
        series: Mapping[str, Mapping[str, Sequence[str]]],
        at: datetime,
    ) -> Decision:
        matched, reason = decide(route, series)
        if not matched:
            return Decision(study.study_uid, study.revision, route.name, False, reason, at)
        try:
            rollout = rollout_of(tx, route.pipeline, self._models)
        except AinodeError as error:
            log.error("route %s: pipeline %s: %s", route.name, route.pipeline, error)
            return Decision(study.study_uid, study.revision, route.name, False, f"{reason}; but {error}", at)
        choice = choose(rollout, study.study_uid)
        pinned = (study.study_uid, study.revision)
        urgent = urgency(route, series)
        send_to = route.send_to
        job = new_job(
            self._node, pinned, route.name, choice.model, at, role=choice.role, send_to=send_to, priority=urgent
        )
        queue(tx, job)
        for model, role in choice.unsent:
            queue(tx, new_job(self._node, pinned, route.name, model, at, role=role))
        return Decision(study.study_uid, study.revision, route.name, True, reason, at, job.id)


def urgency(route: Route, series: Mapping[str, Mapping[str, Sequence[str]]]) -> Priority:
    """How urgent a study is: as its route says, and higher where a header says so."""
    named = [of_procedure(term) for found in series.values() for term in found.get(_PROCEDURE_PRIORITY, ())]
    return max([route.priority, *named])


def keywords(routes: Iterable[Route]) -> list[str]:
    """The keywords that any route asks for, and that of the priority."""
    return sorted({_PROCEDURE_PRIORITY, *(condition.keyword for route in routes for condition in route.when)})


def attributes(path: Path, wanted: Sequence[str]) -> dict[str, list[str]]:
    """The wanted elements of a file, each as the list of its components in text.

    A file that cannot be read has no attributes: then conditions fail with "absent", and the decision shows it.
    """
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=[*wanted, "SpecificCharacterSet"])
    except (InvalidDicomError, OSError, ValueError) as error:
        log.warning("cannot read the header of %s: %s", path.name, type(error).__name__)
        return {}
    found: dict[str, list[str]] = {}
    for keyword in wanted:
        value = header.get(keyword)
        if value is not None and value != "":
            found[keyword] = [str(v) for v in value] if isinstance(value, MultiValue) else [str(value)]
    return found
