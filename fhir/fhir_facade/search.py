"""A query string -> a page of resources.

What is not understood is ignored and left out of the self link, so that a client sees what was asked; with
`Prefer: handling=strict` it is an error (R4 search, 3.1.1.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.criteria import Clock, Criterion, chain_target, kind_of, split_values
from fhir_facade.outcome import InvalidError, NotSupportedError, TooCostlyError
from fhir_facade.paging import Key, page_token, read_page_token
from fhir_facade.timing import EARLIEST
from gateway.store.tables import fhir_index, fhir_resource

DEFAULT_COUNT = 50
LARGEST_COUNT = 500
_MOST_VALUES = 200
_MOST_SORT_KEYS = 4
_LONGEST_VALUE = 2048
_LONGEST_COUNT = 9
_CONTROL = frozenset({"_count", "_sort", "_summary", "_total", "_page"})
"""About which part of the result to give, and how."""
_IGNORED = frozenset({"_format", "_pretty"})
"""About the answer's form: read elsewhere, no part of the search."""


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of the order."""

    name: str
    is_descending: bool


@dataclass(frozen=True, slots=True)
class Search:
    """A search as it was understood."""

    resource_type: str
    criteria: tuple[Criterion, ...]
    count: int
    sort: tuple[SortKey, ...]
    is_count_only: bool
    with_total: bool
    page: str | None
    understood: tuple[tuple[str, str], ...]
    """The pairs of the query that had a meaning, without `_page`."""


class Row(NamedTuple):
    """A resource as it is stored."""

    resource_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """What was found."""

    total: int | None
    rows: tuple[Row, ...]
    next_page: str | None
    """Token; None at the end."""


def understand(resource_type: str, pairs: Sequence[tuple[str, str]], *, is_strict: bool) -> Search:
    """Read the pairs of a query string.

    Raises
    ------
    InvalidError
        A value makes no sense.
    NotSupportedError
        With `is_strict`: a parameter is not known. Always: a modifier is not.
    TooCostlyError
        There are too many values.
    """
    criteria: list[Criterion] = []
    control: dict[str, str] = {}
    understood: list[tuple[str, str]] = []
    for name, value in pairs:
        if "\0" in name + value or len(value) > _LONGEST_VALUE:
            raise InvalidError("a parameter is too long or holds a character that no value has")
        criterion = _criterion(resource_type, name, value)
        if criterion is not None:
            criteria.append(criterion)
        elif name in _CONTROL:
            control[name] = value
        else:
            is_search = bool(value) and name not in _IGNORED
            _refuse_if(is_strict and is_search, f"the parameter {name[:64]} is not supported for {resource_type}")
            continue
        if name != "_page":
            understood.append((name, value))
    if sum(len(criterion.values) for criterion in criteria) > _MOST_VALUES:
        raise TooCostlyError(f"more than {_MOST_VALUES} values in one search")
    return _search(resource_type, criteria, control, understood, is_strict=is_strict)


def run_search(connection: Connection, search: Search, clock: Clock) -> Page:
    """Return a page of current resources that meet all criteria."""
    conditions = [
        fhir_resource.c.type == search.resource_type,
        fhir_resource.c.is_current,
        *(criterion.condition(clock) for criterion in search.criteria),
    ]
    total = None
    if search.with_total or search.is_count_only:
        total = connection.scalar(sa.select(sa.func.count()).select_from(fhir_resource).where(*conditions))
    if search.is_count_only:
        return Page(total, (), None)
    keys = [_sort_column(search.resource_type, key) for key in search.sort]
    kinds: list[type[Key]] = [kind for _column, kind in keys]
    columns = [column.label(f"key_{at}") for at, (column, _kind) in enumerate(keys)]
    found = (
        sa.select(fhir_resource.c.id, fhir_resource.c.resource_id, fhir_resource.c.body, *columns)
        .where(*conditions)
        .subquery()
    )
    order = [(found.c[f"key_{at}"], key.is_descending) for at, key in enumerate(search.sort)] + [(found.c.id, False)]
    query = sa.select(found).order_by(*(column.desc() if down else column.asc() for column, down in order))
    if search.page is not None:
        query = query.where(_after(order, read_page_token(search.page, [*kinds, int])))
    rows = connection.execute(query.limit(search.count + 1)).all()
    shown = rows[: search.count]
    more = page_token([getattr(shown[-1], column.name) for column, _down in order]) if len(rows) > len(shown) else None
    return Page(total, tuple(Row(row.resource_id, row.body) for row in shown), more)


def _search(
    resource_type: str,
    criteria: Sequence[Criterion],
    control: Mapping[str, str],
    understood: Sequence[tuple[str, str]],
    *,
    is_strict: bool,
) -> Search:
    summary, count = control.get("_summary"), _count(control.get("_count"))
    _refuse_if(is_strict and summary not in (None, "count", "false"), "_summary takes count or false")
    return Search(
        resource_type=resource_type,
        criteria=tuple(criteria),
        count=count,
        sort=_sort_keys(resource_type, control.get("_sort", ""), is_strict),
        is_count_only=summary == "count" or count == 0,
        with_total=control.get("_total") != "none",
        page=control.get("_page"),
        understood=tuple(understood),
    )


def _criterion(resource_type: str, name: str, value: str) -> Criterion | None:
    """Return a criterion, or None where the parameter is unknown or without a value."""
    values = split_values(value)
    if not values:
        return None
    base, _, modifier = name.rpartition(":") if ":" in name.rpartition(".")[2] else (name, "", "")
    if base in ("_id", "_lastUpdated") or kind_of(resource_type, base) is not None:
        return Criterion(resource_type, base, modifier, values)
    first, _, rest = base.partition(".")
    target = chain_target(resource_type, first)
    if target and (rest == "_id" or kind_of(target, rest) is not None):
        return Criterion(resource_type, base, modifier, values)
    return None


def _count(text: str | None) -> int:
    if text is None:
        return DEFAULT_COUNT
    if not (text.isascii() and text.isdecimal()) or len(text) > _LONGEST_COUNT:
        raise InvalidError("_count takes a whole number that is not negative")
    return min(int(text), LARGEST_COUNT)


def _sort_keys(resource_type: str, text: str, is_strict: bool) -> tuple[SortKey, ...]:
    keys = []
    for part in (part.strip() for part in text.split(",")):
        name = part.removeprefix("-")
        if name in ("_id", "_lastUpdated") or kind_of(resource_type, name) is not None:
            keys.append(SortKey(name, part.startswith("-")))
        else:
            _refuse_if(is_strict and bool(part), f"{resource_type} cannot be sorted by {name[:64]}")
    if len(keys) > _MOST_SORT_KEYS:
        raise TooCostlyError(f"more than {_MOST_SORT_KEYS} sort keys")
    return tuple(keys)


def _sort_column(resource_type: str, key: SortKey) -> tuple[sa.ColumnElement[Any], type[Key]]:
    """Return the expression of a sort key and what it yields; what a resource lacks counts as the least value."""
    if key.name == "_id":
        return fhir_resource.c.resource_id, str
    if key.name == "_lastUpdated":
        return fhir_resource.c.last_updated, datetime
    is_date = kind_of(resource_type, key.name) == "date"
    column = fhir_index.c.low if is_date else fhir_index.c.value
    least = (
        sa.select(sa.func.min(column))
        .where(fhir_index.c.resource_pk == fhir_resource.c.id, fhir_index.c.parameter == key.name)
        .scalar_subquery()
    )
    absent = sa.literal(EARLIEST if is_date else "", type_=column.type)
    return sa.func.coalesce(least, absent, type_=column.type), datetime if is_date else str


def _after(order: Sequence[tuple[sa.ColumnElement[Any], bool]], keys: Sequence[Key]) -> sa.ColumnElement[bool]:
    """Return the condition of rows that follow a position: later in the first key in which they differ."""
    branches = []
    for at, (column, is_descending) in enumerate(order):
        same = [earlier == value for (earlier, _down), value in zip(order[:at], keys[:at], strict=True)]
        branches.append(sa.and_(*same, column < keys[at] if is_descending else column > keys[at]))
    return sa.or_(*branches)


def _refuse_if(is_wrong: bool, text: str) -> None:
    if is_wrong:
        raise NotSupportedError(text)
