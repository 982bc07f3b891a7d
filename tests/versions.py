"""Model versions for tests: bundles of the kind ``tests.threshold_kind``, and a house that knows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.domain.job import Job, JobInput, JobOutput, JobState, Role
from node.domain.model import KnownVersion, ModelVersion, VersionState
from node.domain.rollout import Bounds, Rollout
from node.domain.trial import Trial, Wish
from node.services.gate import Gate
from node.services.register import Source
from node.services.run_job import Alone
from node.services.work import Work
from node.workers.child import Runner
from node.workers.warm import Warm
from tests.builders import tiny_series
from tests.house import House, succeed
from tests.threshold_kind import KIND

WHY = "the test wants it"


def write_bundle(folder: Path, **content: Any) -> Path:
    """A bundle on disk; ``below`` is its threshold."""
    folder.mkdir(parents=True)
    (folder / "threshold.json").write_text(json.dumps({"below": -500.0, **content}))
    return folder


def write_golden(folder: Path, **expected: Any) -> Path:
    """A golden case: a tiny phantom, and what is expected of it."""
    (folder / "input").mkdir(parents=True)
    tiny_series(folder / "input")
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


class ModelHouse(House):
    """A house with a registered model beside the installed one, which leads."""

    def add(self, version: str, *, golden: Path | None = None, name: str = "lung", **content: Any) -> KnownVersion:
        """Register a version of the threshold kind."""
        bundle = write_bundle(self.files.absolute(f"sources/{name}-{version}"), of=version, **content)
        source = Source(str(bundle), name, version, kind=KIND, golden=golden)
        return self.register.add(source, who="ann", why=WHY)

    def give(self, version: KnownVersion, role: Role, *, share: int = 0, bounds: Bounds | None = None) -> Trial:
        """Ask for a role, and let the gate pass."""
        self.rollouts.refresh()
        trial = self.rollouts.request(version.model, Wish(role, share, bounds or Bounds()), who="ann", why=WHY)
        assert self.gate().work()
        return self.models.trial(trial.id)

    def rollout(self) -> Rollout:
        """Who runs."""
        with self.database.read() as tx:
            found = tx.rollouts.get("lung")
        assert found is not None
        return found

    def state(self, model: ModelVersion) -> VersionState:
        with self.database.read() as tx:
            known = tx.versions.get(model)
        assert known is not None
        return known.state

    def route(self, *studies: str) -> list[Job]:
        """Studies received, settled and routed; all their jobs."""
        self.assemble.index([self.receive(f"{s}.1.1", study=s, series=f"{s}.1") for s in studies])
        self.clock.tick(11)
        while self.assemble.settle():
            pass
        while self.dispatch.route():
            pass
        return self.jobs(*studies)

    def jobs(self, *studies: str) -> list[Job]:
        with self.database.read() as tx:
            return [job for study in studies for job in tx.jobs.of_study(study)]

    def job_in(self, role: Role, study: str) -> Job:
        """The job of a study in a role that was not cancelled."""
        (job,) = [j for j in self.jobs(study) if j.role is role and j.state is not JobState.CANCELLED]
        return job

    def audited(self) -> list[tuple[str, str, str]]:
        """Who changed what, in order: who, change, version."""
        return [(e.who, e.change.value, e.model.version) for e in reversed(self.models.audit(limit=1000))]

    def work_off(self, run: Callable[[JobInput], JobOutput] = succeed, **options: Any) -> None:
        """Run everything that is due."""
        worker = self.worker(run, **options)
        while worker.work():
            pass

    def real_gate(self) -> Gate:
        """A gate that really opens and tries versions, in this process."""
        return self.gate(Runner(Warm(0), Alone()).try_out)

    def real_worker(self) -> Work:
        """A worker that really opens versions and runs them, in this process."""
        return self.worker(Runner(Warm(0), Alone()).run)


def each_named(job: JobInput) -> JobOutput:
    """A run that succeeds, with result UIDs of its own for every job."""
    return succeed(job, prefix=str(int(job.provenance.job_id.replace("-", ""), 16)))
