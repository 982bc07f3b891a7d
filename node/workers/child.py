"""The process that runs jobs: gets a ``JobInput`` through a pipe, answers with a ``JobOutput``; or tries a version.

It is spawned, not forked, so it starts clean; only here are torch and the pipelines loaded.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from node.domain.errors import AinodeError, InvalidModel
from node.domain.job import JobInput, JobOutput, Outcome
from node.domain.trial import TrialInput, TrialOutput
from node.observe.logs import configure
from node.services.run_batch import run_batch
from node.services.run_job import Turn, run_job
from node.services.try_out import try_out
from node.workers.local import Batch, Sign, WarmUp
from node.workers.supervise import end_with_parent
from node.workers.turn import DeviceTurn
from node.workers.warm import Warm
from pipelines.contract import BatchPipeline, Pipeline
from pipelines.read.selected import read
from pipelines.registry import open_version

log = logging.getLogger(__name__)


def main(pipe: Connection, parent: int, device: Path, warm_bytes: int, level: str, log_format: str) -> None:
    """Serve jobs until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent: it ends this process when it is done
    configure(level, log_format)
    end_with_parent(parent)
    turn = DeviceTurn(device, lambda waits: pipe.send(Sign.WAITS if waits else Sign.GOES_ON))
    runner = Runner(Warm(warm_bytes), turn)
    while True:
        try:
            work: JobInput | Batch | TrialInput | WarmUp = pipe.recv()
        except EOFError:
            return
        match work:
            case JobInput():
                pipe.send(runner.run(work))
            case Batch():
                pipe.send(runner.run_batch(work.jobs))
            case TrialInput():
                pipe.send(runner.try_out(work))
            case WarmUp():
                runner.warm_up(work)


class Runner:
    """Runs jobs; their pipelines are kept warm."""

    def __init__(self, warm: Warm, turn: Turn) -> None:
        self._warm = warm
        self._turn = turn

    def run(self, job: JobInput) -> JobOutput:
        """Run one job with the version that it is pinned to; its files are verified whenever it is opened."""
        model = job.provenance.model
        try:
            pipeline = self._pipeline(job)
        except AinodeError as error:
            failed = isinstance(error, InvalidModel)
            return JobOutput(Outcome.FAILED, reason=str(error), retry=error.retry, model_failed=failed)
        output, _ = run_job(job, pipeline, read, self._turn)
        if not output.model_failed:
            self._warm.keep(model, pipeline, job.version_dir)
        return replace(output, batches=isinstance(pipeline, BatchPipeline) and pipeline.batches)

    def run_batch(self, jobs: Sequence[JobInput]) -> list[JobOutput | None]:
        """Run jobs of one version together; None stands for one that has to run by itself."""
        first = jobs[0]
        try:
            pipeline = self._pipeline(first)
        except AinodeError as error:
            log.warning("%s cannot be opened for a batch: %s", first.provenance.model.label, error)
            return [None] * len(jobs)
        if not isinstance(pipeline, BatchPipeline):
            return [None] * len(jobs)
        outputs = run_batch(jobs, pipeline, read, self._turn)
        if any(outputs):
            self._warm.keep(first.provenance.model, pipeline, first.version_dir)
        return [output and replace(output, batches=True) for output in outputs]

    def _pipeline(self, job: JobInput) -> Pipeline:
        model = job.provenance.model
        return self._warm.take(model) or open_version(model, job.version_dir, trust_code=job.trust_code)

    def try_out(self, trial: TrialInput) -> TrialOutput:
        """Try a version from its files on disk, also where it is warm."""
        model = trial.provenance.model
        opened: list[Pipeline] = []

        def reopen() -> Pipeline:
            opened.append(open_version(model, trial.version_dir, trust_code=trial.trust_code))
            return opened[0]

        self._warm.take(model)
        output = try_out(trial, reopen, read, self._turn)
        if output.reason is None:
            self._warm.keep(model, opened[0], trial.version_dir)
        return output

    def warm_up(self, wanted: WarmUp) -> None:
        """Load a version. What fails here fails again, and is told, when a job wants it."""
        try:
            pipeline = open_version(wanted.model, wanted.version_dir, trust_code=wanted.trust_code)
            pipeline.load(wanted.device)
        except Exception:
            log.exception("%s cannot be loaded beforehand", wanted.model.label)
        else:
            self._warm.keep(wanted.model, pipeline, wanted.version_dir)
