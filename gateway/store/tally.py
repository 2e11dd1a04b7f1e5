"""How many bytes are kept, without adding up all rows each time.

Rows are counted once, by their ascending numbers, up to a little before the newest: a transaction may still be open
that drew an earlier number. What comes after is added up each time; what goes is taken off in the transaction that
removes it. A program of an earlier version removes without that, so whoever counts begins anew now and then (`forget`).
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import insert_ignore
from gateway.store.tables import artefact, instance, tally

_COUNTED: Mapping[str, sa.Table] = {"artefact": artefact, "instance": instance}
_STEP = 100_000
"""Rows that one transaction counts at most."""
_MARGIN = 10_000
"""Newest rows that are not counted yet: more than all receivers of a site have in open transactions."""


def kept_bytes(connection: Connection) -> int:
    """Return the size of all instances and results."""
    total = 0
    for name, table in _COUNTED.items():
        row = connection.execute(sa.select(tally.c.up_to, tally.c.size_bytes).where(tally.c.name == name)).one_or_none()
        up_to, size_bytes = (0, 0) if row is None else row
        total += size_bytes + _sum(connection, table, table.c.id > up_to)
    return total


def count_on(connection: Connection) -> bool:
    """Count some more rows; return whether there are further ones."""
    has_more = False
    for name, table in _COUNTED.items():
        up_to, size_bytes = _held(connection, name)
        last = (connection.scalar(sa.select(sa.func.max(table.c.id))) or 0) - _MARGIN
        end = min(up_to + _STEP, last)
        if end > up_to:
            size_bytes += _sum(connection, table, table.c.id > up_to, table.c.id <= end)
            _write(connection, name, end, size_bytes)
        has_more |= end < last
    return has_more


def forget(connection: Connection) -> None:
    """Count from the beginning."""
    for name in _COUNTED:
        connection.execute(sa.delete(tally).where(tally.c.name == name))


def counted_of(connection: Connection, study_instance_uid: str) -> Mapping[str, int]:
    """Return by table the bytes of a study that are counted; nobody counts on until the transaction ends."""
    counted = {}
    for name, table in _COUNTED.items():
        up_to, _ = _held(connection, name)
        counted[name] = _sum(connection, table, table.c.study_instance_uid == study_instance_uid, table.c.id <= up_to)
    return counted


def take_off(connection: Connection, counted: Mapping[str, int]) -> None:
    """Take off what `counted_of` told, once the rows are removed."""
    for name, size_bytes in counted.items():
        up_to, counted_bytes = _held(connection, name)
        newest = connection.scalar(sa.select(sa.func.max(_COUNTED[name].c.id))) or 0
        if newest < up_to:  # SQLite gives the numbers of removed rows to others: begin anew
            _write(connection, name, 0, 0)
        else:
            _write(connection, name, up_to, counted_bytes - size_bytes)


def _held(connection: Connection, name: str) -> tuple[int, int]:
    """Return up to which number is counted, and the sum; the row is there from now on, and locked."""
    query = sa.select(tally.c.up_to, tally.c.size_bytes).where(tally.c.name == name).with_for_update()
    row = None
    while row is None:  # one who begins anew may remove it in between
        insert_ignore(connection, tally, [{"name": name, "up_to": 0, "size_bytes": 0}], keys=["name"])
        row = connection.execute(query).one_or_none()
    return row.up_to, row.size_bytes


def _write(connection: Connection, name: str, up_to: int, size_bytes: int) -> None:
    connection.execute(sa.update(tally).where(tally.c.name == name).values(up_to=up_to, size_bytes=size_bytes))


def _sum(connection: Connection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.coalesce(sa.func.sum(table.c.size_bytes), 0)).where(*conditions)
    return int(connection.scalar(query) or 0)
