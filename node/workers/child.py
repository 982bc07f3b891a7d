"""The process that runs jobs: gets a ``JobInput`` through a pipe, answers with a ``JobOutput``.

It is spawned, not forked, so it starts clean; only here are torch and the pipelines loaded.
"""

from __future__ import annotations

import logging
import signal
from multiprocessing.connection import Connection

from node.domain.errors import AinodeError
from node.domain.job import JobInput, JobOutput, Outcome
from node.observe.logs import configure
from node.services.run_job import run_job
from node.workers.supervise import end_with_parent
from pipelines.contract import Pipeline
from pipelines.read.volume import read_volume
from pipelines.registry import create

log = logging.getLogger(__name__)


def main(pipe: Connection, parent: int, level: str, log_format: str) -> None:
    """Serve jobs until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent: it ends this process when it is done
    configure(level, log_format)
    end_with_parent(parent)
    pipelines = _Pipelines()
    while True:
        try:
            job: JobInput = pipe.recv()
        except EOFError:
            return
        pipe.send(pipelines.run(job))


class _Pipelines:
    """Pipelines by name, kept warm."""

    def __init__(self) -> None:
        self._warm: dict[str, Pipeline] = {}

    def run(self, job: JobInput) -> JobOutput:
        """Run one job with the pipeline that its model version names."""
        model = job.provenance.model
        try:
            pipeline = self._warm.get(model.name) or create(model.name)
        except AinodeError as error:
            return JobOutput(Outcome.FAILED, reason=str(error), retry=error.retry)
        if pipeline.model != model:
            found = pipeline.model.label
            return JobOutput(Outcome.FAILED, reason=f"the job is pinned to {model.label}, installed is {found}")
        self._warm[model.name] = pipeline
        return run_job(job, pipeline, read_volume)[0]
