"""Engines for SQLite and PostgreSQL, and the `Store` that hands out transactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.errors import DatabaseAwayError
from gateway.store.files import Files

_BUSY_TIMEOUT_MS = 30_000
_STATEMENTS_KEPT = 128
"""Compiled statements that SQLAlchemy keeps, at times half as many more: up to 0.4 MiB each, where they search FHIR."""
_PREPARED_KEPT = 32
"""Of each connection to SQLite: a prepared search is tens of kilobytes, and a server has a dozen connections."""
_POSTGRES_ARGS: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Of libpq: a server that vanished without a word is found out within a minute."""
_POSTGRES_SESSION: Mapping[str, int | str] = {
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "jit": "off",
}
"""Of the server: one of our hosts that vanished in a transaction holds its locks for half a minute. By itself
PostgreSQL would keep them for two hours. No statement is compiled: that takes longer than any of ours does."""
_WRONG_SCHEMA = frozenset({"42P01", "42703", "3F000"})
"""SQLSTATEs of PostgreSQL: undefined table, undefined column, invalid schema name."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime in UTC; naive values are refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; SQLite keeps it without the offset."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime reached the database")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Store:
    """The database and the data folder.

    Parameters
    ----------
    engine
        SQLAlchemy engine.
    data_dir
        Folder against which the paths in the database are relative.
    files
        What lies there, or in a bucket; None: there is no bucket.
    """

    def __init__(self, engine: Engine, data_dir: Path, files: Files | None = None) -> None:
        self.engine = engine
        self.data_dir = data_dir
        self.files = files or Files(data_dir)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot; DatabaseAwayError when the database does not answer."""
        with _away(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed on leaving; SQLite takes its write lock at the start, so that none is upgraded."""
        with _away(), self.engine.connect() as connection:
            writing = connection.execution_options(hybridmed_write=True)
            with writing.begin():
                yield writing

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_store(url: str, data_dir: Path, files: Files | None = None) -> Store:
    """Open the database; nothing connects before the first transaction.

    Parameters
    ----------
    url
        SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…` (`postgresql://` is read as the latter).
    data_dir
        The data folder; made if absent.
    files
        What lies there, or in a bucket.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    parsed = sa.make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        # Parameters are hidden in errors, here and below: they are patients' data.
        engine = sa.create_engine(
            parsed,
            hide_parameters=True,
            query_cache_size=_STATEMENTS_KEPT,
            connect_args={
                "timeout": _BUSY_TIMEOUT_MS / 1000,
                "check_same_thread": False,
                "cached_statements": _PREPARED_KEPT,
            },
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = sa.create_engine(
            parsed,
            hide_parameters=True,
            query_cache_size=_STATEMENTS_KEPT,
            pool_pre_ping=True,
            pool_size=10,
            connect_args=dict(_POSTGRES_ARGS),
        )
        sa.event.listen(engine, "do_connect", _connect_postgres)
        sa.event.listen(engine, "connect", _prepare_postgres)
    return Store(engine, data_dir, files)


def insert_ignore(
    connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str]
) -> int:
    """Insert rows, leaving out those whose unique key stands already; return how many went in."""
    if not rows:
        return 0
    insert = _insert(connection, table).on_conflict_do_nothing(index_elements=list(keys))
    counted = {"preserve_rowcount": True}  # SQLAlchemy gives that of an INSERT up on PostgreSQL
    return sum(connection.execute(insert, row, execution_options=counted).rowcount for row in rows)


def upsert(
    connection: Connection, table: sa.Table, row: Mapping[str, Any], *, keys: Sequence[str], update: Sequence[str]
) -> None:
    """Insert a row, or update the columns `update` of the row whose unique key stands already."""
    insert = _insert(connection, table).values(**row)
    connection.execute(
        insert.on_conflict_do_update(index_elements=list(keys), set_={name: insert.excluded[name] for name in update})
    )


def upsert_sums(
    connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str], add: str
) -> None:
    """Insert rows, or add the number in the column `add` of each to that of the row whose unique key stands already."""
    if not rows:
        return
    insert = _insert(connection, table)
    total = table.c[add] + insert.excluded[add]
    connection.execute(insert.on_conflict_do_update(index_elements=list(keys), set_={add: total}), rows)


def _insert(connection: Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


@contextmanager
def _away() -> Iterator[None]:
    """Turn a lost or refused connection, and a schema that does not fit, into DatabaseAwayError.

    What the database says of the data itself (DataError, IntegrityError) is passed on: no waiting mends it.
    """
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise DatabaseAwayError("no connection to the database came free in time") from error
    except (sa.exc.OperationalError, sa.exc.InternalError) as error:
        raise DatabaseAwayError(f"the database does not answer: {type(error.orig).__name__}") from error
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseAwayError("the database closed the connection") from error
        if getattr(error.orig, "sqlstate", None) in _WRONG_SCHEMA:
            raise DatabaseAwayError(
                "the schema is not the one this program needs: run `hybridmed db upgrade`"
            ) from error
        raise


@contextmanager
def waiting_for_ever(connection: Connection) -> Iterator[None]:
    """Let statements of a connection take as long as they may: changes of the schema."""
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        yield
        return
    before, driver.silence_s = driver.silence_s, None  # type: ignore[union-attr]  # an AnsweringConnection
    try:
        yield
    finally:
        driver.silence_s = before  # type: ignore[union-attr]


def _connect_postgres(
    _dialect: Dialect, _record: ConnectionPoolEntry, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    from gateway.store.answering import AnsweringConnection  # noqa: PLC0415 # psycopg is an extra

    return AnsweringConnection.connect(*arguments, **options)


def _prepare_postgres(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    connection.autocommit = True  # a setting made in a transaction would be gone with it, where that is rolled back
    cursor = connection.cursor()
    cursor.execute("; ".join(f"SET {name} = {value}" for name, value in _POSTGRES_SESSION.items()))
    cursor.close()
    connection.autocommit = False


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling off: `begin` below decides, so that a write takes its lock at once.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a committed row must outlive a power cut: the file that it stands for is then unlinked
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    is_writing = connection.get_execution_options().get("hybridmed_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")
