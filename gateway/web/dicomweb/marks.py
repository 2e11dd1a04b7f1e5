"""Whether the database has changed, by its own word, read without a query of the tables.

SQLite's `data_version` differs after any commit of another connection; PostgreSQL's current snapshot differs after the
end of any writing transaction.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

import sqlalchemy as sa
import structlog
from sqlalchemy.pool import PoolProxiedConnection

from gateway.store import Store

log = structlog.get_logger()

Mark = object


class Marks(Protocol):
    """Says in which state the database is."""

    async def current(self) -> Mark | None:
        """Return a value that differs from an earlier one where anything was committed since; None: not known."""


def marks_of(store: Store) -> Marks:
    """Return what reads the marks of a database."""
    look = _Look(store)
    return SqliteMarks(look) if store.engine.dialect.name == "sqlite" else PostgresMarks(look)


class _Look:
    """One statement on a connection of its own, made anew after an error."""

    def __init__(self, store: Store) -> None:
        self._engine = store.engine
        self._connection: PoolProxiedConnection | None = None
        self._connected = 0
        """How often; part of the mark, since a new connection counts its versions anew."""
        sa.event.listen(store.engine, "engine_disposed", self._close)
        is_sqlite = store.engine.dialect.name == "sqlite"
        self._statement = "PRAGMA data_version" if is_sqlite else "SELECT pg_current_snapshot()::text"

    def __call__(self) -> Mark | None:
        """Return the mark; None where the database does not answer."""
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connected += 1
            driver: Any = self._connection.dbapi_connection
            return self._connected, driver.execute(self._statement).fetchone()[0]
        except (self._engine.dialect.loaded_dbapi.Error, sa.exc.SQLAlchemyError) as error:
            log.warning("answers.not_kept", error=type(error).__name__)
            self._close()
            return None

    def _close(self, _engine: sa.Engine | None = None) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(self._engine.dialect.loaded_dbapi.Error, sa.exc.SQLAlchemyError):
                connection.close()

    def _connect(self) -> PoolProxiedConnection:
        connection = self._engine.raw_connection()
        connection.detach()  # it stays for good: the pool may make another for queries
        driver: Any = connection.dbapi_connection
        if self._engine.dialect.name == "sqlite":
            driver.execute("PRAGMA busy_timeout=0")  # asked for in the event loop, which must not wait
        else:
            driver.autocommit = True  # a snapshot of its own for each look
        return connection


class SqliteMarks:
    """A look at shared memory, made right where it is asked for."""

    def __init__(self, look: _Look) -> None:
        self._look = look

    async def current(self) -> Mark | None:
        """Return SQLite's data version, which holds for one connection, with that connection."""
        return self._look()


class PostgresMarks:
    """A look at the server, made in a thread; requests that come meanwhile share the next one."""

    def __init__(self, look: _Look) -> None:
        self._look = look
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._running: asyncio.Task[Mark | None] | None = None
        self._next: asyncio.Task[Mark | None] | None = None

    async def current(self) -> Mark | None:
        """Return a snapshot that was taken after this was called."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())
            return await asyncio.shield(self._running)
        if self._next is None:
            self._next = asyncio.create_task(self._run(after=self._running))
        return await asyncio.shield(self._next)

    async def _run(self, after: asyncio.Task[Mark | None] | None = None) -> Mark | None:
        if after is not None:
            await asyncio.wait([after])
            self._running, self._next = self._next, None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._look)
        finally:
            if self._next is None:
                self._running = None
