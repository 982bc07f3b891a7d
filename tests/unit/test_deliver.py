"""The outbox of one peer."""

from __future__ import annotations

import pytest

from node.domain.delivery import Delivery, DeliveryState, Verdict, verdict
from node.services.deliver import Deliver
from tests.house import House, everything, succeed

PENDING, DELIVERED, DEAD = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.DEAD


def owed(house: House) -> Deliver:
    house.settled_job()
    house.worker(succeed).work()
    return house.outbox()


def states(house: House) -> list[DeliveryState]:
    return [d.state for d in rows(house)]


def rows(house: House) -> list[Delivery]:
    with house.database.read() as tx:
        return tx.deliveries.of_study("1.2")


def test_all_is_sent_in_order_once(house: House) -> None:
    outbox = owed(house)
    assert (outbox.deliver(), outbox.deliver(), outbox.deliver()) == (1, 2, 0)
    assert house.sender.stored == ["2.25.1.dcm", "2.25.2.dcm", "2.25.3.dcm"]
    assert states(house) == [DELIVERED] * 3
    assert {(d.status, d.attempt, d.owner) for d in rows(house)} == {(0, 1, None)}
    assert all(d.delivered_at == house.clock.now() for d in rows(house))


def test_a_peer_that_is_down_is_probed_with_one_and_gets_all_when_it_returns(house: House) -> None:
    outbox = owed(house)
    house.sender.down = True
    assert outbox.deliver() == 1
    assert states(house) == [PENDING] * 3
    assert [(d.attempt, d.reason) for d in rows(house)] == [(1, "PACS: connection refused"), (0, None), (0, None)]
    assert outbox.deliver() == 0
    for pause in (10, 20, 40, 80, 160, 320, 600, 600):
        house.clock.tick(pause - 0.1)
        assert outbox.deliver() == 0
        house.clock.tick(0.2)
        assert outbox.deliver() == 1
    house.sender.down = False
    house.clock.tick(600)
    assert outbox.deliver() == 1
    assert outbox.deliver() == 2
    assert sorted(house.sender.stored) == ["2.25.1.dcm", "2.25.2.dcm", "2.25.3.dcm"]
    assert house.sender.stored[-1] == "2.25.3.dcm"


def test_a_broken_association_keeps_what_was_answered(house: House) -> None:
    outbox = owed(house)
    outbox.deliver()
    house.sender.break_after = 1
    outbox.deliver()
    assert states(house) == [DELIVERED, DELIVERED, PENDING]
    house.sender.break_after = None
    house.clock.tick(10)
    everything(outbox)
    assert house.sender.stored == ["2.25.1.dcm", "2.25.2.dcm", "2.25.3.dcm"]


def test_each_instance_has_its_own_answer(house: House) -> None:
    outbox = owed(house)
    answers = {"2.25.1.dcm": 0xA700, "2.25.2.dcm": 0xC000, "2.25.3.dcm": 0xB000}
    house.sender.status = lambda path: answers[path.name]
    everything(outbox)
    assert [(d.state, d.status) for d in rows(house)] == [(PENDING, 0xA700), (DEAD, 0xC000), (DELIVERED, 0xB000)]
    assert [d.reason for d in rows(house)] == [f"the peer answered {s}" for s in ("A700", "C000", "B000")]
    assert outbox.deliver() == 0
    house.sender.status = lambda path: 0
    house.clock.tick(10)
    assert outbox.deliver() == 1
    assert states(house) == [DELIVERED, DEAD, DELIVERED]


def test_it_gives_up_after_days_visibly(house: House) -> None:
    outbox = owed(house)
    house.sender.down = True
    outbox.deliver()
    house.clock.tick(8 * 86400)
    for _ in range(3):
        outbox.deliver()
        house.clock.tick(600)
    assert states(house) == [DEAD] * 3
    assert (rows(house)[0].reason or "").startswith("gave up after 7 days")


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (0x0000, Verdict.ACK),
        (0xB000, Verdict.ACK),
        (0xB006, Verdict.ACK),
        (0xB007, Verdict.ACK),
        (0x0111, Verdict.ACK),
        (0xA700, Verdict.RETRY),
        (0xA7FF, Verdict.RETRY),
        (0x0110, Verdict.RETRY),
        (0x0124, Verdict.RETRY),
        (0x0213, Verdict.RETRY),
        (0xA900, Verdict.REJECT),
        (0xC000, Verdict.REJECT),
        (0x0122, Verdict.REJECT),
    ],
)
def test_statuses(status: int, meaning: Verdict) -> None:
    assert verdict(status) is meaning
