"""The process that runs jobs: it may take too long or die, and the next job runs all the same."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from node.domain.errors import ChildLost, Interrupted, TimedOut
from node.domain.job import JobInput, JobOutput, Outcome, Provenance
from node.domain.model import ModelVersion, Qualification
from node.offline import study_of
from node.workers.local import Device, LocalEngine, WarmUp
from node.workers.turn import DeviceTurn
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from pipelines.registry import model_version
from tests.running import eventually

pytestmark = pytest.mark.slow

LONG = timedelta(seconds=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("phantom")
    write_series(make_phantom(PhantomSpec(shape=(60, 128, 128), spacing=(5.0, 2.8, 2.8))), made)
    return made


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "device")


@pytest.fixture
def engine(device: Device) -> Iterator[LocalEngine]:
    made = LocalEngine(device, log_level="info", log_format="text")
    yield made
    made.close()


def job(folder: Path, out: Path, model: ModelVersion | None = None) -> JobInput:
    out.mkdir(exist_ok=True)
    provenance = Provenance(
        "6f1c1d1e-0000-5000-8000-000000000001",
        model or model_version("lung_density_ct"),
        Qualification.RESEARCH,
        datetime.now(UTC),
        "ainode",
        "2.25.1",
        "0.1",
    )
    return JobInput(provenance, study_of(folder), "cpu", out)


def run(engine: LocalEngine, task: JobInput, timeout: timedelta = LONG) -> JobOutput:
    return engine.run(task, timeout=timeout, beat=lambda: None)


def test_too_long_is_stopped_and_the_next_job_runs(engine: LocalEngine, folder: Path, tmp_path: Path) -> None:
    task = job(folder, tmp_path / "out")
    with pytest.raises(TimedOut, match="longer than 0 s"):
        run(engine, task, timedelta(seconds=0.2))
    assert engine.pid is None
    output = run(engine, task)
    assert output.outcome is Outcome.SUCCEEDED
    assert set(output.inputs) == {i.sop_instance_uid for i in task.study.series[0].instances}
    assert {"select", "read", "segment", "compose", "check"} <= set(output.timings)


def test_a_child_that_dies_is_told_and_replaced(engine: LocalEngine, folder: Path, tmp_path: Path) -> None:
    engine.warm()
    pid = engine.pid
    assert pid is not None
    killer = threading.Thread(target=lambda: (time.sleep(1.0), psutil.Process(pid).kill()))
    killer.start()
    with pytest.raises(ChildLost, match="signal 9"):
        run(engine, job(folder, tmp_path / "out"))
    killer.join()
    assert run(engine, job(folder, tmp_path / "out")).outcome is Outcome.SUCCEEDED


def test_what_is_expected_is_loaded_before_a_job_comes(engine: LocalEngine, folder: Path, tmp_path: Path) -> None:
    wanted = WarmUp(model_version("lung_density_ct"), "cpu")
    engine.warm([replace(wanted, model=replace(wanted.model, name="nothing")), wanted])
    eventually(lambda: "libtorch" in Path(f"/proc/{engine.pid}/maps").read_text(), "torch is loaded")
    assert run(engine, job(folder, tmp_path / "out")).outcome is Outcome.SUCCEEDED


@pytest.mark.long
def test_waiting_for_the_device_is_not_held_against_a_job(
    engine: LocalEngine, device: Device, folder: Path, tmp_path: Path
) -> None:
    """The timeout is shorter than the wait, and longer than the run."""
    limit = timedelta(seconds=20)
    ahead = DeviceTurn(device.lock, lambda waits: None)
    ahead.take()
    engine.warm()
    threading.Timer(limit.total_seconds() + 5, ahead.leave).start()
    output = run(engine, job(folder, tmp_path / "out"), limit)
    assert output.outcome is Outcome.SUCCEEDED
    assert output.timings["wait"] > 1


def test_who_dies_with_the_device_gives_it_back(
    engine: LocalEngine, device: Device, folder: Path, tmp_path: Path
) -> None:
    holds = "import sys, time; from pathlib import Path; from node.workers.turn import DeviceTurn; "
    holds += "DeviceTurn(Path(sys.argv[1]), print).take(); print('taken', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", holds, str(device.lock)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"taken\n"
        killer = threading.Timer(5, other.kill)
        killer.start()
        output = run(engine, job(folder, tmp_path / "out"))
        killer.join()
    assert output.outcome is Outcome.SUCCEEDED


def test_what_a_beat_raises_ends_the_run(engine: LocalEngine, folder: Path, tmp_path: Path) -> None:
    def beat() -> None:
        raise Interrupted("the node was stopped")

    with pytest.raises(Interrupted):
        engine.run(job(folder, tmp_path / "out"), timeout=LONG, beat=beat)
    assert engine.pid is None


def test_a_job_pinned_to_another_version_is_not_run(engine: LocalEngine, folder: Path, tmp_path: Path) -> None:
    other = ModelVersion("lung_density_ct", "0.9", "0" * 64)
    output = run(engine, job(folder, tmp_path / "out", other))
    assert output.outcome is Outcome.FAILED
    assert not output.retry
    assert "pinned to lung_density_ct@0.9" in (output.reason or "")
