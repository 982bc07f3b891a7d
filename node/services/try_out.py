"""The gate of a version, in the process that runs jobs: verify, load, warm up, golden case. No database, no network."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from node.domain.comparison import unexpected
from node.domain.errors import AinodeError, InvalidInput, InvalidModel, Transient
from node.domain.finding import Findings
from node.domain.job import JobInput, JobOutput, Outcome
from node.domain.trial import TrialInput, TrialOutput
from node.services.from_disk import study_of_files
from node.services.run_job import Alone, Read, Stages, Turn, load, run_job
from pipelines.contract import Pipeline
from pipelines.devices import real_device

log = logging.getLogger(__name__)

# `run_job` that was told how to read, and whose turn it is.
RunJob = Callable[[JobInput, Pipeline], tuple[JobOutput, Findings | None]]

GOLDEN, INPUT, EXPECTED = "golden", "input", "expected.json"


def try_out(
    trial: TrialInput, open_version: Callable[[], Pipeline], read: Read, turn: Turn | None = None
) -> TrialOutput:
    """Try a version on this device; never raises: what it did not pass is the reason.

    Args:
        open_version: verifies the files of the version and gives its pipeline.
        turn: to use the device; None where no job does.
    """
    stage = Stages(Alone())
    reason: str | None = None
    model_failed = False
    try:
        _try_out(trial, open_version, partial(run_job, read=read, turn=turn), stage)
    except AinodeError as error:
        reason, model_failed = str(error), isinstance(error, InvalidModel)
    except MemoryError:
        reason = "the host had too little memory"
    except Exception as error:
        log.exception("trial of %s: unexpected error", trial.provenance.model.label)
        reason, model_failed = f"{type(error).__name__}: {error}", True
    stage.end()
    return TrialOutput(reason, stage.seconds, model_failed, real_device(trial.device))


def _try_out(trial: TrialInput, open_version: Callable[[], Pipeline], run: RunJob, stage: Stages) -> None:
    stage("verify")
    pipeline = open_version()
    stage("load")
    load(pipeline, trial.device)
    golden = None if trial.version_dir is None else trial.version_dir / GOLDEN
    if golden is None or not golden.is_dir():
        if not trial.without_golden:
            fix = "Add the version with --golden, or go on with --without-golden, which the audit will show"
            raise InvalidInput(GOLDEN, f"{trial.provenance.model.label} has no golden case", fix)
        return
    # The first run warms up: kernels are chosen and compiled, memory is taken. The second one is held to the findings.
    job = _golden_job(trial, golden / INPUT)
    stage("warm up")
    _run(run, job, pipeline)
    stage("golden case")
    output = _run(run, job, pipeline)
    problems = unexpected(_expected(golden / EXPECTED), output.outcome, output.findings)
    if problems:
        said = "; ".join([*problems, *([output.reason] if output.reason else [])])
        raise InvalidModel(f"{GOLDEN}/{EXPECTED}", said, "Find out why this device gives other findings")


def _run(run: RunJob, job: JobInput, pipeline: Pipeline) -> JobOutput:
    output, _ = run(job, pipeline)
    if output.outcome is Outcome.FAILED:
        said = f"the golden case fails: {output.reason}"
        raise Transient(said) if output.retry else InvalidModel(GOLDEN, said, "Mend the version and add it again")
    return output


def _golden_job(trial: TrialInput, folder: Path) -> JobInput:
    """The golden case as a job.

    Raises:
        InvalidInput: its folder does not hold one study.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return JobInput(trial.provenance, study_of_files(files, folder), trial.device, trial.scratch)


def _expected(path: Path) -> dict[str, Any]:
    try:
        expected = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidModel(
            f"{GOLDEN}/{EXPECTED}", f"cannot be read: {error}", "Write what `ainode run --json` prints"
        ) from None
    if not isinstance(expected, dict):
        raise InvalidModel(f"{GOLDEN}/{EXPECTED}", "is no JSON object", "Write what `ainode run --json` prints")
    return expected
