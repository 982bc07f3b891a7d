"""The schema: made, brought up to date, or refused."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from node.domain.errors import InvalidSettings
from node.store.database import SCHEMA, Database
from tests.rows import commitment


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    from sqlalchemy import create_engine, text

    url = f"sqlite:///{tmp_path}/newer.db"
    first = Database(url)
    first.prepare()
    first.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    newer = Database(url)
    with pytest.raises(InvalidSettings, match=f"9999.*{SCHEMA}"):
        newer.prepare()
    newer.close()


def test_a_database_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text

    url = f"sqlite:///{tmp_path}/older.db"
    config = Config()
    config.set_main_option("script_location", str(files("node.store.migrations")))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text("INSERT INTO study VALUES ('1.2.3', 'receiving', 1, :now, :now, :now, 'CT1', 1)"), {"now": 0.0}
        )
    engine.dispose()
    database = Database(url)
    database.prepare()
    with database.write() as tx:
        assert [s.study_uid for s in tx.studies.latest()] == ["1.2.3"]
        tx.commitments.add(commitment())
    database.close()


def test_the_migrations_give_the_tables_of_the_code(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine
    from sqlmodel import SQLModel

    url = f"sqlite:///{tmp_path}/schema.db"
    database = Database(url)
    database.prepare()
    database.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    engine.dispose()


def test_a_schema_that_is_made_apart_is_there(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/apart.db")
    database.prepare(apart=True)
    with database.read() as tx:
        assert tx.instances.count() == 0
    database.prepare()
    database.close()
