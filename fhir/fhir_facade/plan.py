"""A search -> statements that stay fast at any size.

A page is read off an index in its order and ends as soon as it is full, wherever that is possible:

- one code, reference or identifier: the index holds its rows in the order of the resources' numbers;
- a range of dates, or a sort by date: the index holds them by date; without a sort, that is then the order;
- `_lastUpdated`: the same over the resources themselves.

The other criteria are checked for each row on the way. Where a criterion selects few resources, which is tried out
with a bound, it goes first and its rows are sorted. Which way was taken changes the order only where no sort was asked
for; the token of a page names that order, so that the next page keeps it.

A statement is made once for all searches that look alike: the values go in when it is executed (`held.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade import sorting
from fhir_facade.asked import settle
from fhir_facade.asking import parameter_of
from fhir_facade.criteria import Chain, OnColumn, OnIndex
from fhir_facade.criterion import Criterion
from fhir_facade.held import Held, Values, kept
from fhir_facade.matching import Clock, Condition, one_of
from fhir_facade.outcome import InvalidError
from fhir_facade.paging import Key, open_token, typed_keys
from fhir_facade.query import Search
from fhir_facade.rows import Rows, index_rows, resource_rows
from fhir_facade.sorting import SortKey

_FEW = 200
_MANY = 2000
"""From here on it takes longer to sort what a chain selects than to go through resources until a page is full."""
_LAST_UPDATED = "_lastUpdated"


@dataclass(frozen=True, slots=True)
class Question:
    """A search as its statements know it."""

    types: tuple[str, ...]
    criteria: tuple[Criterion, ...]
    limit: Held
    """One more than a page holds."""
    is_continued: bool
    """Whether it asks for a later page."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a page is read."""

    question: Question
    sort: tuple[SortKey, ...]
    order: str
    """The order that was chosen: a parameter's name; empty: the one asked for, or that of the numbers."""
    driver: Criterion | None
    """Selects the rows; None: all resources of the types, or the rows of the sort key."""
    is_along_sort: bool
    """Whether rows are read off in the order of the one sort key."""
    may_lack: bool = False
    """Whether resources without the sort key would be missed by that."""
    position: tuple[Held, ...] = ()
    """Sort keys and number of the row that the last page ended with; none: the first page."""


def choose(connection: Connection, search: Search, values: Values, clock: Clock) -> Plan:
    """Return the plan of a page; what the search says goes into `values`.

    Raises
    ------
    FhirError
        A value makes no sense, or the page is one of another search.
    """
    criteria = settle(search.criteria, values, clock)
    limit = values.hold("", search.count + 1)
    question = Question(search.types, criteria, limit, is_continued=search.page is not None)
    chosen, keys = ("", []) if search.page is None else open_token(search.page)
    if chosen and (search.sort or not _can_order(question, chosen)):
        raise InvalidError("_page: a token of another search")
    plan = _chosen(connection, question, values, (SortKey(chosen),) if chosen else search.sort, chosen)
    if search.page is None:
        return plan
    kinds: list[type[Key]] = [sorting.kind(search.types, key) for key in plan.sort]
    return replace(plan, position=values.hold_each(typed_keys(keys, [*kinds, int])))


def _chosen(connection: Connection, question: Question, values: Values, sort: tuple[SortKey, ...], chosen: str) -> Plan:
    drivers = sorted((each for each in question.criteria if each.can_drive), key=_rank)
    few = _few(connection, question, drivers, values, is_sorted=bool(sort))
    if few is not None:
        return Plan(question, sort, chosen, few, is_along_sort=False)
    if len(sort) == 1 and _reads_along(question.types, sort[0].name):
        may_lack = sort[0].name != _LAST_UPDATED and not _can_order(question, sort[0].name)
        return Plan(question, sort, chosen, None, is_along_sort=True, may_lack=may_lack)
    if not sort:
        return _unsorted(connection, question, drivers, values)
    return Plan(question, sort, chosen, drivers[0] if drivers else None, is_along_sort=False)


def _unsorted(connection: Connection, question: Question, drivers: Sequence[Criterion], values: Values) -> Plan:
    """Return the plan where the order is ours to choose."""
    in_order = next((each for each in drivers if each.is_in_order), None)
    if in_order is None and not question.is_continued:
        name = next((each for each in map(_name, drivers) if each and _can_order(question, each)), "")
        if name:
            return Plan(question, (SortKey(name),), name, None, is_along_sort=True)
    driver = in_order or (drivers[0] if drivers else None)
    if (
        isinstance(driver, Chain)
        and not driver.is_unique
        and not _selects_few(connection, question.types, driver, values, _MANY)
    ):
        driver = None
    return Plan(question, (), "", driver, is_along_sort=False)


def without_order(plan: Plan) -> Plan:
    """Return the plan that finds resources without the sort key too."""
    driver = min((each for each in plan.question.criteria if each.can_drive), key=_rank, default=None)
    return replace(plan, driver=driver, is_along_sort=False, may_lack=False)


@kept
def page_statement(plan: Plan) -> sa.Select[Any]:
    """Return the statement for one row more than the page holds: the columns of the resource, then the sort keys."""
    inner, keys = _source(plan)
    found = inner.subquery()
    order = [(found.c[f"key_{at}"], key.is_descending) for at, key in enumerate(plan.sort)]
    order.append((found.c.pk, _is_down(plan)))
    resource = resource_rows()
    columns = [resource.c[name] for name in ("id", "type", "resource_id", "version", "last_updated", "body")]
    return (
        sa.select(*columns, *(found.c[f"key_{at}"] for at in range(keys)))
        .join_from(found, resource, resource.c.id == found.c.pk)
        .order_by(*(column.desc() if down else column.asc() for column, down in order))
        .limit(_limit(plan))
    )


def _limit(plan: Plan) -> sa.BindParameter[int]:
    return plan.question.limit.part(type_=sa.Integer())


@kept
def count_statement(plan: Plan) -> sa.Select[Any]:
    """Return the statement for the number of resources that meet a search."""
    driver = plan.driver or without_order(plan).driver
    whole = Plan(plan.question, (), "", driver, is_along_sort=False)
    inner, _keys = _source(whole, is_bounded=False)
    return sa.select(sa.func.count()).select_from(inner.subquery())


@dataclass(slots=True)
class _Reading:
    """What a statement is put together from."""

    resource: Rows
    rows: Rows | None
    """The index; None: the resources themselves are gone through."""
    keys: list[sa.ColumnElement[Any]]
    conditions: list[Condition]
    filters: list[Criterion]
    """Criteria that are checked for each row."""

    @property
    def number(self) -> sa.ColumnElement[int]:
        return self.resource.c.id if self.rows is None else self.rows.c.resource_pk


def _source(plan: Plan, *, is_bounded: bool = True) -> tuple[sa.Select[Any], int]:
    """Return the query for numbers (`pk`) and sort keys (`key_0`, …) of what a page holds, with how many keys."""
    question, resource = plan.question, resource_rows()
    keys = [sorting.column(question.types, key, resource) for key in plan.sort]
    reading = _Reading(resource, None, keys, [], list(question.criteria))
    if plan.is_along_sort and plan.sort[0].name != _LAST_UPDATED:
        _read_along(plan, reading)
    elif plan.driver is not None:
        _drive(plan.driver, reading)
    if reading.rows is None:
        reading.conditions += [one_of(resource.c.type, question.types), resource.c.is_current]
    return _select(plan, reading, is_bounded=is_bounded), len(keys)


def _read_along(plan: Plan, reading: _Reading) -> None:
    """Go through the index in the order of a date; criteria on that date look at the same rows."""
    question, rows = plan.question, index_rows()
    parameter = parameter_of(question.types, plan.sort[0].name)
    names = parameter.indexed_as if parameter is not None else ()
    reading.conditions += [rows.c.type == question.types[0], rows.c.parameter == names[0], rows.c.low.is_not(None)]
    for criterion in _on_date(question, plan.sort[0].name):
        selected = criterion.rows(rows)
        reading.conditions += [] if selected is None else [selected, *criterion.window(rows)]
        reading.filters.remove(criterion)
    reading.rows, reading.keys = rows, [rows.c.low]


def _drive(driver: Criterion, reading: _Reading) -> None:
    """Go through the rows of the index that a criterion selects, where it does."""
    rows = index_rows()
    selected = driver.rows(rows)
    if selected is not None:
        reading.conditions += [selected, *driver.window(rows)]
        reading.filters.remove(driver)
        reading.rows = rows


def _select(plan: Plan, reading: _Reading, *, is_bounded: bool) -> sa.Select[Any]:
    resource, rows, number = reading.resource, reading.rows, reading.number
    holds = [each.holds(number, resource) for each in reading.filters]
    is_keyed = bool(reading.keys) and not plan.is_along_sort
    source: Any = resource if rows is None else rows
    if rows is not None and (is_keyed or any(each.asks_resource for each in reading.filters)):
        source = sa.join(rows, resource, resource.c.id == rows.c.resource_pk)
    keys = [key.label(f"key_{at}") for at, key in enumerate(reading.keys)]
    query = sa.select(number.label("pk"), *keys).select_from(source).where(*reading.conditions, *holds)
    if rows is not None and not plan.is_along_sort:
        query = query.distinct()
    return _bounded(plan, query, number, keys) if is_bounded else query


def _bounded(
    plan: Plan, query: sa.Select[Any], pk: sa.ColumnElement[int], keys: Sequence[sa.Label[Any]]
) -> sa.Select[Any]:
    """Return the query from where the last page ended on, for one row more than a page."""
    directions = [key.is_descending for key in plan.sort]
    if plan.position:
        expressions = [key.element for key in keys]
        order = [*zip(expressions, directions, strict=True), (pk, _is_down(plan))]
        query = query.where(sorting.after(order, plan.position))
    ordered = [key.desc() if down else key.asc() for key, down in zip(keys, directions, strict=True)]
    return query.order_by(*ordered, pk.desc() if _is_down(plan) else pk.asc()).limit(_limit(plan))


def _is_down(plan: Plan) -> bool:
    """Say whether resources alike in all keys come by falling number: as the last key does, so that an index fits."""
    return bool(plan.sort) and plan.sort[-1].is_descending


def _few(
    connection: Connection, question: Question, drivers: Sequence[Criterion], values: Values, *, is_sorted: bool
) -> Criterion | None:
    """Return the first criterion that selects few resources; None where none does, or where it does not matter."""
    if drivers and drivers[0].rank == 0:
        return drivers[0]
    is_one_date = bool(drivers) and all(_can_order(question, _name(each)) for each in drivers)
    if not is_sorted and (len(drivers) == 1 or (is_one_date and len({_name(each) for each in drivers}) == 1)):
        return None
    return next((each for each in drivers if _selects_few(connection, question.types, each, values)), None)


def _selects_few(
    connection: Connection, types: tuple[str, ...], driver: Criterion, values: Values, bound: int = _FEW
) -> bool:
    """Say whether a criterion alone selects fewer resources than a bound, looking at no more than these.

    A chain to many does not, as a rule; and to find out whether they are referred to might take all of them.
    """
    if isinstance(driver, Chain) and not all(
        each.can_drive and _selects_few(connection, (target,), each, values) for target, each in driver.inner
    ):
        return False
    found = connection.scalar(_few_statement(values, types, driver, bound), values.bound())
    return found is not None and found < bound


@kept
def _few_statement(types: tuple[str, ...], driver: Criterion, bound: int) -> sa.Select[Any]:
    rows, resource = index_rows(), resource_rows()
    selected = driver.rows(rows)
    if selected is not None:
        query = sa.select(rows.c.resource_pk).where(selected, *driver.window(rows))
    else:
        holds = driver.holds(resource.c.id, resource)
        query = sa.select(resource.c.id).where(one_of(resource.c.type, types), resource.c.is_current, holds)
    return sa.select(sa.func.count()).select_from(query.limit(bound).subquery())


def _rank(criterion: Criterion) -> int:
    return criterion.rank


def _name(criterion: Criterion) -> str:
    if isinstance(criterion, OnColumn):
        return criterion.name
    return criterion.parameter.name if isinstance(criterion, OnIndex) else ""


def _on_date(question: Question, name: str) -> list[OnIndex]:
    """Return the criteria on a date that say what it is."""
    return [
        each
        for each in question.criteria
        if isinstance(each, OnIndex) and each.can_drive and each.parameter.name == name and not each.modifier
    ]


def _reads_along(types: Sequence[str], name: str) -> bool:
    """Say whether rows can be read off in the order of a key."""
    return len(types) == 1 and (name == _LAST_UPDATED or sorting.is_date(types, name))


def _can_order(question: Question, name: str) -> bool:
    """Say whether a key is one that all results have, since a criterion is on it, and rows can be read in its order."""
    if not _reads_along(question.types, name):
        return False
    return any(_name(each) == name and each.can_drive for each in question.criteria)
