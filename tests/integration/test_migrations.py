"""The schema's versions, on SQLite and on PostgreSQL."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from gateway.errors import SchemaError
from gateway.store import Store, open_store
from gateway.store.schema import current_revision, downgrade, head_revision, require_current, upgrade
from gateway.store.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give a database without any table."""
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'empty.db'}" if is_sqlite else request.getfixturevalue("postgres_url")
    opened = open_store(url, tmp_path)
    yield opened
    opened.close()


def tables(store: Store) -> set[str]:
    """Name the tables that there are."""
    with store.read() as connection:
        return set(sa.inspect(connection).get_table_names()) - {"alembic_version"}


def test_up_down_and_up_again(empty: Store) -> None:
    """Down leaves nothing, and up after down works."""
    upgrade(empty)
    after_up = tables(empty)
    downgrade(empty, "base")
    after_down = tables(empty)
    upgrade(empty)

    assert after_up == set(metadata.tables)
    assert after_down == set()
    assert tables(empty) == set(metadata.tables)
    assert current_revision(empty) == head_revision()


def test_the_migrations_make_what_the_program_expects(empty: Store) -> None:
    """No table, column, type, index or constraint differs from the definitions in the program."""
    upgrade(empty)
    with empty.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)

    assert differences == []


def test_sqlite_is_upgraded_by_itself_and_postgresql_by_command(empty: Store) -> None:
    """Where several hosts share a database, an operator decides when."""
    if empty.engine.dialect.name == "sqlite":
        require_current(empty)
    else:
        with pytest.raises(SchemaError, match="run `hybridmed db upgrade`"):
            require_current(empty)
        upgrade(empty)
        require_current(empty)

    assert current_revision(empty) == head_revision()


def test_a_newer_schema_is_refused_with_a_sentence(empty: Store) -> None:
    """By start and by upgrade, where it did more than add; the database stays as it is."""
    upgrade(empty)
    with empty.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(sa.text("UPDATE schema_floor SET revision = '9999'"))

    for refusing in (require_current, upgrade):
        with pytest.raises(SchemaError, match="the database has schema 9999, this program knows up to"):
            refusing(empty)
    assert current_revision(empty) == "9999"


def test_two_upgrades_at_once_end_in_one_schema(empty: Store) -> None:
    """Two processes start at the same moment on an empty database; the second finds nothing to do."""
    program = "import sys; from pathlib import Path; from gateway.store import open_store, schema; "
    program += "schema.upgrade(open_store(sys.argv[1], Path(sys.argv[2])))"
    url = empty.engine.url.render_as_string(hide_password=False)
    started = [
        subprocess.Popen([sys.executable, "-c", program, url, str(empty.data_dir)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]

    assert [process.returncode for process in started] == [0, 0], errors
    assert tables(empty) == set(metadata.tables)


def test_names_that_were_there_are_found_after_the_upgrade(empty: Store) -> None:
    """Studies of a database of version 1 get the folded names that queries match."""
    upgrade(empty, "0001")
    row = {name: "" for name in _texts_of_study()} | {"study_instance_uid": "1.2", "patient_name": "Müller^Ann"}
    row |= {"revision": 1, "first_received_at": "2026-03-02 12:00:00", "last_received_at": "2026-03-02 12:00:00"}
    with empty.write() as connection:
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        connection.execute(sa.text(f"INSERT INTO study ({names}) VALUES ({values})"), row)  # noqa: S608 # our own names

    upgrade(empty)

    with empty.read() as connection:
        found = connection.execute(sa.text("SELECT patient_name_folded, referring_physician_folded FROM study")).all()
    assert [tuple(each) for each in found] == [("=muller^ann=", "")]


def test_associations_that_were_open_still_carry_their_studies_after_the_upgrade(empty: Store) -> None:
    """Of a database of version 6, with the number of instances by study and SOP class."""
    upgrade(empty, "0006")
    _insert_three_instances(empty)

    upgrade(empty)

    with empty.read() as connection:
        found = connection.execute(sa.select(metadata.tables["association_content"])).all()
    assert sorted(tuple(each) for each in found) == [("a", "1.2", "1.1", 1), ("a", "1.2", "1.9", 2)]


def _insert_three_instances(store: Store) -> None:
    """Insert what association `a` brought: two of SOP class 1.9, one of 1.1; as the tables are at this revision."""
    given = {"study_instance_uid": "1.2", "series_instance_uid": "1.2.1", "association_id": "a", "is_current": True}
    classes = ("1.9", "1.9", "1.1")
    instances = [{"sop_instance_uid": f"1.2.1.{n}", "sop_class_uid": uid} for n, uid in enumerate(classes)]
    with store.write() as connection:
        for name, rows in (("study", [{}]), ("series", [{}]), ("instance", instances)):
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            needed = [column for column in table.c if not column.nullable and column.name != "id"]
            for row in rows:
                values = {column.name: _any(column) for column in needed} | given | row
                connection.execute(sa.insert(table).values({c.name: values[c.name] for c in needed}))


def _any(column: sa.Column[Any]) -> object:
    kind = column.type.python_type
    return datetime(2026, 3, 2, tzinfo=UTC) if kind is datetime else kind()


def _texts_of_study() -> list[str]:
    later = {"patient_name_folded", "referring_physician_folded", "state_reason", "held_by", "hold_reason"}
    texts = [column.name for column in metadata.tables["study"].c if isinstance(column.type, sa.String)]
    return [name for name in texts if name not in later]
