"""Alembic's entry: runs on the connection that the database hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import node.store.tables  # noqa: F401  (fills SQLModel.metadata)

context.configure(connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata)
with context.begin_transaction():
    context.run_migrations()
