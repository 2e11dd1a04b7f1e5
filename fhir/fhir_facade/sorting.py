"""The order of a result: what a resource lacks comes last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fhir_facade.asking import parameter_of
from fhir_facade.held import Held
from fhir_facade.matching import Condition
from fhir_facade.paging import Key
from fhir_facade.parameters import COLUMNS
from fhir_facade.rows import Rows, index_rows
from fhir_facade.timing import EARLIEST, LATEST
from gateway.store.engine import UtcDateTime
from gateway.store.tables import fhir_index

_HIGHEST = "\U0010ffff"
_SORTED = frozenset({"token", "reference", "date", "string", "uri", "quantity"})


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of the order."""

    name: str
    is_descending: bool = False


def is_sortable(types: Sequence[str], name: str) -> bool:
    """Say whether resources of the types can be ordered by a parameter."""
    parameter = parameter_of(types, name)
    return name in COLUMNS or (parameter is not None and parameter.kind in _SORTED)


def is_date(types: Sequence[str], name: str) -> bool:
    """Say whether a key is a date of which a resource has one at the most, and the index its rows in order."""
    parameter = parameter_of(types, name)
    is_one = parameter is not None and parameter.kind == "date" and not parameter.is_list
    return name not in COLUMNS and is_one and len(types) == 1


def kind(types: Sequence[str], key: SortKey) -> type[Key]:
    """Return what a key yields."""
    if key.name == "_lastUpdated":
        return datetime
    parameter = parameter_of(types, key.name)
    if parameter is None or key.name == "_id":
        return str
    return {"date": datetime, "quantity": float}.get(parameter.kind, str)


def column(types: Sequence[str], key: SortKey, resource: Rows) -> sa.ColumnElement[Any]:
    """Return the expression of a sort key."""
    if key.name == "_id":
        return resource.c.resource_id
    if key.name == "_lastUpdated":
        return resource.c.last_updated
    parameter = parameter_of(types, key.name)
    yields = kind(types, key)
    of_rows = {datetime: fhir_index.c.low.name, float: fhir_index.c.number.name}.get(yields, fhir_index.c.value.name)
    rows = index_rows()
    value = rows.c[of_rows]
    extreme = sa.func.max(value) if key.is_descending else sa.func.min(value)
    names = parameter.indexed_as if parameter is not None else ()
    found = sa.select(extreme).where(rows.c.resource_pk == resource.c.id, rows.c.parameter.in_(names))
    return sa.func.coalesce(found.scalar_subquery(), _absent(yields, key.is_descending), type_=value.type)


def _absent(yields: type[Key], is_descending: bool) -> sa.ColumnElement[Any]:
    if yields is datetime:
        return sa.literal(EARLIEST if is_descending else LATEST, UtcDateTime)
    if yields is float:
        return sa.literal(float("-1e308" if is_descending else "1e308"))
    return sa.literal("" if is_descending else _HIGHEST)


def after(order: Sequence[tuple[sa.ColumnElement[Any], bool]], position: Sequence[Held]) -> Condition:
    """Return the condition of rows that follow a position: later in the first key in which they differ."""
    keys = [held.part() for held in position]
    branches = []
    for at, (expression, is_descending) in enumerate(order):
        same = [earlier == value for (earlier, _down), value in zip(order[:at], keys[:at], strict=True)]
        branches.append(sa.and_(*same, expression < keys[at] if is_descending else expression > keys[at]))
    first, is_down = order[0]
    # The first key alone bounds the index; the branches say the rest.
    bound = first <= keys[0] if is_down else first >= keys[0]
    return sa.and_(bound, sa.or_(*branches))
