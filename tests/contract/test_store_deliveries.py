"""The outbox, on every database that the node claims to serve."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime

import pytest

from node.domain.circuit import Circuit, CircuitState
from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import LostLease
from node.domain.priority import Priority
from node.store.database import Database
from tests.rows import LEASE, NOW, delivery


def test_sets_of_which_nothing_was_sent(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add(
            [
                delivery("1.1"),
                delivery("1.2"),
                delivery("1.1", peer="VIEWER"),
                delivery("1.2", peer="VIEWER", state=DeliveryState.SENDING),
                delivery("1.3", job_id="j2", state=DeliveryState.DELIVERED),
                delivery("1.4", study_uid="1.2.4"),
            ]
        )
        found = tx.deliveries.unbegun("1.2.3")
    assert [(d.peer, d.sop_instance_uid) for d in found] == [("PACS", "1.1"), ("PACS", "1.2")]


def claimed(database: Database, *, limit: int = 10, trial: bool = False, now: datetime = NOW) -> list[str]:
    with database.write() as tx:
        found = tx.deliveries.claim(peer="PACS", owner="me", now=now, lease=LEASE, limit=limit, trial=trial)
    return [d.sop_instance_uid for d in found]


def test_the_most_urgent_job_is_claimed_first_and_of_a_job_what_closes_it_last(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.9", job_id="a", closes=True), delivery("1.8", job_id="a", position=5)])
        tx.deliveries.add([delivery("2.1", job_id="b", priority=Priority.STAT, created_at=NOW + LEASE)])
        assert not tx.deliveries.is_due_above("PACS", Priority.STAT, NOW)
        assert tx.deliveries.is_due_above("PACS", Priority.HIGH, NOW)
        assert not tx.deliveries.is_due_above("OTHER", Priority.ROUTINE, NOW)
    assert claimed(database) == ["2.1", "1.8", "1.9"]


def test_what_closes_a_job_waits_for_what_is_not_due(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1", job_id="a"), delivery("1.2", job_id="a", not_before=NOW + LEASE)])
        tx.deliveries.add([delivery("1.3", job_id="a", closes=True)])
        tx.deliveries.add([delivery("1.2", job_id="a", peer="OTHER", state=DeliveryState.DEAD)])
    assert claimed(database) == ["1.1"]
    assert claimed(database) == [], "the rest waits while somebody sends of the job"
    with database.write() as tx:
        sent = next(d for d in tx.deliveries.of_study("1.2.3") if d.state is DeliveryState.SENDING)
        tx.deliveries.update(sent, replace(sent, state=DeliveryState.DELIVERED))
    assert claimed(database) == []
    assert claimed(database, now=NOW + LEASE) == ["1.2", "1.3"]


def test_a_trial_takes_what_was_tried_least_and_never_what_closes_a_job_ahead(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1", job_id="a", attempt=3), delivery("1.2", job_id="a", closes=True)])
        tx.deliveries.add([delivery("1.3", job_id="b", attempt=1)])
    assert claimed(database, limit=1, trial=True) == ["1.3"]
    assert claimed(database, limit=1, trial=True) == ["1.1"]


def test_two_claims_at_once_never_share_a_job(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery(f"{job}.{n}", job_id=job) for job in ("1", "2") for n in range(5)])
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(claimed(database, limit=3))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(uids) for uids in found) == [3, 3]
    assert {uid[0] for uid in found[0]} != {uid[0] for uid in found[1]}


def test_many_are_moved_at_once_or_none(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1"), delivery("1.2")])
    with database.read() as tx:
        first, second = tx.deliveries.of_study("1.2.3")
    stale = replace(second, owner="somebody else")
    with pytest.raises(LostLease, match="one of 1 others"), database.write() as tx:
        tx.deliveries.update_all([(first, replace(first, reason="a")), (stale, replace(stale, reason="b"))])
    with database.write() as tx:
        assert [d.reason for d in tx.deliveries.of_study("1.2.3")] == [None, None]
        tx.deliveries.update_all([(first, replace(first, reason="a")), (second, replace(second, reason="b"))])
        assert [d.reason for d in tx.deliveries.of_study("1.2.3")] == ["a", "b"]


def test_what_is_owed_for_too_long_is_found(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1"), delivery("1.2", created_at=NOW + LEASE), delivery("1.3", peer="OTHER")])
        assert [d.sop_instance_uid for d in tx.deliveries.overdue("PACS", NOW + LEASE)] == ["1.1"]


def test_how_a_peer_stands_is_kept(database: Database) -> None:
    closed = Circuit("PACS", CircuitState.CLOSED, NOW)
    down = closed.failed(NOW, "refused", LEASE)
    for circuit in (closed, down):
        with database.write() as tx:
            tx.circuits.put(circuit)
    with database.read() as tx:
        assert tx.circuits.all() == {"PACS": down}


def test_deliveries_are_claimed_by_peer_in_sending_order(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.3", position=2), delivery("1.2", position=1), delivery("1.1", position=0)])
        tx.deliveries.add([delivery("1.1", peer="OTHER"), delivery("1.4", not_before=NOW + LEASE)])
    with database.write() as tx:
        claimed = tx.deliveries.claim(peer="PACS", owner="me", now=NOW, lease=LEASE, limit=10)
    assert [d.sop_instance_uid for d in claimed] == ["1.1", "1.2", "1.3"]
    assert {d.attempt for d in claimed} == {1}
    with database.write() as tx:
        assert tx.deliveries.claim(peer="PACS", owner="me", now=NOW, lease=LEASE, limit=10) == []
        tx.deliveries.heartbeat(claimed, now=NOW + LEASE, lease=LEASE)
        found = tx.deliveries.get(claimed[0].id)
    assert found is not None
    assert found.lease_until == NOW + 2 * LEASE


def delivered(uid: str, **changes: object) -> Delivery:
    there: dict[str, object] = {"state": DeliveryState.DELIVERED, "attempt": 1, "delivered_at": NOW, "verify_at": NOW}
    return delivery(uid, **(there | changes))


def test_what_was_delivered_is_due_to_be_verified_by_peer_the_oldest_job_first(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add(
            [
                delivered("1.2", job_id="j2", position=1),
                delivered("1.1", job_id="j2"),
                delivered("1.3", created_at=NOW - LEASE),
                delivered("1.4", verify_at=NOW + LEASE),
                delivered("1.5", verify_at=None),
                delivered("1.6", peer="OTHER"),
                delivered("1.7", state=DeliveryState.COMMITTED),
                delivery("1.8", job_id="j2"),
                delivery("1.9", job_id="j3"),
            ]
        )
    with database.read() as tx:
        due = tx.deliveries.to_verify("PACS", NOW, limit=10)
        assert [d.sop_instance_uid for d in due] == ["1.3", "1.1", "1.2"]
        assert tx.deliveries.to_verify("PACS", NOW, limit=1) == due[:1]
        assert tx.deliveries.unsent_jobs("PACS", {"j1", "j2"}) == {"j2"}
        assert tx.deliveries.unverified() == {"PACS": (4, NOW), "OTHER": (1, NOW)}


def test_a_look_is_put_off_only_while_it_is_delivered(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivered("1.1"), delivered("1.2")])
    with database.write() as tx:
        first, second = tx.deliveries.to_verify("PACS", NOW, limit=10, lock=True)
        tx.deliveries.update(second, replace(second, state=DeliveryState.COMMITTED, verify_at=None))
        tx.deliveries.look_again([first, second], verify_at=NOW + LEASE, reason="not yet", transaction_uid="2.25.1")
    with database.write() as tx:
        put_off, committed = tx.deliveries.held([second.id, first.id])
    assert put_off == replace(first, verify_at=NOW + LEASE, reason="not yet", transaction_uid="2.25.1")
    assert (committed.state, committed.verify_at, committed.reason) == (DeliveryState.COMMITTED, None, None)


def test_many_that_verify_never_share(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivered(f"1.{n}", job_id=f"j{n}") for n in range(20)])
    taken: list[int] = []

    def take() -> None:
        for _ in range(10):
            with database.write() as tx:
                due = tx.deliveries.to_verify("PACS", NOW, limit=4, lock=True)
                tx.deliveries.look_again(due, verify_at=NOW + LEASE)
            taken.extend(d.id for d in due)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 20
