"""One job, from its input to its output: select, read, analyse, compose, write, check. No database, no network."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_sr.check import check
from dicom_sr.compose import compose, write
from node.domain.errors import AinodeError, CheckFailed, OutOfMemory, Refused
from node.domain.finding import Findings
from node.domain.job import JobInput, JobOutput, Outcome, ResultFile
from node.domain.study import SeriesContent
from node.domain.volume import Volume
from pipelines.contract import Pipeline

log = logging.getLogger(__name__)

ReadVolume = Callable[[SeriesContent], Volume]


class Stages:
    """Seconds spent in each stage, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name: str | None = None
        self._since = time.monotonic()

    def __call__(self, name: str) -> None:
        """End the running stage and start the next."""
        self.end()
        self._name, self._since = name, time.monotonic()

    def end(self) -> None:
        """End the running stage."""
        if self._name is not None:
            spent = time.monotonic() - self._since
            self.seconds[self._name] = round(self.seconds.get(self._name, 0.0) + spent, 3)
            self._name = None


def run_job(job: JobInput, pipeline: Pipeline, read: ReadVolume) -> tuple[JobOutput, Findings | None]:
    """Run one job; never raises: every end is an outcome. The findings come along for whoever prints them."""
    stage = Stages()
    findings: Findings | None = None
    try:
        findings, results = _run(job, pipeline, read, stage)
        output = JobOutput(Outcome.SUCCEEDED, results=results, findings=findings.summary())
    except Refused as refusal:
        output = JobOutput(Outcome.REFUSED, reason=f"{refusal.code}: {refusal.reason}")
    except MemoryError:
        output = _failed(OutOfMemory("the host had too little memory"))
    except AinodeError as error:
        output = _failed(error)
    except Exception as error:
        log.exception("job %s: unexpected error", job.provenance.job_id)
        output = JobOutput(Outcome.FAILED, reason=f"{type(error).__name__}: {error}", retry=True)
    stage.end()
    return _timed(output, stage, findings, job), findings


def _failed(error: AinodeError) -> JobOutput:
    return JobOutput(Outcome.FAILED, reason=f"{type(error).__name__}: {error}", retry=error.retry)


def _timed(output: JobOutput, stage: Stages, findings: Findings | None, job: JobInput) -> JobOutput:
    read = {s.sop_instance_uid for s in findings.volume.sources} if findings else set()
    digests = {
        i.sop_instance_uid: i.digest for s in job.study.series for i in s.instances if i.sop_instance_uid in read
    }
    return JobOutput(
        output.outcome, output.reason, output.retry, output.results, output.findings, stage.seconds, digests
    )


def _run(job: JobInput, pipeline: Pipeline, read: ReadVolume, stage: Stages) -> tuple[Findings, tuple[ResultFile, ...]]:
    stage("select")
    selection = pipeline.select(job.study)
    stage("read")
    volume = read(selection.series)
    stage("load")
    pipeline.load(job.device)
    findings = replace(pipeline.analyse(volume, stage), series_notes=selection.not_taken)
    stage("compose")
    headers = _headers(volume, selection.series)
    results = write(compose(job.provenance, findings, headers), job.out_dir)
    stage("check")
    problems = check([r.path for r in results], headers, findings)
    if problems:
        raise CheckFailed(problems)
    return findings, tuple(results)


def _headers(volume: Volume, series: SeriesContent) -> list[Dataset]:
    """The header behind every slice; slices of one multi-frame instance share one object."""
    paths = {i.sop_instance_uid: i.path for i in series.instances}
    cache: dict[str, Dataset] = {}
    return [_header(s.sop_instance_uid, paths, cache) for s in volume.sources]


def _header(uid: str, paths: dict[str, Path], cache: dict[str, Dataset]) -> Dataset:
    if uid not in cache:
        cache[uid] = dcmread(paths[uid], stop_before_pixels=True)
    return cache[uid]
