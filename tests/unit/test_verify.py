"""What was delivered is looked for: by a query, and by storage commitment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.domain.commitment import Reference
from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import InvalidInput, InvalidRequest, PeerUnreachable, Rejected
from node.domain.peer import Peer, Verify
from node.domain.verification import RESENDS, CommitmentReport
from tests.fakes import FakeRequester, FakeVerifier
from tests.house import CT, PACS, House, everything, succeed

PENDING, DELIVERED = DeliveryState.PENDING, DeliveryState.DELIVERED
COMMITTED, DEAD = DeliveryState.COMMITTED, DeliveryState.DEAD
ASKED = replace(PACS, verify=Verify.QUERY, verify_seconds=100)
COMMITS = replace(PACS, verify=Verify.COMMITMENT, verify_seconds=100)
NO_PORT = InvalidInput("peers.PACS.port", "is not set", "Give the port on which the peer listens")
UIDS = ("2.25.1", "2.25.2", "2.25.3")


def sent(house: House, peer: Peer = ASKED) -> None:
    """Three results, delivered."""
    house.settled_job()
    house.worker(succeed).work()
    assert everything(house.outbox(peer=peer)) == 3


def rows(house: House) -> list[Delivery]:
    with house.database.read() as tx:
        return tx.deliveries.of_study("1.2")


def states(house: House) -> list[DeliveryState]:
    return [d.state for d in rows(house)]


def report(transaction: str, *committed: str, failed: dict[str, int] | None = None) -> CommitmentReport:
    """What a peer says."""
    return CommitmentReport(
        transaction,
        frozenset(Reference(CT, uid) for uid in committed),
        {Reference(CT, uid): reason for uid, reason in (failed or {}).items()},
    )


def steps(house: House) -> list[str]:
    """What happened to deliveries, but for the claims and the answers."""
    with house.database.read() as tx:
        events = tx.journal.of_study("1.2")
    return [e.step for e in events if e.subject == "delivery" and e.step not in ("claim", "ack")]


class TestByQuery:
    """Of a peer that is asked what it holds."""

    def test_what_it_lists_is_committed(self, house: House) -> None:
        sent(house)
        verifier = FakeVerifier(*UIDS)
        look = house.by_query(verifier, ASKED)
        assert (look.verify(), look.verify()) == (3, 0)
        assert states(house) == [COMMITTED] * 3
        assert {d.verify_at for d in rows(house)} == {None}
        assert verifier.asked == [UIDS]
        assert steps(house) == ["commit"] * 3

    def test_a_peer_whose_word_is_enough_is_not_asked(self, house: House) -> None:
        sent(house, PACS)
        assert house.by_query(FakeVerifier(), PACS).verify() == 0
        assert {(d.state, d.verify_at) for d in rows(house)} == {(DELIVERED, None)}

    def test_the_set_is_looked_for_when_all_of_it_was_sent(self, house: House) -> None:
        house.settled_job()
        house.worker(succeed).work()
        outbox, look = house.outbox(peer=ASKED, batch=1), house.by_query(FakeVerifier(*UIDS), ASKED)
        assert (outbox.deliver(), look.verify(), outbox.deliver(), look.verify()) == (1, 0, 1, 0)
        assert (outbox.deliver(), look.verify()) == (1, 3)

    def test_a_set_that_does_not_become_whole_is_looked_for_after_a_minute(self, house: House) -> None:
        house.settled_job()
        house.worker(succeed).work()
        house.outbox(peer=ASKED, batch=1).deliver()
        look = house.by_query(FakeVerifier(*UIDS), ASKED)
        house.clock.tick(59)
        assert look.verify() == 0
        house.clock.tick(1)
        assert look.verify() == 1
        assert states(house) == [COMMITTED, PENDING, PENDING]

    def test_what_is_not_listed_yet_is_looked_for_with_growing_pauses(self, house: House) -> None:
        sent(house)
        verifier = FakeVerifier("2.25.1")
        look = house.by_query(verifier, ASKED)
        assert look.verify() == 3
        for pause in (10, 10, 20, 40):
            house.clock.tick(pause - 0.1)
            assert look.verify() == 0
            house.clock.tick(0.1)
            assert look.verify() == 2
        assert states(house) == [COMMITTED, DELIVERED, DELIVERED]
        assert {d.reason for d in rows(house)[1:]} == {"the peer does not list it yet"}
        verifier.holds.update(UIDS)
        house.clock.tick(20)
        assert look.verify() == 2
        assert [(d.state, d.reason) for d in rows(house)] == [(COMMITTED, None)] * 3

    def test_what_is_not_there_in_time_is_sent_again_and_then_committed(self, house: House) -> None:
        sent(house)
        verifier = FakeVerifier("2.25.1", "2.25.3")
        look = house.by_query(verifier, ASKED)
        look.verify()
        house.clock.tick(100)
        look.verify()
        (missing,) = [d for d in rows(house) if d.state is PENDING]
        assert (missing.sop_instance_uid, missing.missing, missing.delivered_at) == ("2.25.2", 1, None)
        assert missing.reason == "not listed by the peer 0:01:40 after it was delivered"
        assert missing.created_at == house.clock.now(), "the days after which it is given up begin anew"
        outbox = house.outbox(peer=ASKED)
        assert outbox.deliver() == 0
        house.clock.tick(10)
        assert outbox.deliver() == 1
        verifier.holds.add("2.25.2")
        assert look.verify() == 1
        assert states(house) == [COMMITTED] * 3
        assert house.sender.stored == ["2.25.1.dcm", "2.25.2.dcm", "2.25.3.dcm", "2.25.2.dcm"]
        assert steps(house) == ["commit", "commit", "missing", "commit"]

    def test_what_is_never_there_ends_dead_with_the_reason_and_can_be_requeued(self, house: House) -> None:
        sent(house)
        verifier = FakeVerifier("2.25.1", "2.25.2")
        look, outbox = house.by_query(verifier, ASKED), house.outbox(peer=ASKED)
        for _ in range(RESENDS + 1):
            look.verify()
            house.clock.tick(100)
            look.verify()
            house.clock.tick(600)
            outbox.deliver()
        assert states(house) == [COMMITTED, COMMITTED, DEAD]
        dead = rows(house)[2]
        assert dead.reason == "gave up after it was sent 4 times: not listed by the peer 0:01:40 after it was delivered"
        assert house.sender.stored.count("2.25.3.dcm") == 4
        requeued = house.requeue.requeue_delivery(dead.id, "somebody")
        assert (requeued.state, requeued.missing, requeued.verify_at) == (PENDING, 0, None)

    def test_what_it_has_in_another_study_is_named_and_not_sent_again(self, house: House) -> None:
        sent(house)
        verifier = FakeVerifier("2.25.1", "2.25.3")
        verifier.moved = {"2.25.2": ("1.9", "1.9.1")}
        look = house.by_query(verifier, ASKED)
        look.verify()
        assert states(house) == [COMMITTED, DELIVERED, COMMITTED], "it may still be sorted in"
        house.clock.tick(100)
        look.verify()
        assert states(house) == [COMMITTED, DEAD, COMMITTED]
        where = "the peer has it in study 1.9, series 1.9.1, and not where it was sent"
        assert rows(house)[1].reason == where
        assert everything(house.outbox(peer=ASKED)) == 0
        assert steps(house) == ["commit", "commit", "give up"]

    @pytest.mark.parametrize(
        "error", [PeerUnreachable("PACS: connection refused"), Rejected("PACS offers no C-FIND"), NO_PORT]
    )
    def test_a_peer_that_cannot_be_asked_is_left_alone_and_nothing_is_sent_again(
        self, house: House, error: Exception
    ) -> None:
        sent(house)
        verifier = FakeVerifier(*UIDS)
        verifier.refuses = error
        look = house.by_query(verifier, ASKED)
        for pause in (10, 20, 40, 80, 160, 320, 600, 600):
            assert look.verify() == 3
            house.clock.tick(pause - 0.1)
            assert look.verify() == 0
            house.clock.tick(0.1)
        assert {(d.state, d.reason) for d in rows(house)} == {(DELIVERED, str(error))}
        verifier.refuses = None
        assert look.verify() == 3
        assert states(house) == [COMMITTED] * 3

    def test_a_peer_that_never_can_be_asked_is_given_up_after_days(self, house: House) -> None:
        sent(house)
        verifier = FakeVerifier()
        verifier.refuses = Rejected("PACS offers no C-FIND")
        house.clock.tick(7 * 86400)
        house.by_query(verifier, ASKED).verify()
        assert {(d.state, d.reason) for d in rows(house)} == {
            (DEAD, "never verified within 7 days, 0:00:00: PACS offers no C-FIND")
        }

    def test_two_that_look_at_once_commit_once(self, house: House) -> None:
        sent(house)
        other = house.by_query(FakeVerifier(*UIDS), ASKED)

        class Slow(FakeVerifier):
            def held(self, *asked: object) -> set[str]:
                assert other.verify() == 3
                return set(UIDS)

        assert house.by_query(Slow(), ASKED).verify() == 3
        assert steps(house) == ["commit"] * 3


class TestByCommitment:
    """Of a peer that is asked to take the responsibility."""

    def test_what_it_reports_at_once_is_committed(self, house: House) -> None:
        sent(house, COMMITS)
        peer = FakeRequester()
        peer.report = lambda uid, named: report(uid, *(r.sop_instance_uid for r in named))
        look = house.by_commitment(peer, COMMITS)
        assert (look.verify(), look.verify()) == (3, 0)
        assert peer.asked == {"2.25.1001": UIDS}
        assert {(d.state, d.transaction_uid, d.verify_at) for d in rows(house)} == {(COMMITTED, "2.25.1001", None)}
        assert self.transactions(house) == ["request", "report"]

    def transactions(self, house: House) -> list[str]:
        with house.database.read() as tx:
            return [e.step for e in tx.journal.of_study("1.2") if e.subject == "commitment"]

    def test_what_it_reports_later_is_committed_once(self, house: House) -> None:
        sent(house, COMMITS)
        look = house.by_commitment(FakeRequester(), COMMITS)
        look.verify()
        assert states(house) == [DELIVERED] * 3
        for _ in range(2):
            house.take_reports.take("PACS", report("2.25.1001", *UIDS))
        assert states(house) == [COMMITTED] * 3
        assert steps(house) == ["commit"] * 3
        assert self.transactions(house) == ["request", "report"]
        house.clock.tick(1000)
        assert look.verify() == 0

    def test_the_request_is_durable_before_it_is_sent(self, house: House) -> None:
        sent(house, COMMITS)
        peer = FakeRequester()
        peer.refuses = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            house.by_commitment(peer, COMMITS).verify()
        assert {d.transaction_uid for d in rows(house)} == {"2.25.1001"}
        house.take_reports.take("PACS", report("2.25.1001", *UIDS))
        assert states(house) == [COMMITTED] * 3

    def test_half_of_it_is_committed_and_the_other_half_sent_again(self, house: House) -> None:
        sent(house, COMMITS)
        peer = FakeRequester()
        look = house.by_commitment(peer, COMMITS)
        look.verify()
        for _ in range(2):
            house.take_reports.take("PACS", report("2.25.1001", "2.25.1", failed={"2.25.2": 0x0112, "2.25.3": 0x0213}))
        assert states(house) == [COMMITTED, PENDING, PENDING]
        assert [d.missing for d in rows(house)] == [0, 1, 1]
        assert [d.reason for d in rows(house)[1:]] == [
            "the peer did not commit to it: 0112, no such object instance",
            "the peer did not commit to it: 0213, resource limitation",
        ]
        house.clock.tick(10)
        assert everything(house.outbox(peer=COMMITS)) == 2
        house.take_reports.take("PACS", report("2.25.1001", failed={"2.25.2": 0x0112}))
        assert states(house) == [COMMITTED, DELIVERED, DELIVERED], "an old report says nothing of what was sent since"
        assert look.verify() == 2
        assert peer.asked["2.25.1002"] == ("2.25.2", "2.25.3")
        house.take_reports.take("PACS", report("2.25.1002", "2.25.2", "2.25.3"))
        assert states(house) == [COMMITTED] * 3

    def test_what_fails_again_and_again_ends_dead_with_the_reason(self, house: House) -> None:
        sent(house, COMMITS)
        peer = FakeRequester()
        peer.report = lambda uid, named: report(
            uid,
            *(r.sop_instance_uid for r in named if r.sop_instance_uid != "2.25.2"),
            failed={"2.25.2": 0x0110},
        )
        look, outbox = house.by_commitment(peer, COMMITS), house.outbox(peer=COMMITS)
        for _ in range(RESENDS + 1):
            look.verify()
            house.clock.tick(600)
            outbox.deliver()
        assert states(house) == [COMMITTED, DEAD, COMMITTED]
        assert rows(house)[1].reason == (
            "gave up after it was sent 4 times: the peer did not commit to it: 0110, processing failure"
        )

    def test_what_is_never_reported_is_asked_again_then_sent_again_then_given_up(self, house: House) -> None:
        sent(house, COMMITS)
        peer = FakeRequester()
        look, outbox = house.by_commitment(peer, COMMITS), house.outbox(peer=COMMITS)
        look.verify()
        house.clock.tick(49)
        assert look.verify() == 0
        house.clock.tick(1)
        assert look.verify() == 3
        assert list(peer.asked) == ["2.25.1001", "2.25.1002"]
        house.clock.tick(50)
        look.verify()
        assert {(d.state, d.missing, d.reason) for d in rows(house)} == {
            (PENDING, 1, "asked 2 times to commit to it, the peer reported nothing")
        }
        for _ in range(RESENDS):
            house.clock.tick(600)
            everything(outbox)
            for _ in range(3):
                look.verify()
                house.clock.tick(50)
        assert {(d.state, d.reason) for d in rows(house)} == {
            (DEAD, "gave up after it was sent 4 times: asked 2 times to commit to it, the peer reported nothing")
        }
        assert len(peer.asked) == 2 * (RESENDS + 1)

    def test_a_report_of_the_first_request_counts_after_the_second(self, house: House) -> None:
        sent(house, COMMITS)
        look = house.by_commitment(FakeRequester(), COMMITS)
        look.verify()
        house.clock.tick(50)
        look.verify()
        house.take_reports.take("PACS", report("2.25.1001", *UIDS))
        house.take_reports.take("PACS", report("2.25.1002", *UIDS))
        assert states(house) == [COMMITTED] * 3

    def test_what_a_report_leaves_out_is_asked_for_again(self, house: House) -> None:
        sent(house, COMMITS)
        peer = FakeRequester()
        look = house.by_commitment(peer, COMMITS)
        look.verify()
        house.take_reports.take("PACS", report("2.25.1001", "2.25.1"))
        house.clock.tick(50)
        assert look.verify() == 2
        assert peer.asked["2.25.1002"] == ("2.25.2", "2.25.3")

    def test_a_transaction_that_is_none_of_ours_is_refused(self, house: House) -> None:
        sent(house, COMMITS)
        house.by_commitment(FakeRequester(), COMMITS).verify()
        with pytest.raises(InvalidRequest, match="TransactionUID: is none of ours") as error:
            house.take_reports.take("PACS", report("2.25.999", *UIDS))
        assert error.value.status == 0x0115
        assert states(house) == [DELIVERED] * 3

    def test_what_was_not_asked_for_is_not_committed(self, house: House) -> None:
        sent(house, COMMITS)
        look = house.by_commitment(FakeRequester(), COMMITS)
        look.verify()
        house.job_of_another_study()
        everything(house.outbox(peer=COMMITS))
        other = replace(report("2.25.1001", "2.25.1"), committed=frozenset({Reference("1.2.3", "2.25.2")}))
        house.take_reports.take("PACS", report("2.25.1001", "2.25.1", "2.25.91", "2.25.99"))
        house.take_reports.take("PACS", other)
        assert states(house) == [COMMITTED, DELIVERED, DELIVERED], "another SOP class is another object"
        with house.database.read() as tx:
            assert [d.state for d in tx.deliveries.of_study("1.9")] == [DELIVERED]

    @pytest.mark.parametrize("error", [PeerUnreachable("PACS: connection refused"), Rejected("PACS does not offer it")])
    def test_a_peer_that_cannot_be_asked_is_left_alone_and_nothing_is_sent_again(
        self, house: House, error: Exception
    ) -> None:
        sent(house, COMMITS)
        peer = FakeRequester()
        peer.refuses = error
        look = house.by_commitment(peer, COMMITS)
        for pause in (10, 20, 40, 80, 160, 320, 600, 600):
            assert look.verify() == 3
            house.clock.tick(pause - 0.1)
            assert look.verify() == 0
            house.clock.tick(0.1)
        assert {(d.state, d.reason) for d in rows(house)} == {(DELIVERED, str(error))}
        peer.refuses = None
        peer.report = lambda uid, named: report(uid, *UIDS)
        assert look.verify() == 3
        assert states(house) == [COMMITTED] * 3

    def test_a_request_that_is_refused_is_repeated_with_growing_pauses_until_it_is_given_up(self, house: House) -> None:
        sent(house, COMMITS)
        peer = FakeRequester()
        peer.status = 0x0213
        look = house.by_commitment(peer, COMMITS)
        for pause in (10, 10, 20, 40, 80):
            assert look.verify() == 3
            house.clock.tick(pause - 0.1)
            assert look.verify() == 0
            house.clock.tick(0.1)
        assert {d.reason for d in rows(house)} == {"asked to commit to it, the peer answered 0213"}
        house.clock.tick(7 * 86400)
        look.verify()
        assert states(house) == [DEAD] * 3

    def test_each_job_is_a_transaction_of_its_own(self, house: House) -> None:
        sent(house, COMMITS)
        house.job_of_another_study()
        everything(house.outbox(peer=COMMITS))
        peer = FakeRequester()
        assert house.by_commitment(peer, COMMITS).verify() == 4
        assert list(peer.asked.values()) == [UIDS, ("2.25.91",)]
