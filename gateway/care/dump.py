"""All tables, a file of JSON lines each: written from one snapshot, read into an empty database of the same schema.

The form knows neither SQLite nor PostgreSQL: a gateway that outgrows the one is restored into the other.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.tables import metadata

_LEFT_OUT = frozenset({"service", "tally"})
"""Tables whose rows mean nothing elsewhere: who runs now; or that are made from others."""
_BATCH = 1000
_STREAMED = {"yield_per": _BATCH}


def dumped_tables() -> list[sa.Table]:
    """Return the tables in an order in which rows can be inserted."""
    return [table for table in metadata.sorted_tables if table.name not in _LEFT_OUT]


def snapshot(connection: Connection) -> None:
    """See that all reads of this connection are of one moment."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))


def write_table(connection: Connection, table: sa.Table, file: Path) -> int:
    """Write the rows of a table, and return how many."""
    count = 0
    reading = connection.execute(sa.select(table), execution_options=_STREAMED)
    with reading as rows, gzip.open(file, "wb", compresslevel=3) as lines:
        for row in rows:
            lines.write(encoded(table, row._mapping) + b"\n")
            count += 1
    return count


def encoded(table: sa.Table, row: sa.RowMapping) -> bytes:
    """Return a row as one line of JSON."""
    return orjson.dumps({str(column.name): _plain(row[column.name]) for column in table.columns})


def read_table(file: Path) -> Iterator[dict[str, Any]]:
    """Yield what `write_table` wrote."""
    with gzip.open(file, "rb") as lines:
        for line in lines:
            yield orjson.loads(line)


def insert_table(connection: Connection, table: sa.Table, file: Path) -> int:
    """Insert the rows of a file, and return how many."""
    count, rows = 0, read_table(file)
    while batch := [_typed(table, row) for row in islice(rows, _BATCH)]:
        connection.execute(sa.insert(table), batch)
        count += len(batch)
    if connection.dialect.name == "postgresql" and "id" in table.c and isinstance(table.c.id.type, sa.Integer):
        # Numbers given by hand do not move the sequence.
        sequence = sa.func.pg_get_serial_sequence(table.name, "id")
        highest = sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0) + 1).scalar_subquery()
        connection.execute(sa.select(sa.func.setval(sequence, highest, sa.false())))
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.isoformat() if isinstance(value, datetime) else value


def _typed(table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    return {column.name: _value(column, row.get(column.name)) for column in table.columns}


def _value(column: sa.Column[Any], value: Any) -> Any:
    if value is None:
        return sa.null() if isinstance(column.type, sa.JSON) else None
    if isinstance(column.type, sa.LargeBinary):
        return base64.b64decode(value)
    return datetime.fromisoformat(value) if _is_time(column) else value


def _is_time(column: sa.Column[Any]) -> bool:
    kind = column.type.impl if isinstance(column.type, sa.types.TypeDecorator) else column.type
    return isinstance(kind, sa.DateTime)
