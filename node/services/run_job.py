"""One job, from its input to its output: select, read, analyse, compose, write, check. No database, no network."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation

from dicom_sr.check import check
from dicom_sr.compose import compose, write
from dicom_sr.header import drop_broken_numbers
from dicom_sr.judge import judged
from dicom_sr.recode import recoded
from node.domain.errors import AinodeError, CheckFailed, InvalidModel, OutOfMemory, Refused
from node.domain.finding import Findings
from node.domain.job import JobInput, JobOutput, Outcome, ResultFile
from node.domain.study import SeriesContent
from node.domain.volume import Volume
from pipelines.contract import BESIDE_THE_DEVICE, Pipeline, Selection

log = logging.getLogger(__name__)

Read = Callable[[Selection], Sequence[Volume]]  # what findings lie on comes first


class Turn(Protocol):
    """The right to use the device, which jobs that run beside each other share."""

    def take(self) -> float:
        """Wait for it, unless it is taken already; returns the seconds waited."""
        ...

    def leave(self) -> None:
        """Give it to the next; nothing where it is not taken."""
        ...


class Alone:
    """The turn of a job that has the device for itself."""

    def take(self) -> float:
        """It is there."""
        return 0.0

    def leave(self) -> None:
        """Nobody waits for it."""


class Stages:
    """Seconds spent in each stage, in order; ``wait`` is the time until the device was free."""

    def __init__(self, turn: Turn) -> None:
        self.seconds: dict[str, float] = {}
        self._turn = turn
        self._name: str | None = None
        self._since = time.monotonic()

    def __call__(self, name: str) -> None:
        """End the running stage and start the next, with the device where the stage uses it."""
        self._stop()
        if name in BESIDE_THE_DEVICE:
            self._turn.leave()
        elif waited := self._turn.take():
            self.seconds["wait"] = round(self.seconds.get("wait", 0.0) + waited, 3)
        self._name, self._since = name, time.monotonic()

    def end(self) -> None:
        """End the running stage, and leave the device."""
        self._stop()
        self._turn.leave()

    def _stop(self) -> None:
        if self._name is not None:
            spent = time.monotonic() - self._since
            self.seconds[self._name] = round(self.seconds.get(self._name, 0.0) + spent, 3)
            self._name = None


def run_job(
    job: JobInput, pipeline: Pipeline, read: Read, turn: Turn | None = None
) -> tuple[JobOutput, Findings | None]:
    """Run one job; never raises: every end is an outcome. The findings come along for whoever prints them.

    Args:
        turn: to use the device; None where no other job does.
    """
    stage = Stages(turn or Alone())
    findings: Findings | None = None
    try:
        findings, output = _run(job, pipeline, read, stage)
    except Exception as error:  # noqa: BLE001  (`ended` says it, and logs what was not expected)
        output = ended(error, job)
    stage.end()
    return told(output, stage, findings, job), findings


def ended(error: Exception, job: JobInput) -> JobOutput:
    """How a job ended that raised ``error``."""
    match error:
        case Refused():
            return JobOutput(Outcome.REFUSED, reason=f"{error.code}: {error.reason}")
        case MemoryError():
            return _failed(OutOfMemory("the host had too little memory"))
        case CheckFailed():
            return replace(_failed(error), problems=tuple(error.problems))
        case AinodeError():
            return _failed(error)
    log.error("job %s: unexpected error", job.provenance.job_id, exc_info=error)
    return JobOutput(Outcome.FAILED, reason=f"{type(error).__name__}: {error}", retry=True)


def _failed(error: AinodeError) -> JobOutput:
    reason = f"{type(error).__name__}: {error}"
    return JobOutput(Outcome.FAILED, reason=reason, retry=error.retry, model_failed=isinstance(error, InvalidModel))


def load(pipeline: Pipeline, device: str) -> None:
    """Load a pipeline to a device.

    Raises:
        InvalidModel: it does not load, for a reason of its own.
    """
    try:
        pipeline.load(device)
    except (AinodeError, MemoryError):
        raise
    except Exception as error:
        log.exception("%s does not load", pipeline.model.label)
        said = f"does not load: {type(error).__name__}: {error}"
        raise InvalidModel(pipeline.model.label, said, "Take it back with `ainode models rollback`") from error


def told(output: JobOutput, stage: Stages, findings: Findings | None, job: JobInput) -> JobOutput:
    """``output`` with what was read, and how long each stage took."""
    sources = (*findings.volume.sources, *findings.also_read) if findings else ()
    read = {source.sop_instance_uid for source in sources}
    digests = {
        i.sop_instance_uid: i.digest for s in job.study.series for i in s.instances if i.sop_instance_uid in read
    }
    return replace(output, timings=stage.seconds, inputs=digests)


@dataclass(frozen=True)
class Chosen:
    """What a job reads, and that it was read."""

    selection: Selection
    volumes: Sequence[Volume]

    def complete(self, findings: Findings) -> Findings:
        """Findings with what only the selection knows."""
        others = tuple(source for other in self.volumes[1:] for source in other.sources)
        return replace(findings, series_notes=self.selection.not_taken, also_read=others)


def choose(job: JobInput, pipeline: Pipeline, read: Read, stage: Stages) -> Chosen:
    """Select and read.

    Raises:
        Refused: nothing here is for the model, or what is cannot be read.
        InvalidInstance: a stored file is damaged.
    """
    stage("select")
    selection = pipeline.select(job.study)
    stage("read")
    return Chosen(selection, read(selection))


def _run(job: JobInput, pipeline: Pipeline, read: Read, stage: Stages) -> tuple[Findings, JobOutput]:
    chosen = choose(job, pipeline, read, stage)
    stage("load")
    load(pipeline, job.device)
    volume, *others = chosen.volumes
    return conclude(job, chosen, pipeline.analyse(volume, stage, *others), stage)


def conclude(job: JobInput, chosen: Chosen, found: Findings, stage: Stages) -> tuple[Findings, JobOutput]:
    """From what was found to the results, written and checked.

    Raises:
        CheckFailed: some object is not as it has to be.
    """
    findings = chosen.complete(found)
    stage("compose")
    headers = _headers(chosen.volumes[0], chosen.selection.series)
    results = _results(job, findings, headers, stage)
    stage.end()
    return findings, JobOutput(Outcome.SUCCEEDED, results=results, findings=findings.summary())


def _results(job: JobInput, findings: Findings, headers: list[Dataset], stage: Stages) -> tuple[ResultFile, ...]:
    """The result sets of every profile, each in a folder of its own where there are several, all of them checked.

    Raises:
        CheckFailed: some object is not as it has to be. Then none of them is to be sent, of no profile.
    """
    identified = None if job.identity is None else dcmread(job.identity, stop_before_pixels=True)
    results: list[ResultFile] = []
    problems: list[str] = []
    for profile in job.profiles:
        folder = job.out_dir if len(job.profiles) == 1 else job.out_dir / profile.name
        folder.mkdir(exist_ok=True)
        stage("compose")
        supersedes = job.supersedes.get(profile.name, ())
        # What the source says is passed on as it is, and pydicom's warnings would put it into the log.
        with disable_value_validation():
            composed = compose(job.provenance, findings, headers, profile, supersedes=supersedes, identified=identified)
            syntax = profile.transfer_syntax
            written = [recoded(replace(r, profile=profile.name), syntax) for r in write(composed, folder)]
        stage("check")
        paths = [result.path for result in written]
        # The judge is a program of its own: it looks at the objects while the check does.
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(judged, _samples(written))
            found = check(paths, headers, findings, profile=profile, supersedes=supersedes, identified=identified)
            found += second.result()
        problems += [problem if len(job.profiles) == 1 else f"{profile.name}: {problem}" for problem in found]
        results += written
    if problems:
        raise CheckFailed(problems)
    return tuple(results)


def _samples(results: Sequence[ResultFile]) -> list[Path]:
    """The first and the last object of each class in each series: the others of it are like them."""
    first = {(r.series_uid, r.sop_class_uid): r.path for r in reversed(results)}
    last = {(r.series_uid, r.sop_class_uid): r.path for r in results}
    return list(dict.fromkeys((*first.values(), *last.values())))


def _headers(volume: Volume, series: SeriesContent) -> list[Dataset]:
    """The header behind every slice; slices of one multi-frame instance share one object."""
    paths = {i.sop_instance_uid: i.path for i in series.instances}
    cache: dict[str, Dataset] = {}
    return [_header(s.sop_instance_uid, paths, cache) for s in volume.sources]


def _header(uid: str, paths: dict[str, Path], cache: dict[str, Dataset]) -> Dataset:
    if uid not in cache:
        cache[uid] = dcmread(paths[uid], stop_before_pixels=True)
        drop_broken_numbers(cache[uid])
    return cache[uid]
