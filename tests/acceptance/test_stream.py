"""A stream of studies through a worker that runs several beside each other: what one does harms no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from node.dicom.scu import StorageSender
from node.dicom.sink import Sink
from node.domain.job import Job
from node.domain.peer import Peer
from pipelines.phantom import SeriesOptions, write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from tests.running import RunningNode, eventually, free_port
from tests.stream_pipeline import Fate, install

pytestmark = pytest.mark.slow

ATTEMPTS = 2
TIMEOUT = 20  # seconds; a study that does no harm takes one or two
HEALTHY = 6
ROUTE = {"name": "all", "pipeline": "stream", "send_to": ["PACS"]}
STAT = {"name": "stat", "when": {"StudyDescription": "STAT"}, "pipeline": "stream", "priority": "stat", "send_to": []}

Start = Callable[..., RunningNode]


def study(folder: Path, seed: int, **header: str) -> tuple[str, list[Path]]:
    """StudyInstanceUID and files of a small phantom."""
    spec = PhantomSpec(shape=(12, 48, 48), spacing=(25.0, 7.5, 7.5), seed=f"stream {seed}")
    files = write_series(make_phantom(spec), folder / str(seed), SeriesOptions(header=header))
    return str(dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID), files


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Sink]:
    sink = Sink("PACS", free_port(), tmp_path / "pacs")
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture
def start(tmp_path: Path, pacs: Sink, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a node with the stream's pipeline; takes the fates and settings of ``work``."""
    nodes: list[RunningNode] = []

    def started(
        fates: dict[str, Fate], *, routes: object = (ROUTE,), stage: str = "serve", **work: object
    ) -> RunningNode:
        for name, value in install(tmp_path / "installed", fates).items():
            monkeypatch.setenv(name, value)
        settings = {"device": "cpu", "retry_seconds": 1, "attempts": ATTEMPTS, **work}
        node = RunningNode(tmp_path, pacs_port=pacs.port, routes=list(routes), work=settings)  # type: ignore[call-overload]
        nodes.append(node)
        return node.start(stage)

    yield started
    for node in nodes:
        node.close()


def send(node: RunningNode, files: list[Path]) -> None:
    def answered(index: int, status: int, comment: str) -> None:
        assert status == 0, comment

    StorageSender("CT1").send(Peer("node", "AINODE", "127.0.0.1", node.port), files, answered)


def jobs(node: RunningNode) -> dict[str, Job]:
    return {job.study_uid: job for job in node.rows()[1]}


def all_ended(node: RunningNode, number: int) -> bool:
    found = jobs(node)
    return len(found) == number and all(j.state.value in ("succeeded", "dead") for j in found.values())


@pytest.mark.long
def test_what_one_study_does_harms_no_other(start: Start, pacs: Sink, tmp_path: Path) -> None:
    studies = [study(tmp_path / "studies", seed) for seed in range(HEALTHY + len(Fate))]
    # The bad ones among the good ones, so that each has others beside it, before it and after it.
    bad = dict(zip((uid for uid, _ in studies[1::2]), Fate, strict=True))
    node = start(bad, timeout_seconds=TIMEOUT)
    for _, files in studies:
        send(node, files)
    eventually(lambda: all_ended(node, len(studies)), "every job has ended", seconds=280)
    ended = jobs(node)
    for uid, _ in studies:
        fate, job = bad.get(uid), ended[uid]
        if fate in (None, Fate.DIES_ONCE):
            assert (job.state.value, job.attempt) == ("succeeded", 1 if fate is None else 2), job.reason
        else:
            assert (job.state.value, job.attempt) == ("dead", ATTEMPTS), fate
    reasons = {fate: ended[uid].reason or "" for uid, fate in bad.items()}
    assert "signal 9" in reasons[Fate.DIES]
    assert "signal 9" in reasons[Fate.DIES_READING]
    assert f"ran longer than {TIMEOUT} s" in reasons[Fate.HANGS]
    assert f"ran longer than {TIMEOUT} s" in reasons[Fate.HANGS_READING]
    assert "OutOfMemory" in reasons[Fate.MEMORY]
    eventually(
        lambda: len(pacs.stored) == (HEALTHY + 1) * 15, "SEG, SR, a summary and 12 overlays of each are delivered"
    )
    assert set(pacs.stored.values()) == {1}


def test_jobs_run_beside_each_other(start: Start, tmp_path: Path) -> None:
    studies = [study(tmp_path / "studies", seed) for seed in range(3)]
    node = start({studies[0][0]: Fate.HANGS_READING}, timeout_seconds=600)
    for _, files in studies:
        send(node, files)
        eventually(lambda: jobs(node), "it is queued")
    eventually(lambda: len(jobs(node)) == len(studies), "all are queued")
    rest = [uid for uid, _ in studies[1:]]
    eventually(lambda: all(jobs(node)[uid].state.value == "succeeded" for uid in rest), "the others are done")
    assert jobs(node)[studies[0][0]].state.value == "running"


def test_a_stat_study_overtakes_what_waits(start: Start, tmp_path: Path) -> None:
    ahead = study(tmp_path / "studies", 0)
    routine = [study(tmp_path / "studies", seed) for seed in range(1, 5)]
    stat = study(tmp_path / "studies", 5, RequestedProcedurePriority="STAT")
    by_route = study(tmp_path / "studies", 6, StudyDescription="STAT")
    fates = {ahead[0]: Fate.HANGS}
    node = start(fates, routes=(ROUTE | {"when": {"StudyDescription": {"not_in": ["STAT"]}}}, STAT), beside=1)
    everything = [ahead, *routine, stat, by_route]
    for _, files in everything:
        send(node, files)
        eventually(lambda: jobs(node), "it is queued")
    eventually(lambda: len(jobs(node)) == len(everything), "all are queued")
    node.runners()[0].kill()  # the hanging one is to be tried again, and is older than all others
    eventually(lambda: sum(j.state.value == "succeeded" for j in jobs(node).values()) > 1, "two are done")
    done = sorted((j for j in jobs(node).values() if j.state.value == "succeeded"), key=lambda j: j.finished_at)
    assert {j.study_uid for j in done[:2]} == {stat[0], by_route[0]}


def test_every_device_has_its_own_worker(start: Start, tmp_path: Path) -> None:
    """Two that hang, each on a device of its own; with one device and one lane the second would wait."""
    studies = [study(tmp_path / "studies", seed) for seed in range(2)]
    node = start({uid: Fate.HANGS for uid, _ in studies}, device=["cpu", "cpu"], beside=1, timeout_seconds=600)
    for _, files in studies:
        send(node, files)
    eventually(
        lambda: [j.state.value for j in jobs(node).values()] == ["running", "running"], "both run at the same time"
    )
