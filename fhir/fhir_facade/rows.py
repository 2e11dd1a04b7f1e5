"""Resources and their index under names of their own, as many in one statement as it needs.

An alias of a `sa.Table` copies all that its columns know of keys and constraints. A search needs their names and types:
without the rest a statement is written in less than half the time, and takes less than half the memory.
"""

from __future__ import annotations

from typing import TypeAlias

import sqlalchemy as sa

from gateway.store.tables import fhir_index, fhir_resource

Rows: TypeAlias = sa.FromClause


def _plain(table: sa.Table) -> sa.TableClause:
    return sa.table(table.name, *(sa.column(column.name, column.type) for column in table.c))


_INDEX, _RESOURCE = _plain(fhir_index), _plain(fhir_resource)


def index_rows() -> Rows:
    """Return the index of search parameters."""
    return _INDEX.alias()


def resource_rows() -> Rows:
    """Return the versions of resources."""
    return _RESOURCE.alias()
