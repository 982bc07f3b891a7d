"""A study that is done with, and what lies on disk of it."""

from __future__ import annotations

from datetime import timedelta

from node.domain.retention import Keep
from node.domain.study import Study
from tests.house import House, everything, succeed

DAY = 86400.0
KEEP = Keep(studies=timedelta(days=30))


def study(house: House, uid: str = "1.2") -> Study:
    with house.database.read() as tx:
        found = tx.studies.get(uid)
    assert found is not None
    return found


def done(house: House) -> None:
    """A study, its job and its results, delivered."""
    house.settled_job()
    house.worker(succeed).work()
    everything(house.outbox())


def files(house: House, *tops: str) -> list[str]:
    """What lies in the data directory, by its path."""
    root = house.files.absolute("")
    return sorted(
        str(p.relative_to(root)) for top in tops or ("instances", "results", "trash")
        for p in house.files.absolute(top).rglob("*") if p.is_file()
    )  # fmt: skip
