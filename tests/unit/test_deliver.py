"""The outbox of one peer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from node.domain.circuit import Circuit, CircuitState
from node.domain.delivery import Delivery, DeliveryState, backoff, jittered
from node.domain.errors import PeerDeclines
from node.domain.priority import Priority
from node.domain.status import FEW
from node.services.deliver import Deliver
from tests.house import EXPLICIT, House, everything, part10_head, succeed

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


def circuit(house: House) -> Circuit:
    with house.database.read() as tx:
        return tx.circuits.all()["PACS"]


def owe(house: House, *uids: str, **changes: object) -> None:
    """Deliveries of one job, named by the first; the last one closes it."""
    now, made = house.clock.now(), []
    for position, uid in enumerate(uids):
        path = Path(f"results/{uid}.dcm")
        house.files.absolute(str(path)).parent.mkdir(exist_ok=True)
        house.files.absolute(str(path)).write_bytes(part10_head("1.2.840.10008.5.1.4.1.1.88.34", uid))
        one = Delivery(0, uids[0], "1.2", uid, "1.2.3", EXPLICIT, str(path), "PACS", PENDING, 0, position, now, now)
        made.append(replace(one, closes=position == len(uids) - 1, **changes))  # type: ignore[arg-type]
    with house.database.write() as tx:
        tx.deliveries.add(made)


def test_all_is_sent_in_order_once_over_one_association(house: House) -> None:
    outbox = owed(house)
    assert (outbox.deliver(), outbox.deliver()) == (3, 0)
    assert house.sender.stored == ["2.25.1.dcm", "2.25.2.dcm", "2.25.3.dcm"]
    assert house.sender.calls == 1
    assert states(house) == [DELIVERED] * 3
    assert {(d.status, d.attempt, d.owner) for d in rows(house)} == {(0, 1, None)}
    assert all(d.delivered_at == house.clock.now() for d in rows(house))
    assert [d.closes for d in rows(house)] == [False, False, True]


def test_a_peer_that_is_down_is_probed_with_growing_pauses_and_gets_all_when_it_returns(house: House) -> None:
    outbox = owed(house)
    house.sender.down = True
    assert outbox.deliver() == 3
    assert states(house) == [PENDING] * 3
    assert [(d.attempt, d.reason) for d in rows(house)] == [(0, "PACS: connection refused")] * 3
    assert (circuit(house).state, circuit(house).reason) == (CircuitState.OPEN, "PACS: connection refused")
    assert (outbox.deliver(), house.sender.echoes) == (0, 0)
    for probes, pause in enumerate((10, 20, 40, 80, 160, 320, 600, 600), start=1):
        house.clock.tick(pause - 0.1)
        assert (outbox.deliver(), house.sender.echoes) == (0, probes - 1)
        house.clock.tick(0.2)
        assert (outbox.deliver(), house.sender.echoes) == (0, probes)
    assert house.sender.calls == 1, "it was probed, never sent to"
    house.sender.down = False
    house.clock.tick(600)
    assert (outbox.deliver(), outbox.deliver()) == (1, 2)
    assert house.sender.stored == ["2.25.1.dcm", "2.25.2.dcm", "2.25.3.dcm"]
    assert (circuit(house).state, circuit(house).failures, circuit(house).reason) == (CircuitState.CLOSED, 0, None)


def test_a_peer_that_answers_probes_alone_is_tried_with_one_and_left_alone_for_longer(house: House) -> None:
    outbox = owed(house)
    house.sender.break_after = 0
    outbox.deliver()
    for pause in (10, 20, 40):
        house.clock.tick(pause + 0.1)
        assert outbox.deliver() == 1
        assert circuit(house).state is CircuitState.OPEN
    assert house.sender.echoes == 3


def test_a_start_of_the_node_probes_at_once(house: House) -> None:
    outbox = owed(house)
    house.sender.down = True
    outbox.deliver()
    house.sender.down = False
    again = house.outbox()
    assert (again.deliver(), again.deliver(), house.sender.echoes) == (1, 2, 1)


def test_while_one_courier_of_a_peer_sends_another_that_finds_no_association_says_nothing_of_the_peer(
    house: House,
) -> None:
    owe(house, "2.25.1")
    owe(house, "2.25.2")
    first, second = house.couriers(2, batch=1)

    def meanwhile(path: Path) -> int:
        if path.name == "2.25.1.dcm":
            house.sender.down = True
            assert second.deliver() == 1
            house.sender.down = False
        return 0

    house.sender.status = meanwhile
    assert first.deliver() == 1
    assert states(house) == [DELIVERED, PENDING]
    with house.database.read() as tx:
        assert tx.circuits.all() == {}
    assert second.deliver() == 0, "it rests"
    house.clock.tick(11)
    assert second.deliver() == 1


def test_a_broken_association_keeps_what_was_answered_and_what_was_in_flight_waits_alone(house: House) -> None:
    outbox = owed(house)
    house.sender.break_after = 1
    outbox.deliver()
    assert states(house) == [DELIVERED, PENDING, PENDING]
    assert [d.attempt for d in rows(house)] == [1, 1, 0]
    assert rows(house)[1].not_before == house.clock.now() + timedelta(seconds=10)
    house.sender.break_after = None
    house.clock.tick(10)
    everything(outbox)
    assert house.sender.stored == ["2.25.1.dcm", "2.25.2.dcm", "2.25.3.dcm"]


def test_an_object_on_which_the_peer_chokes_does_not_hold_up_other_jobs(house: House) -> None:
    house.sender.breaks = {"2.25.1.dcm"}
    owe(house, "2.25.1", "2.25.2")
    owe(house, "2.25.3", "2.25.4")
    outbox = house.outbox()
    for _ in range(8):
        outbox.deliver()
        house.clock.tick(10)
    assert house.sender.stored == ["2.25.3.dcm", "2.25.4.dcm"]
    assert rows(house)[1].state is PENDING, "what closes the job waits"


def choking(house: House, *, hours: float) -> Deliver:
    """One object on which the peer breaks off each time, while another is owed to it every ten minutes."""
    house.sender.breaks = {"2.25.1.dcm"}
    owe(house, "2.25.1", "2.25.2")
    outbox = house.outbox()
    for number in range(round(hours * 6)):
        owe(house, f"2.25.{number + 100}")
        for _ in range(10):
            outbox.deliver()
            house.clock.tick(60)
    return outbox


def test_an_object_on_which_the_peer_alone_chokes_is_dead_after_a_few_breaks_and_its_report_goes(house: House) -> None:
    choking(house, hours=3)
    first, report = rows(house)[:2]
    assert (first.state, first.refusals, report.state) == (DEAD, FEW, DELIVERED)
    assert first.reason == f"PACS: the association broke, {FEW} times, while it took others"
    assert {d.state for d in rows(house)[2:]} == {DELIVERED}


def test_an_object_that_the_peer_takes_after_some_breaks_is_delivered_once(house: House) -> None:
    outbox = choking(house, hours=0.5)
    assert 0 < rows(house)[0].refusals < FEW
    house.sender.breaks = set()
    house.clock.tick(600)
    everything(outbox)
    assert {d.state for d in rows(house)} == {DELIVERED}
    assert house.sender.stored.count("2.25.1.dcm") == 1


@pytest.mark.parametrize("peers", [1, 2])
def test_a_peer_that_breaks_off_on_everything_makes_nothing_dead(house: House, peers: int) -> None:
    owe(house, "2.25.1", "2.25.2")
    owe(house, "2.25.3", "2.25.4")
    house.sender.break_after = 0
    couriers = house.couriers(peers)
    for _ in range(100):
        for courier in couriers:
            courier.deliver()
        house.clock.tick(3600)
    assert states(house) == [PENDING] * 4
    assert max(d.attempt for d in rows(house)) > FEW
    assert {d.refusals for d in rows(house)} == {0}
    house.sender.break_after = None
    for _ in range(3):
        house.clock.tick(600)
        everything(couriers[0])
    assert states(house) == [DELIVERED] * 4
    assert sorted(house.sender.stored) == [f"2.25.{n}.dcm" for n in (1, 2, 3, 4)]


def test_a_peer_that_declines_everything_now_and_then_blames_no_object(house: House) -> None:
    owe(house, "2.25.1", "2.25.2")
    outbox = house.outbox()
    for number in range(2 * FEW):
        house.sender.declines = PeerDeclines("PACS: HTTP 503 Busy")
        assert outbox.deliver() == 2, "with the first one in flight"
        house.sender.declines = None
        owe(house, f"2.25.{number + 100}")
        house.clock.tick(11)
        assert outbox.deliver() == 1, "the other one is tried, and taken"
        house.clock.tick(600)
    assert (rows(house)[0].state, rows(house)[0].attempt, rows(house)[0].refusals) == (PENDING, 2 * FEW, 0)


@pytest.mark.parametrize(("asked", "pause"), [(5, 10), (45, 45), (100_000, 600)])
def test_a_peer_is_left_alone_for_as_long_as_it_asks(house: House, asked: float, pause: float) -> None:
    outbox = owed(house)
    house.sender.declines = PeerDeclines("PACS: HTTP 503 Busy", timedelta(seconds=asked))
    outbox.deliver()
    house.sender.declines = None
    house.clock.tick(pause - 0.1)
    assert (outbox.deliver(), house.sender.echoes) == (0, 0)
    house.clock.tick(0.2)
    assert (everything(outbox), house.sender.echoes) == (3, 1)


def test_each_instance_has_its_own_answer(house: House) -> None:
    outbox = owed(house)
    answers = {"2.25.1.dcm": 0xA700, "2.25.2.dcm": 0xA900, "2.25.3.dcm": 0xB000}
    house.sender.status = lambda path: answers[path.name]
    everything(outbox)
    assert [(d.state, d.status) for d in rows(house)] == [(PENDING, 0xA700), (DEAD, 0xA900), (PENDING, None)]
    assert rows(house)[0].reason == "the peer answered A700 (refused: out of resources)"
    assert rows(house)[1].reason == "the peer answered A900 (error: data set does not match SOP class)"
    answers["2.25.1.dcm"] = 0
    house.clock.tick(10)
    assert outbox.deliver() == 2
    assert [(d.state, d.status) for d in rows(house)] == [(DELIVERED, 0), (DEAD, 0xA900), (DELIVERED, 0xB000)]
    assert rows(house)[2].reason == "the peer answered B000 (coercion of data elements)"


def test_what_closes_a_job_goes_last_whatever_fails_before(house: House) -> None:
    owe(house, "2.25.1", "2.25.2", "2.25.3", "2.25.4")
    outbox = house.outbox()
    house.sender.status = lambda path: 0xA700 if path.name == "2.25.2.dcm" else 0
    assert outbox.deliver() == 4
    assert house.sender.stored == ["2.25.1.dcm", "2.25.3.dcm"]
    assert [d.attempt for d in rows(house)] == [1, 1, 1, 0]
    assert outbox.deliver() == 0, "not before the other one is due"
    house.clock.tick(10)
    assert outbox.deliver() == 2
    assert house.sender.stored == ["2.25.1.dcm", "2.25.3.dcm"]
    house.sender.status = lambda path: 0
    house.clock.tick(20)
    assert outbox.deliver() == 2
    assert house.sender.stored[-2:] == ["2.25.2.dcm", "2.25.4.dcm"]


def test_what_closes_a_job_goes_when_all_others_are_delivered_or_dead(house: House) -> None:
    owe(house, "2.25.1", "2.25.2", "2.25.3")
    house.sender.status = lambda path: 0xA900 if path.name == "2.25.1.dcm" else 0
    house.outbox().deliver()
    assert states(house) == [DEAD, DELIVERED, DELIVERED]


def test_two_couriers_never_send_of_one_job_at_once(house: House) -> None:
    owe(house, "2.25.1", "2.25.2", "2.25.3")
    owe(house, "2.25.4")
    first, second = house.couriers(2, batch=2)

    def meanwhile(path: Path) -> int:
        if path.name == "2.25.1.dcm":
            assert second.deliver() == 1
        return 0

    house.sender.status = meanwhile
    assert everything(first) == 3
    assert sorted(house.sender.stored[:2]) == ["2.25.1.dcm", "2.25.4.dcm"]
    assert house.sender.stored[2:] == ["2.25.2.dcm", "2.25.3.dcm"]


def test_an_urgent_result_overtakes_a_backlog(house: House) -> None:
    owe(house, *[f"2.25.{n}" for n in range(10)])
    outbox = house.outbox()

    def slowly(path: Path) -> int:
        house.clock.tick(1.5)
        if path.name == "2.25.1.dcm":
            owe(house, "2.25.77", "2.25.78", priority=Priority.STAT)
        return 0

    house.sender.status = slowly
    everything(outbox)
    assert house.sender.stored.index("2.25.78.dcm") <= 6
    assert house.sender.stored[-1] == "2.25.9.dcm"
    assert len(house.sender.stored) == 12
    assert {d.attempt for d in rows(house)} == {1}


def test_what_cannot_be_understood_is_tried_a_few_times(house: House) -> None:
    owe(house, "2.25.1")
    outbox, tries = house.outbox(), 0
    house.sender.status = lambda path: 0xC000
    while states(house) == [PENDING]:
        tries += outbox.deliver()
        house.clock.tick(601)
    assert tries == FEW
    assert rows(house)[0].reason == f"the peer answered C000 (error: cannot understand), {FEW} times"


def test_leases_are_kept_while_a_large_object_goes_out(house: House) -> None:
    owe(house, "2.25.1", "2.25.2")

    def slowly(path: Path) -> int:
        house.clock.tick(45)
        return 0

    house.sender.status = slowly
    house.outbox().deliver()
    held = [d for d in rows(house) if d.lease_until]
    assert held == []
    house.sender.status = lambda path: 0
    assert states(house) == [DELIVERED] * 2


def test_an_answer_for_what_somebody_else_holds_by_now_costs_no_other(house: House) -> None:
    owe(house, "2.25.1", "2.25.2")

    def taken(path: Path) -> int:
        if path.name == "2.25.2.dcm":
            stolen = rows(house)[0]
            with house.database.write() as tx:
                tx.deliveries.update(stolen, replace(stolen, owner="there/1/1"))
        return 0

    house.sender.status = taken
    house.outbox().deliver()
    assert [(d.state, d.owner) for d in rows(house)] == [(DeliveryState.SENDING, "there/1/1"), (DELIVERED, None)]


def test_it_gives_up_after_days_visibly(house: House) -> None:
    outbox = owed(house)
    house.sender.down = True
    outbox.deliver()
    house.clock.tick(7 * 86400 - 10)
    outbox.deliver()
    assert states(house) == [PENDING] * 3
    house.clock.tick(70)
    outbox.deliver()
    assert states(house) == [DEAD] * 3
    assert {d.reason for d in rows(house)} == {"gave up after 7 days, 0:00:00: PACS: connection refused"}


def test_pauses_are_spread_around_their_length() -> None:
    second = timedelta(seconds=1)
    pauses = [backoff(n, base=second, cap=600 * second) for n in (1, 2, 5, 100)]
    assert pauses == [second, 2 * second, 16 * second, 600 * second]
    assert [jittered(second, drawn) for drawn in (0.0, 0.5)] == [0.75 * second, second]
    assert second < jittered(second, 0.99) < 1.25 * second


def test_what_rejects_earlier_results_goes_when_all_others_are_taken(house: House) -> None:
    owe(house, "2.25.1", "2.25.2", "2.25.3")
    reject(house, "2.25.4")
    outbox = house.outbox()
    house.sender.status = lambda path: 0xA700 if path.name == "2.25.3.dcm" else 0
    everything(outbox)
    assert house.sender.stored == ["2.25.1.dcm", "2.25.2.dcm"]
    house.sender.status = lambda path: 0
    house.clock.tick(10)
    everything(outbox)
    assert house.sender.stored[2:] == ["2.25.3.dcm", "2.25.4.dcm"]


def test_nothing_is_rejected_while_an_object_of_the_new_set_was_not_taken(house: House) -> None:
    owe(house, "2.25.1", "2.25.2", "2.25.3")
    reject(house, "2.25.4")
    outbox = house.outbox()
    house.sender.status = lambda path: 0xA900 if path.name == "2.25.3.dcm" else 0
    everything(outbox)
    assert states(house) == [DELIVERED, DELIVERED, DEAD, PENDING]
    house.clock.tick(3600)
    assert everything(outbox) == 0
    house.requeue.requeue_delivery(rows(house)[2].id, "ann")
    house.sender.status = lambda path: 0
    everything(outbox)
    assert states(house) == [DELIVERED] * 4


def reject(house: House, uid: str) -> None:
    """The last delivery of the job of `owe` rejects earlier results."""
    owe(house, uid)
    with house.database.write() as tx:
        added = tx.deliveries.of_study("1.2")[-1]
        tx.deliveries.update(added, replace(added, job_id="2.25.1", position=3, rejects=True))
