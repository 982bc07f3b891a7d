"""Several jobs of one version of images: read beside each other, analysed as one batch, each ended by itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from node.domain.errors import AinodeError
from node.domain.finding import Findings
from node.domain.job import JobInput, JobOutput
from node.services.run_job import Alone, Chosen, Read, Stages, Turn, choose, conclude, ended, load, told
from pipelines.contract import BatchPipeline

log = logging.getLogger(__name__)

_AT_ONCE = min(4, len(os.sched_getaffinity(0)))


class _Run:
    """One job of a batch. What goes wrong with it is its own output, and nobody else's."""

    def __init__(self, job: JobInput) -> None:
        self.job = job
        self.stage = Stages(Alone())
        self.chosen: Chosen | None = None
        self.findings: Findings | None = None
        self.output: JobOutput | None = None

    def attempt(self, step: Callable[[], None]) -> None:
        """Take a step, unless one failed before."""
        if self.output is not None:
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001  (`ended` says it, and logs what was not expected)
            self.output = ended(error, self.job)
            self.stage.end()

    def read(self, pipeline: BatchPipeline, read: Read) -> None:
        self.chosen = choose(self.job, pipeline, read, self.stage)
        self.stage.end()

    def conclude(self, found: Findings | Exception) -> None:
        if isinstance(found, Exception):
            raise found
        assert self.chosen is not None, "what was not read was not analysed"
        self.findings, self.output = conclude(self.job, self.chosen, found, self.stage)


def run_batch(
    jobs: Sequence[JobInput], pipeline: BatchPipeline, read: Read, turn: Turn | None = None
) -> list[JobOutput | None]:
    """Run them; never raises. None stands for a job that has to run by itself, because the batch failed.

    Seconds of the stages that they share are divided among them.

    Args:
        jobs: all of the version that ``pipeline`` is.
        turn: to use the device; None where no other job does.
    """
    runs = [_Run(job) for job in jobs]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda run: run.attempt(lambda: run.read(pipeline, read)), runs))
    ready = [run for run in runs if run.output is None]
    shared = Stages(turn or Alone())
    try:
        found = _analyse(ready, pipeline, shared) if ready else []
    except Exception as error:
        if not isinstance(error, AinodeError):
            log.exception("a batch of %d failed", len(ready))
        log.warning("a batch of %d of %s failed: %s", len(ready), pipeline.model.label, error)
        found = []
    finally:
        shared.end()
    for run, each in zip(ready, found, strict=False):
        for name, seconds in shared.seconds.items():
            run.stage.seconds[name] = round(seconds / len(ready), 4)
        run.attempt(lambda run=run, each=each: run.conclude(each))  # type: ignore[misc]
    return [run.output and told(run.output, run.stage, run.findings, run.job) for run in runs]


def _analyse(ready: Sequence[_Run], pipeline: BatchPipeline, stage: Stages) -> Sequence[Findings | Exception]:
    stage("load")
    load(pipeline, ready[0].job.device)
    found = pipeline.analyse_batch([run.chosen.volumes for run in ready if run.chosen], stage)
    if len(found) != len(ready):
        raise RuntimeError(f"{len(found)} findings for a batch of {len(ready)}")
    return found
