"""A search -> a page of resources, and those that go along with them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.asked import settle
from fhir_facade.held import Values
from fhir_facade.include import included
from fhir_facade.matching import Clock
from fhir_facade.outcome import TooCostlyError
from fhir_facade.paging import page_token
from fhir_facade.plan import Plan, choose, count_statement, page_statement, without_order
from fhir_facade.query import Search
from fhir_facade.rows import resource_rows
from fhir_facade.stored import COLUMNS, Stored, stored

_LONGEST_S = 10.0
_STEPS_BETWEEN_LOOKS = 200_000
_CANCELLED = "57014"
"""SQLSTATE of PostgreSQL: a statement that ran beyond its time."""


@dataclass(frozen=True, slots=True)
class Page:
    """What was found."""

    total: int | None
    """None: not counted."""
    found: tuple[Stored, ...] = ()
    included: tuple[Stored, ...] = ()
    is_cut: bool = False
    """Whether more would have gone along than is given."""
    next_page: str | None = None
    """Token; None at the end."""


def run_search(connection: Connection, search: Search, clock: Clock) -> Page:
    """Return a page of current resources that meet all criteria; TooCostlyError where that takes too long."""
    with bounded_time(connection):
        values = Values()
        plan = choose(connection, search, values, clock)
        if search.is_count_only:
            return Page(connection.scalar(count_statement(values, plan), values.bound()))
        rows = connection.execute(page_statement(values, plan), values.bound()).all()
        if plan.may_lack and len(rows) <= search.count:
            rows = connection.execute(page_statement(values, without_order(plan)), values.bound()).all()
        return _page(connection, search, plan, values, rows)


def meeting(connection: Connection, search: Search, clock: Clock, numbers: Sequence[int]) -> list[int]:
    """Return those of the current versions with these numbers that meet all criteria of a search."""
    resource, values = resource_rows(), Values()
    holds = [each.holds(resource.c.id, resource) for each in settle(search.criteria, values, clock)]
    query = sa.select(resource.c.id).where(resource.c.id.in_(numbers), resource.c.type.in_(search.types), *holds)
    return list(connection.scalars(query, values.bound()))


def _page(connection: Connection, search: Search, plan: Plan, values: Values, rows: Sequence[sa.Row[Any]]) -> Page:
    shown = rows[: search.count]
    found = tuple(stored(row) for row in shown)
    following = None
    if len(rows) > len(shown):
        following = page_token(plan.order, [*shown[-1][len(COLUMNS) :], found[-1].number])
    total = len(found) if following is None and search.page is None else None
    if total is None and search.with_total:
        total = connection.scalar(count_statement(values, plan), values.bound())
    others, is_cut = included(connection, search.includes, found) if search.includes and found else ([], False)
    return Page(total, found, tuple(others), is_cut, following)


@contextmanager
def bounded_time(connection: Connection, longest_s: float = _LONGEST_S) -> Iterator[None]:
    """Give statements within a bounded time; TooCostlyError beyond it."""
    try:
        if connection.dialect.name == "postgresql":
            connection.execute(_LIMIT_TIME, {"limit": str(int(longest_s * 1000))})
            yield
        else:
            with _interrupting(connection, longest_s):
                yield
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == _CANCELLED or str(error.orig) == "interrupted":
            raise TooCostlyError("the search takes too long: narrow it down") from error
        raise


class _Deadline:
    """True once the time is over."""

    def __init__(self, longest_s: float) -> None:
        self._end = time.monotonic() + longest_s

    def __call__(self) -> bool:
        return time.monotonic() > self._end


_LIMIT_TIME = sa.text("SELECT set_config('statement_timeout', :limit, true)")


@contextmanager
def _interrupting(connection: Connection, longest_s: float) -> Iterator[None]:
    """Let SQLite look at the clock now and then."""
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(_Deadline(longest_s), _STEPS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)
