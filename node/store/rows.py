"""Between a row and a domain object of the same field names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import CursorResult, Row, Update, update
from sqlmodel import Session, SQLModel

T = TypeVar("T")
R = TypeVar("R", bound=SQLModel)


def values(thing: Any, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a frozen domain object as column values: enums as their text, tuples as lists."""
    return {f.name: _plain(getattr(thing, f.name)) for f in fields(thing) if f.name not in without}


def changes(before: Any, after: Any) -> dict[str, Any]:
    """Of two of the same kind, the fields of ``after`` that are another, as column values."""
    return {
        name: _plain(value)
        for name, old in vars(before).items()
        if (value := getattr(after, name)) is not old and value != old
    }


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def build(kind: type[T], row: SQLModel | Row[Any], /, **changed: Any) -> T:
    """A domain object from a row; ``changed`` gives what a column cannot hold as it is."""
    named = {f.name: getattr(row, f.name) for f in fields(kind) if f.name not in changed}  # type: ignore[arg-type]
    return kind(**named, **changed)


def run(session: Session, statement: Update) -> int:
    """Execute an UPDATE and return how many rows it changed."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount


def claim(
    session: Session, kind: type[R], *conditions: Any, state: str, owner: str, until: datetime, **also: Any
) -> list[R]:
    """Take rows by a lease that ends at ``until``, in no order: each goes to ``state``, and its attempt is counted.

    Args:
        conditions: which rows, mostly that the id is among those of a SELECT … FOR UPDATE SKIP LOCKED.
        also: what else is written.
    """
    table: Any = kind
    statement = (
        update(kind)
        .where(*conditions)
        .values(state=state, attempt=table.attempt + 1, owner=owner, lease_until=until, **also)
        .returning(kind)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return list(session.execute(statement).scalars())
