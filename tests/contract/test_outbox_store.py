"""What the outbox asks of the store: answers that do not wait for the disk, steps that touch only what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from node.domain.delivery import DeliveryState
from node.repositories import UnitOfWork
from node.store.database import Database, SqlUnitOfWork
from tests.contract.test_store import LEASE, NOW, delivery


def waits_for_the_disk(database: Database, tx: UnitOfWork) -> bool:
    assert isinstance(tx, SqlUnitOfWork)
    is_sqlite = database.url.startswith("sqlite")
    said = tx._session.execute(text("PRAGMA synchronous" if is_sqlite else "SHOW synchronous_commit")).scalar_one()
    return said in (2, "on")  # 2 is FULL


def test_an_unsynced_write_is_seen_at_once_and_no_other_is_one(database: Database) -> None:
    with database.write() as tx:
        assert waits_for_the_disk(database, tx)
        tx.deliveries.add([delivery("1.1")])
    for _ in range(2):
        with database.write_unsynced() as tx:
            assert not waits_for_the_disk(database, tx)
            assert len(tx.deliveries.claim(peer="PACS", owner="me", now=NOW, lease=LEASE, limit=10)) <= 1
        with database.read() as tx:
            assert [d.state for d in tx.deliveries.of_study("1.2.3")] == [DeliveryState.SENDING]
        with database.write() as tx:
            assert waits_for_the_disk(database, tx), "the connection is the same one"


def test_an_unsynced_write_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(KeyError), database.write_unsynced() as tx:
        tx.deliveries.add([delivery("1.1")])
        raise KeyError
    with database.read() as tx:
        assert tx.deliveries.of_study("1.2.3") == []


def test_a_step_leaves_alone_what_it_does_not_change(database: Database) -> None:
    with database.write() as tx:
        tx.deliveries.add([delivery("1.1"), delivery("1.2"), delivery("1.3")])
        first, second, third = tx.deliveries.of_study("1.2.3")
        tx.deliveries.update(first, replace(first, reason="of somebody else", verify_at=NOW))
    with database.write() as tx:
        tx.deliveries.update_all(
            [
                (first, replace(first, state=DeliveryState.DEAD, status=0xA900)),
                (second, replace(second, state=DeliveryState.DEAD, reason="no", status=0xC000)),
                (third, third),
            ]
        )
        found = [(d.state, d.status, d.reason, d.verify_at) for d in tx.deliveries.of_study("1.2.3")]
    dead, pending = DeliveryState.DEAD, DeliveryState.PENDING
    assert found == [
        (dead, 0xA900, "of somebody else", NOW),
        (dead, 0xC000, "no", None),
        (pending, None, None, None),
    ]
