"""The gate: a version gets its role only when it has passed on this device, and each way to fail is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.domain.errors import ChildLost, InvalidInput, NotFound
from node.domain.job import JobInput, Role
from node.domain.model import ModelVersion, VersionState
from node.domain.rollout import Bounds
from node.domain.trial import Trial, TrialInput, TrialOutput, TrialState, Wish
from node.services.from_disk import study_of_files
from node.services.gate import release_trial
from node.services.rollout import Rollouts
from node.services.run_job import run_job
from pipelines.devices import real_device
from pipelines.read.selected import read
from tests.builders_results import PROVENANCE
from tests.house import MODEL
from tests.threshold_kind import Threshold
from tests.versions import WHY, ModelHouse, write_golden

pytestmark = pytest.mark.usefixtures("threshold_kind")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ModelHouse]:
    house = ModelHouse(tmp_path / "var")
    house.rollouts.refresh()
    yield house
    house.close()


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A golden case that the default threshold passes: recorded by running it."""
    folder = write_golden(tmp_path / "golden")
    (tmp_path / "out").mkdir()
    study = study_of_files((folder / "input").iterdir(), folder)
    pipeline = Threshold(PROVENANCE.model, {"below": -500.0})
    output, _ = run_job(JobInput(PROVENANCE, study, "cpu", tmp_path / "out"), pipeline, read)
    assert output.findings["regions"]["low"]["measurements"]["volume_ml"]["value"] > 0
    (folder / "expected.json").write_text(json.dumps({"outcome": "succeeded", "findings": dict(output.findings)}))
    return folder


def asked(house: ModelHouse, version: str, wish: Wish, **content: object) -> Trial:
    known = house.add(version, **content)  # type: ignore[arg-type]
    return house.rollouts.request(known.model, wish, who="ann", why=WHY)


def tried(house: ModelHouse, trial: Trial) -> Trial:
    assert house.real_gate().work()
    return house.models.trial(trial.id)


def test_a_version_that_passes_becomes_the_champion(house: ModelHouse, golden: Path) -> None:
    trial = asked(house, "1", Wish(Role.CHAMPION), golden=golden)
    assert house.models.show("lung").rollout == house.models.all()[0].rollout
    ended = tried(house, trial)
    assert (ended.state, ended.reason, ended.device) == (TrialState.PASSED, None, "cpu")
    assert list(ended.stages or {}) == ["verify", "load", "warm up", "golden case"]
    assert (house.rollout().champion, house.rollout().previous) == (trial.model, (MODEL,))
    assert house.state(trial.model) is VersionState.READY
    entry = house.models.audit(limit=1)[0]
    assert (entry.who, entry.change.value, entry.model, entry.why) == ("ann", "activated", trial.model, WHY)
    assert entry.detail["champion"] == trial.model.label
    assert not house.real_gate().work()
    assert list(house.files.absolute("work").iterdir()) == []


def test_the_device_that_was_meant_by_auto_is_told(house: ModelHouse) -> None:
    trial = asked(house, "1", Wish(Role.CHAMPION))
    assert house.gate(lambda given: TrialOutput(None, {}, device="cuda:3")).work()
    assert house.models.trial(trial.id).device == "cuda:3"
    assert (real_device("cuda:1"), real_device("cpu")) == ("cuda:1", "cpu")
    assert real_device("auto") in ("cpu", "cuda:0")


def fails(house: ModelHouse, trial: Trial, reason: str) -> None:
    ended = tried(house, trial)
    assert ended.state is TrialState.FAILED
    assert reason in (ended.reason or "")
    assert house.models.show("lung").rollout is not None
    assert house.models.show("lung").rollout.champion == MODEL  # type: ignore[union-attr]
    assert house.audited()[-1][1] == "failed"


def test_a_file_that_has_changed_does_not_pass(house: ModelHouse, golden: Path) -> None:
    trial = asked(house, "1", Wish(Role.CHAMPION), golden=golden)
    (path,) = house.files.absolute("models/lung").glob("*/bundle/threshold.json")
    path.write_text(path.read_text().replace("-500", "-501"))
    fails(house, trial, "bundle/threshold.json: has changed since registration")
    assert house.state(trial.model) is VersionState.FAILED


def test_a_network_that_does_not_load_does_not_pass(house: ModelHouse, golden: Path) -> None:
    trial = asked(house, "1", Wish(Role.CHAMPION), golden=golden, load="size mismatch for conv.weight")
    fails(house, trial, "does not load: RuntimeError: size mismatch for conv.weight")
    assert house.state(trial.model) is VersionState.FAILED


def test_findings_that_are_not_expected_do_not_pass(house: ModelHouse, golden: Path) -> None:
    trial = asked(house, "1", Wish(Role.CHAMPION), golden=golden, below=-900.0)
    fails(house, trial, "golden/expected.json: low.volume_ml is")
    assert house.state(trial.model) is VersionState.FAILED


def test_a_warm_up_that_fails_does_not_pass(house: ModelHouse, golden: Path) -> None:
    trial = asked(house, "1", Wish(Role.CHAMPION), golden=golden, below="text")
    fails(house, trial, "the golden case fails: UFuncTypeError")
    assert list(house.models.trial(trial.id).stages or {}) == ["verify", "load", "warm up"]


def test_too_little_memory_is_not_held_against_the_version(house: ModelHouse, golden: Path) -> None:
    trial = asked(house, "1", Wish(Role.CHAMPION), golden=golden, load="memory")
    fails(house, trial, "the device has too little memory")
    assert house.state(trial.model) is VersionState.REGISTERED


def test_a_version_without_a_golden_case_passes_only_when_that_is_waived(house: ModelHouse) -> None:
    trial = asked(house, "1", Wish(Role.CHAMPION))
    fails(house, trial, "has no golden case. Add the version with --golden")
    waived = house.rollouts.request(trial.model, Wish(Role.CHAMPION, without_golden=True), who="ann", why=WHY)
    assert tried(house, waived).state is TrialState.PASSED
    assert house.models.audit(limit=1)[0].detail["golden case"] == "waived"


def test_a_child_that_dies_fails_the_trial_and_not_the_worker(house: ModelHouse) -> None:
    def dies(trial: TrialInput) -> TrialOutput:
        raise ChildLost("the process that ran the job died (signal 9)")

    trial = asked(house, "1", Wish(Role.CHAMPION))
    assert house.gate(dies).work()
    assert "signal 9" in (house.models.trial(trial.id).reason or "")


def test_a_node_that_stops_gives_the_trial_back(house: ModelHouse) -> None:
    trial = asked(house, "1", Wish())
    assert house.gate(stopping=True).work()
    waiting = house.models.trial(trial.id)
    assert (waiting.state, waiting.attempt, waiting.owner) == (TrialState.QUEUED, 0, None)


def test_a_trial_whose_worker_died_is_tried_again_and_then_ends(house: ModelHouse) -> None:
    trial = asked(house, "1", Wish())
    for _ in range(2):
        with house.database.write() as tx:
            claimed = tx.trials.claim(
                owner="gone", now=house.clock.now(), lease=house.clock.tick(1) - house.clock.now()
            )
            assert claimed is not None
            release_trial(tx, claimed, house.clock.now(), attempts=2)
    ended = house.models.trial(trial.id)
    assert (ended.state, ended.reason) == (TrialState.FAILED, "its worker died each time")


@pytest.mark.parametrize("role", [Role.CANARY, Role.SHADOW])
def test_the_champion_gets_no_second_role(house: ModelHouse, role: Role) -> None:
    known = house.add("1")
    canary = house.rollouts.request(known.model, Wish(role, 100), who="ann", why=WHY)
    house.give(known, Role.CHAMPION)  # tried after the canary, asked for later
    house.gate().work()
    again = Wish(role, 100, Bounds())
    with pytest.raises(InvalidInput, match="is the champion"):
        house.rollouts.request(known.model, again, who="ann", why=WHY)
    assert house.models.trial(canary.id).state is TrialState.PASSED


def test_there_is_no_canary_without_a_champion(house: ModelHouse) -> None:
    alone = Rollouts(house.database.write, house.clock, _none_is_installed, list, node="2.25.1")
    known = house.add("1", name="spleen")
    with pytest.raises(NotFound, match="no version of spleen is active"):
        alone.request(known.model, Wish(Role.SHADOW), who="ann", why=WHY)
    alone.request(known.model, Wish(Role.CHAMPION), who="ann", why=WHY)


def _none_is_installed(name: str) -> ModelVersion:
    raise NotFound(f"no pipeline is named {name!r}")


def test_nothing_is_changed_without_a_reason(house: ModelHouse) -> None:
    known = house.add("1")
    with pytest.raises(InvalidInput, match="why: is empty"):
        house.rollouts.request(known.model, Wish(), who="ann", why=" ")
    with pytest.raises(InvalidInput, match="why: is empty"):
        house.rollouts.rollback("lung", who="ann", why="")
    with pytest.raises(InvalidInput, match="why: is empty"):
        house.rollouts.retire(known.model, who="ann", why="")
