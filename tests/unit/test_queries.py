"""What the node says of itself, over a real database in which everything has happened once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.domain.circuit import CircuitState
from node.domain.delivery import DeliveryState
from node.domain.errors import IllegalStep, NotFound
from node.domain.job import JobOutput, JobState, Outcome
from node.domain.peer import Verify
from node.domain.study import StudyState
from node.services.queries import as_json
from tests.admin import DONE, FAILED, REFUSED, AdminHouse
from tests.fakes import FakeVerifier
from tests.house import PACS, everything, succeed


@pytest.fixture
def house(tmp_path: Path) -> Iterator[AdminHouse]:
    house = AdminHouse(tmp_path)
    yield house
    house.close()


def test_status_of_an_empty_node_counts_every_state_as_zero(house: AdminHouse) -> None:
    status = house.queries.status()
    assert status.studies == dict.fromkeys(StudyState, 0)
    assert status.jobs == dict.fromkeys(JobState, 0)
    assert status.deliveries == dict.fromkeys(DeliveryState, 0)
    assert status.ready


def test_status_after_a_day_of_work(house: AdminHouse) -> None:
    started = house.clock.now()
    house.live()
    house.problems = ["free space is low"]
    status = house.queries.status()
    assert status.studies[StudyState.ROUTED] == 3
    assert {state: n for state, n in status.jobs.items() if n} == {
        JobState.SUCCEEDED: 1,
        JobState.DEAD: 1,
        JobState.REFUSED: 1,
    }
    assert {state: n for state, n in status.deliveries.items() if n} == {
        DeliveryState.DELIVERED: 2,
        DeliveryState.DEAD: 1,
    }
    assert (status.instances, status.asides, status.free_bytes) == (7 + 3, 1, 5_000_000_000)
    assert (status.ready, status.problems) == (False, ("free space is low",))
    assert status.uptime_seconds == (house.clock.now() - started).total_seconds() > 0


def test_a_peer_shows_what_waits_to_be_verified_and_for_how_long(house: AdminHouse) -> None:
    peer = house.peers[1] = replace(PACS, verify=Verify.QUERY)
    house.job_of(DONE)
    house.worker(succeed).work()
    everything(house.outbox(peer=peer))
    house.clock.tick(90)
    _, pacs = house.queries.status().peers
    assert (pacs.verify, pacs.unverified, pacs.oldest_unverified_seconds) == (Verify.QUERY, 3, 90.0)
    assert pacs.deliveries[DeliveryState.COMMITTED] == 0
    house.by_query(FakeVerifier("2.25.1", "2.25.3"), peer).verify()
    _, pacs = house.queries.status().peers
    assert (pacs.unverified, pacs.deliveries[DeliveryState.COMMITTED]) == (1, 2)
    house.peers[1] = PACS
    _, pacs = house.queries.status().peers
    assert (pacs.verify, pacs.unverified, pacs.oldest_unverified_seconds) == (Verify.NONE, 0, None)


def test_a_peer_shows_what_it_is_owed_and_for_how_long(house: AdminHouse) -> None:
    house.job_of(DONE)
    house.worker(succeed).work()
    house.clock.tick(90)
    scanner, pacs = house.queries.status().peers
    assert (scanner.name, scanner.deliveries[DeliveryState.PENDING], scanner.oldest_pending_seconds) == ("CT1", 0, None)
    assert (pacs.name, pacs.deliveries[DeliveryState.PENDING], pacs.oldest_pending_seconds) == ("PACS", 3, 90.0)


def test_a_peer_that_is_down_is_shown_so_with_the_reason(house: AdminHouse) -> None:
    house.job_of(DONE)
    house.worker(succeed).work()
    house.sender.down = True
    house.outbox().deliver()
    scanner, pacs = house.queries.status().peers
    assert scanner.circuit is None
    assert pacs.circuit is not None
    assert (pacs.circuit.state, pacs.circuit.reason) == (CircuitState.OPEN, "PACS: connection refused")
    assert house.queries.snapshot().circuits["PACS"] is CircuitState.OPEN


def test_a_peer_that_left_the_configuration_still_shows_what_it_is_owed(house: AdminHouse) -> None:
    house.live()
    house.peers.pop()
    gone = house.queries.status().peers[-1]
    assert (gone.name, gone.ae_title, gone.send, gone.deliveries[DeliveryState.DEAD]) == ("PACS", None, False, 1)


def test_a_study_has_its_series_decisions_jobs_deliveries_asides_and_timeline(house: AdminHouse) -> None:
    house.live()
    detail = house.queries.study(DONE)
    (series,) = detail.series
    assert (series.series_uid, series.instances) == (f"{DONE}.1", 3)
    assert series.size == sum(len(b"\x08\x00\x60\x00CS\x02\x00CT" + f"{DONE}.1.{n}".encode()) for n in range(3))
    assert [d.route for d in detail.decisions] == ["chest-ct"]
    assert [j.state for j in detail.jobs] == [JobState.SUCCEEDED]
    assert len(detail.deliveries) == 3
    assert [a.path for a in detail.asides] == ["aside/1"]
    steps = [(e.subject.value, e.step) for e in detail.timeline]
    assert steps[:6] == [
        ("study", "open"),
        ("study", "quiet"),
        ("job", "queue"),
        ("study", "route"),
        ("job", "claim"),
        ("job", "succeed"),
    ]
    assert ("delivery", "ack") in steps
    assert ("delivery", "reject") in steps
    assert steps[-1] == ("instance", "aside: conflict")
    assert [e.at for e in detail.timeline] == sorted(e.at for e in detail.timeline)
    assert {e.study_uid for e in detail.timeline} == {DONE}


def test_what_is_not_known_is_not_found(house: AdminHouse) -> None:
    with pytest.raises(NotFound, match=r"study 1\.2\.3"):
        house.queries.study("1.2.3")
    with pytest.raises(NotFound, match="job nothing"):
        house.queries.job("nothing")


def test_lists_are_the_latest_first_and_bounded(house: AdminHouse) -> None:
    house.live()
    assert [s.study_uid for s in house.queries.studies(limit=2)] == [REFUSED, FAILED]
    before = house.queries.studies(limit=2)[-1].last_at
    assert [s.study_uid for s in house.queries.studies(limit=2, before=before)] == [DONE]
    assert [j.study_uid for j in house.queries.jobs(limit=10, state=JobState.DEAD)] == [FAILED]
    assert len(house.queries.jobs(limit=10)) == 3
    assert [d.status for d in house.queries.deliveries(limit=10, state=DeliveryState.DEAD)] == [0xA900]
    assert len(house.queries.deliveries(limit=2)) == 2
    assert [d.study_uid for d in house.queries.decisions(limit=2)] == [REFUSED, FAILED]
    assert len(house.queries.asides(limit=10)) == 1
    assert house.queries.events(limit=1)[0].step == "aside: conflict"


def test_a_requeued_job_gets_all_its_attempts_and_the_event_says_who_asked(house: AdminHouse) -> None:
    house.live()
    dead = house.queries.jobs(limit=1, state=JobState.DEAD)[0]
    house.clock.tick(60)
    house.requeue.requeue_job(dead.id, "api from 10.1.2.3")
    job = house.queries.job(dead.id)
    assert (job.state, job.attempt, job.reason, job.not_before) == (JobState.QUEUED, 0, None, house.clock.now())
    event = house.queries.study(dead.study_uid).timeline[-1]
    assert (event.step, event.from_state, event.to_state) == ("requeue", "dead", "queued")
    assert event.actor == "api from 10.1.2.3"
    assert house.worker(lambda job: JobOutput(Outcome.SUCCEEDED)).work()
    assert house.queries.job(dead.id).state is JobState.SUCCEEDED


def test_a_requeued_delivery_gets_its_whole_time_again(house: AdminHouse) -> None:
    house.live()
    dead = house.queries.deliveries(limit=1, state=DeliveryState.DEAD)[0]
    house.clock.tick(timedelta(days=30).total_seconds())
    house.requeue.requeue_delivery(dead.id, "cli")
    house.sender.down = True
    house.outbox().deliver()
    pending = house.queries.deliveries(limit=1, state=DeliveryState.PENDING)[0]
    assert pending.id == dead.id, "an old delivery would have been given up at once"
    house.sender.down, house.sender.status = False, lambda path: 0
    house.clock.tick(60)
    house.outbox().deliver()
    assert dead.id in [d.id for d in house.queries.deliveries(limit=9, state=DeliveryState.DELIVERED)]


def test_only_what_is_dead_can_be_requeued(house: AdminHouse) -> None:
    house.live()
    done = house.queries.jobs(limit=1, state=JobState.SUCCEEDED)[0]
    with pytest.raises(IllegalStep, match="is succeeded; only a dead job"):
        house.requeue.requeue_job(done.id, "cli")
    delivered = house.queries.deliveries(limit=1, state=DeliveryState.DELIVERED)[0]
    with pytest.raises(IllegalStep, match="is delivered; only a dead one"):
        house.requeue.requeue_delivery(delivered.id, "cli")
    with pytest.raises(NotFound):
        house.requeue.requeue_job("nothing", "cli")
    with pytest.raises(NotFound):
        house.requeue.requeue_delivery(99, "cli")


def test_everything_that_can_be_read_is_json(house: AdminHouse) -> None:
    house.live()
    q = house.queries
    everything = [q.status(), q.studies(limit=9), q.study(DONE), q.jobs(limit=9), q.deliveries(limit=9)]
    assert json.loads(json.dumps(as_json(everything))) == as_json(everything)


@dataclass(frozen=True)
class _Thing:
    at: datetime
    states: dict[JobState, int]
    names: tuple[str, ...]
    nothing: None = None


def test_as_json() -> None:
    thing = _Thing(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {JobState.DEAD: 1}, ("a", "b"))
    expected = {"at": "2026-01-02T03:04:05Z", "states": {"dead": 1}, "names": ["a", "b"], "nothing": None}
    assert as_json(thing) == expected
    assert type(next(iter(as_json(thing)["states"]))) is str
    with pytest.raises(TypeError, match="object has no JSON form"):
        as_json(object())
