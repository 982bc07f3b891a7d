"""A removal that is cut off leaves a study whole or gone; what arrives at that moment stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.domain.instance import Aside
from node.domain.retention import Keep, Kind
from node.domain.study import StudyState
from node.repositories import UnitOfWork
from node.services.prune import Prune
from node.services.receive import Receive, read_kept
from node.services.recover import Recover
from tests import objects
from tests.house import House
from tests.pruning import DAY, KEEP, done, files, study


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def restart(house: House, keep: Keep = KEEP) -> int:
    """Start again after a crash; returns how many rows were missing."""
    house.prune(keep).recover()
    recover = Recover(
        house.database.write, house.database.read, house.clock, house.files,
        read_kept=lambda path: read_kept(house.files, path), read_aside=_no_aside, alive=lambda owner: True,
        attempts=3,
    )  # fmt: skip
    return recover.index(house.assemble)


def _no_aside(path: str) -> Aside:
    raise AssertionError(path)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(house: House, run: Callable[[], object]) -> None:
    """Run it in a process of its own, which kills itself."""
    child = os.fork()
    if child == 0:
        house.database._engine.dispose(close=False)  # the connections belong to the parent
        try:
            run()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@contextmanager
def cut_before_the_end(house: House) -> Iterator[UnitOfWork]:
    with house.database.write() as tx:
        yield tx
        die()


def test_a_kill_before_the_rows_are_gone_puts_everything_back(house: House) -> None:
    done(house)
    before = files(house)
    house.clock.tick(31 * DAY)

    def run() -> None:
        prune = house.prune(KEEP)
        prune._write = lambda: cut_before_the_end(house)
        prune.prune()

    killed(house, run)
    assert all(path.startswith("trash/") for path in files(house)), "it died half-way"
    assert restart(house) == 0
    assert (files(house), study(house).state) == (before, StudyState.ROUTED)
    house.prune(KEEP).prune()
    assert (files(house), study(house).state) == ([], StudyState.EXPIRED)


def test_a_kill_after_the_rows_are_gone_leaves_nothing(house: House) -> None:
    done(house)
    house.clock.tick(31 * DAY)

    def run() -> None:
        prune = house.prune(KEEP)
        prune._trash.empty = lambda name: die()  # type: ignore[method-assign]
        prune.prune()

    killed(house, run)
    assert files(house, "instances", "results") == []
    assert files(house, "trash") != []
    assert restart(house) == 0
    assert (files(house, "instances", "results"), study(house).state) == ([], StudyState.EXPIRED)
    house.prune(KEEP).prune()
    assert (files(house), study(house).state) == ([], StudyState.EXPIRED)
    with house.database.read() as tx:
        assert tx.retention.totals()[Kind.STUDIES].number == 1
        assert tx.retention.removals() == []


def test_an_error_half_way_leaves_the_study_whole(house: House) -> None:
    done(house)
    before = files(house)
    house.clock.tick(31 * DAY)
    prune = house.prune(KEEP)

    @contextmanager
    def broken() -> Iterator[UnitOfWork]:
        with house.database.write() as tx:
            yield tx
            raise RuntimeError("the database is gone")

    prune._write = broken
    prune.prune()
    assert (files(house), study(house).state) == (before, StudyState.ROUTED)


def arriving(house: House, at: str) -> Prune:
    """What removes studies, while another instance of the study arrives: it is acknowledged, its row follows."""
    prune = house.prune(KEEP)
    trash: Any = prune._trash
    take, move = trash.take, trash._move

    def arrives() -> None:
        sent = objects.incoming(SOPInstanceUID="1.2.3.9", SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
        receive = Receive(house.files, lambda uid: None, lambda uid: False, lambda kept: None, house.clock)
        assert receive.store(sent).status == 0

    def then_taken(*given: Any) -> None:
        if at == "before":
            arrives()
        take(*given)
        if at == "after":
            arrives()

    def moved(*given: Any) -> None:
        move(*given)
        if at == "meanwhile":
            arrives()

    trash.take, trash._move = then_taken, moved
    return prune


@pytest.mark.parametrize("at", ["before", "meanwhile", "after"])
def test_what_is_acknowledged_at_that_very_moment_stays(house: House, at: str) -> None:
    done(house)
    house.clock.tick(31 * DAY)
    arriving(house, at).prune()
    assert files(house) == ["instances/1.2/1.2.3/1.2.3.9.dcm"]
    assert (study(house).state, study(house).revision) == (StudyState.RECEIVING, 2)
    with house.database.read() as tx:
        assert [i.sop_instance_uid for i in tx.instances.of_study("1.2")] == ["1.2.3.9"]


def test_a_study_that_moved_on_meanwhile_stays(house: House) -> None:
    done(house)
    house.clock.tick(31 * DAY)
    prune = house.prune(KEEP)

    def late(*given: Any, **named: Any) -> Any:
        prune._write = house.database.write
        house.assemble.index([house.receive("1.2.3.9")])
        return house.database.write()

    prune._write = late
    prune.prune()
    assert len(files(house, "instances")) == 2
    assert study(house).state is StudyState.RECEIVING


def test_one_process_at_a_time(house: House) -> None:
    done(house)
    house.clock.tick(31 * DAY)
    first, second = house.prune(KEEP), house.prune(KEEP)
    with first._trash.held() as ours:
        assert ours
        assert not second.prune()
    assert second.prune()


def test_a_receiver_that_meets_the_removal_of_a_directory_makes_it_again(house: House) -> None:
    """Between the making of the directory and the link."""
    house.receive("1.2.3.1")
    made: Any = house.files
    real = made._make_dir

    def then_removed(directory: Path, *, sync: bool) -> None:
        real(directory, sync=sync)
        if directory.name == "1.2.3" and house.files.absolute("instances/1.2/1.2.3/1.2.3.1.dcm").exists():
            house.files.absolute("instances/1.2").rename(house.files.absolute("trash/x"))

    house.files.absolute("trash").mkdir(exist_ok=True)
    made._make_dir = then_removed
    kept: list[Any] = []
    receive = Receive(house.files, lambda uid: None, lambda uid: False, kept.append, house.clock)
    sent = objects.incoming(SOPInstanceUID="1.2.3.2", SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    assert receive.store(sent).status == 0
    assert house.files.absolute(kept[0].path).exists()
