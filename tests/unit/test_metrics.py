"""What Prometheus scrapes, read back with its own parser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.domain.circuit import Circuit, CircuitState
from node.domain.instance import Answer
from node.domain.peer import Verify
from node.observe.metrics import Metrics
from tests.admin import DONE, TOKEN, AdminHouse, serving
from tests.house import PACS, everything, succeed

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[AdminHouse]:
    house = AdminHouse(tmp_path)
    yield house
    house.close()


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(house: AdminHouse, name: str, **labels: str) -> float | None:
    return samples(house.metrics.render().decode()).get((name, frozenset(labels.items())))


def test_gauges_show_what_the_store_holds(house: AdminHouse) -> None:
    house.live()
    assert value(house, "ainode_studies", state="routed") == 3
    assert value(house, "ainode_jobs", state="dead") == 1
    assert value(house, "ainode_deliveries", peer="PACS", state="delivered") == 2
    assert value(house, "ainode_deliveries", peer="PACS", state="dead") == 1
    assert value(house, "ainode_delivery_oldest_pending_seconds", peer="PACS") == 0
    assert value(house, "ainode_instances") == 10
    assert value(house, "ainode_aside_objects") == 1
    assert value(house, "ainode_free_bytes") == 5_000_000_000
    assert value(house, "ainode_build_info", version="0.1.0") == 1


def test_what_waits_to_be_verified_is_counted_where_it_is_verified(house: AdminHouse) -> None:
    peer = house.peers[1] = replace(PACS, verify=Verify.COMMITMENT)
    house.metrics = Metrics("0.1.0", house.peers, house.queries.snapshot)
    assert value(house, "ainode_deliveries_unverified", peer="PACS") == 0
    house.job_of(DONE)
    house.worker(succeed).work()
    everything(house.outbox(peer=peer))
    house.clock.tick(90)
    assert value(house, "ainode_deliveries_unverified", peer="PACS") == 3
    assert value(house, "ainode_delivery_oldest_unverified_seconds", peer="PACS") == 90
    assert value(house, "ainode_deliveries_unverified", peer="CT1") is None


def test_a_peer_that_is_down_is_zero(house: AdminHouse) -> None:
    assert value(house, "ainode_peer_up", peer="PACS") == 1
    with house.database.write() as tx:
        tx.circuits.put(Circuit("PACS", CircuitState.OPEN, house.clock.now(), 1, house.clock.now(), "refused"))
    assert value(house, "ainode_peer_up", peer="PACS") == 0
    assert value(house, "ainode_peer_up", peer="CT1") is None


def test_a_state_without_anything_in_it_is_zero_and_not_absent(house: AdminHouse) -> None:
    assert value(house, "ainode_jobs", state="dead") == 0
    assert value(house, "ainode_deliveries", peer="PACS", state="dead") == 0


def test_received_instances_count_by_peer_and_status(house: AdminHouse) -> None:
    for answer in (Answer(0x0000), Answer(0x0000), Answer(0xA700, "full")):
        house.metrics.answered("SCANNER1", answer, 5)
    assert value(house, "ainode_instances_received_total", peer="CT1", status="0000") == 2
    assert value(house, "ainode_instances_received_total", peer="CT1", status="A700") == 1
    assert value(house, "ainode_received_bytes_total", peer="CT1") == 15


def test_strangers_share_one_label(house: AdminHouse) -> None:
    for caller in ("EVIL1", "EVIL2", "CT1", "PACS"):
        house.metrics.answered(caller, Answer(0x0000), 0)
    assert value(house, "ainode_instances_received_total", peer="other", status="0000") == 3
    assert value(house, "ainode_instances_received_total", peer="PACS", status="0000") == 1
    assert value(house, "ainode_instances_received_total", peer="EVIL1", status="0000") is None


def test_rejected_associations_count_by_reason(house: AdminHouse) -> None:
    house.metrics.rejected("EVIL", "AINODE", "calling AE title not recognised")
    labels = {"reason": "calling AE title not recognised"}
    assert value(house, "ainode_associations_rejected_total", **labels) == 1


def test_two_registries_in_one_process_do_not_meet(house: AdminHouse, tmp_path: Path) -> None:
    house.metrics.rejected("EVIL", "AINODE", "why")
    (tmp_path / "other").mkdir()
    other = AdminHouse(tmp_path / "other")
    assert value(other, "ainode_associations_rejected_total", reason="why") is None
    other.close()


def test_a_scrape_over_http(house: AdminHouse) -> None:
    with serving(house.app()) as url:
        answer = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert samples(answer.text)["ainode_jobs", frozenset({("state", "running")})] == 0
