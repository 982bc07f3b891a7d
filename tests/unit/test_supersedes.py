"""Results that replace earlier ones know which: those that each peer has, or will have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node.domain.delivery import DeliveryState, DeliveryStep
from node.domain.job import Job, JobInput, JobOutput, JobState, Outcome, Role
from node.domain.profile import FULL, NoticeKind, Profile
from node.services.notices import Notices
from node.services.steps import move_delivery
from tests.house import CHEST, House, everything, provenance, succeed
from tests.versions import WHY, ModelHouse, each_named

Run = Callable[[JobInput], JobOutput]


def numbered(seen: list[JobInput]) -> Run:
    """Three results for each profile, with UIDs of the run's own."""

    def run(job: JobInput) -> JobOutput:
        seen.append(job)
        return succeed(job, prefix=f"{len(seen)}0")

    return run


def again(house: House, uid: str) -> Job:
    """A late instance: the next revision, routed."""
    house.clock.tick(1)
    return house.settled_job(uid)


def uids(job: JobInput) -> dict[str, list[str]]:
    return {name: [r.sop_instance_uid for r in found] for name, found in job.supersedes.items()}


@pytest.mark.parametrize("delivered", [True, False])
def test_a_later_revision_replaces_what_the_peer_has_or_will_have(house: House, delivered: bool) -> None:
    seen: list[JobInput] = []
    house.settled_job()
    house.worker(numbered(seen)).work()
    if delivered:
        everything(house.outbox())
    again(house, "1.2.3.2")
    house.worker(numbered(seen)).work()
    again(house, "1.2.3.3")
    house.worker(numbered(seen)).work()
    first, second, third = seen
    assert first.supersedes == {}
    assert uids(second) == {"full": ["2.25.101", "2.25.102", "2.25.103"]}
    assert uids(third) == {"full": ["2.25.201", "2.25.202", "2.25.203"]}
    (reference, *_) = second.supersedes["full"]
    assert (reference.study_uid, reference.series_uid) == ("1.2", "2.25.9")


def test_what_never_got_there_is_not_replaced(house: House) -> None:
    seen: list[JobInput] = []
    house.settled_job()
    house.worker(numbered(seen)).work()
    with house.database.write() as tx:
        for delivery in tx.deliveries.claim(
            peer="PACS", owner="x", now=house.clock.now(), lease=house.clock.tick(60) - house.clock.now(), limit=9
        )[:2]:
            move_delivery(tx, delivery, DeliveryStep.REJECT, house.clock.now(), reason="no", owner=None)
    again(house, "1.2.3.2")
    house.worker(numbered(seen)).work()
    assert uids(seen[1]) == {"full": ["2.25.103"]}


def test_each_profile_replaces_what_its_peers_have(tmp_path: Path) -> None:
    house = House(tmp_path, routes=[replace(CHEST, send_to=("PACS", "VIEWER"))])
    profiles = {"PACS": FULL, "VIEWER": Profile("small")}
    seen: list[JobInput] = []
    house.settled_job()
    house.worker(numbered(seen), profiles=profiles).work()
    again(house, "1.2.3.2")
    house.worker(numbered(seen), profiles=profiles).work()
    assert uids(seen[1]) == {
        "full": ["2.25.101", "2.25.102", "2.25.103"], "small": ["2.25.104", "2.25.105", "2.25.106"]
    }  # fmt: skip
    again(house, "1.2.3.3")
    house.worker(numbered(seen), profiles={}).work()
    # Both have the same profile now; what each has is replaced.
    assert uids(seen[2]) == {"full": [f"2.25.20{n}" for n in range(1, 7)]}
    house.close()


def test_another_route_replaces_nothing(tmp_path: Path) -> None:
    house = House(tmp_path, routes=[CHEST, replace(CHEST, name="second")])
    seen: list[JobInput] = []
    house.settled_job()
    worker = house.worker(numbered(seen))
    while worker.work():
        pass
    assert [job.supersedes for job in seen] == [{}, {}]
    house.close()


def test_a_refused_revision_in_between_changes_nothing(house: House) -> None:
    seen: list[JobInput] = []
    house.settled_job()
    house.worker(numbered(seen)).work()
    again(house, "1.2.3.2")
    house.worker(lambda job: JobOutput(Outcome.REFUSED, reason="no")).work()
    again(house, "1.2.3.3")
    house.worker(numbered(seen)).work()
    assert uids(seen[1]) == {"full": ["2.25.101", "2.25.102", "2.25.103"]}


@pytest.mark.usefixtures("threshold_kind")
def test_a_replay_that_is_sent_replaces_the_result_and_one_that_fails_leaves_it(tmp_path: Path) -> None:
    house = ModelHouse(tmp_path)
    house.rollouts.refresh()
    (job,) = house.route("1.2.10")
    house.work_off(each_named)
    house.give(house.add("2"), Role.SHADOW)
    known = house.models.find("lung@2")
    seen: list[JobInput] = []

    def run(given: JobInput) -> JobOutput:
        seen.append(given)
        return each_named(given)

    for send, answer in ((True, run), (False, run), (True, lambda given: JobOutput(Outcome.FAILED, reason="no"))):
        house.clock.tick(1)
        house.replay.replay("1.2.10", known, send=send, who="ann", why=WHY)
        house.work_off(answer)
    sent, unsent = seen
    with house.database.read() as tx:
        earlier = {i.sop_instance_uid for i in tx.instances.of_job(job.id)}
    assert set(uids(sent)["full"]) == earlier
    assert unsent.supersedes == {}
    told = Profile("told", notice=NoticeKind.SR)
    notices = Notices(
        house.database.write, house.database.read, house.clock, house.files, provenance, {"PACS": told}
    )  # fmt: skip
    assert notices.give() == 0
    house.close()


def test_what_is_done_after_a_newer_revision_is_not_sent(house: House) -> None:
    """Two workers: the one with the older revision is slower."""
    seen: list[JobInput] = []
    old = house.settled_job()

    def slow(job: JobInput) -> JobOutput:
        again(house, "1.2.3.2")
        assert house.worker(numbered(seen)).work()
        return succeed(job, prefix="9")

    house.worker(slow).work()
    with house.database.read() as tx:
        done = tx.jobs.get(old.id)
        owed = tx.deliveries.latest()
        kept = tx.instances.of_job(old.id)
    assert done is not None
    assert done.state is JobState.SUCCEEDED
    assert "of revision 2 was done before it" in (done.reason or "")
    assert len(kept) == 3
    assert {d.sop_instance_uid for d in owed} == {"2.25.101", "2.25.102", "2.25.103"}
    assert {d.state for d in owed} == {DeliveryState.PENDING}
