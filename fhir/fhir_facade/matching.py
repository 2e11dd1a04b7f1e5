"""One value of a search -> a condition on a row of the index (R4 search, 3.1.1.4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import sqlalchemy as sa

from fhir_facade.index import LONGEST_VALUE, TEXT_BREAK, local_reference, string_value, token_value
from fhir_facade.outcome import InvalidError
from fhir_facade.resource import clean
from fhir_facade.timing import EARLIEST, LATEST, Period, period

Condition: TypeAlias = sa.ColumnElement[bool]
Rows: TypeAlias = sa.FromClause

_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
_APPROXIMATION = 0.1
"""Share of the value, of a date: of the time that has passed since, by which 'about' may miss (R4 search, ap)."""
_ESCAPE = re.compile(r"\\([\\,|$])")
_LARGEST_EXPONENT = 300
_LONGEST_NUMBER = 40


@dataclass(frozen=True, slots=True)
class Clock:
    """What dates in a search are measured against."""

    now: datetime
    zone: tzinfo | None
    """The site's zone, for dates without offset; None: that of this machine."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a row of the index holds system and value."""

    rows: Rows
    system: sa.ColumnElement[Any]
    value: sa.ColumnElement[Any]


def first_part(rows: Rows) -> Columns:
    """Return the columns of a simple value, and of the first part of a composite."""
    return Columns(rows, rows.c.system, rows.c.value)


def second_part(rows: Rows) -> Columns:
    """Return the columns of the second part of a composite."""
    return Columns(rows, rows.c.other_system, rows.c.other_value)


def one_of(column: sa.ColumnElement[Any], values: Sequence[Any]) -> Condition:
    """Return the condition that a column has one of the values; of one, that it equals it."""
    return column == values[0] if len(values) == 1 else column.in_(values)


def unescape(text: str) -> str:
    """Return a value without the backslashes before `,`, `|`, `$` and itself."""
    return _ESCAPE.sub(r"\1", text)


def split_unescaped(text: str, separator: str, most: int = 0) -> list[str]:
    """Split where no backslash escapes the separator; the parts stay escaped."""
    parts: list[str] = []
    start = at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] == separator and (not most or len(parts) < most):
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def token_condition(columns: Columns, text: str) -> Condition:
    """Return the condition of `code`, `|code`, `system|` and `system|code`."""
    parts = split_unescaped(text, "|", 1)
    code = columns.value == token_value(unescape(parts[-1]))
    if len(parts) == 1:
        return code
    system = unescape(parts[0])
    if not system:
        return sa.and_(code, columns.system.is_(None))
    in_system = columns.system == token_value(system)
    return sa.and_(code, in_system) if parts[1] else in_system


def text_condition(rows: Rows, text: str) -> Condition:
    """Return the condition of `:text`: what a code is called begins so."""
    begin = string_value(unescape(text))
    later = f"{TEXT_BREAK}{begin}"
    return sa.or_(rows.c.text.startswith(begin, autoescape=True), rows.c.text.contains(later, autoescape=True))


def reference_condition(columns: Columns, text: str, targets: Sequence[str]) -> Condition:
    """Return the condition of `id`, `Type/id` and an address; of a foreign one, that it is written so."""
    whole = unescape(text)
    local = local_reference(whole)
    if local is None and "/" not in whole and ":" not in whole:
        return sa.and_(columns.value == token_value(whole), one_of(columns.system, targets))
    foreign = sa.and_(columns.value == token_value(whole), columns.system.is_(None))
    if local is None:
        return foreign
    here = sa.and_(columns.value == local[1], columns.system == local[0])
    return sa.or_(here, foreign) if whole.startswith(("http:", "https:")) else here


def string_condition(columns: Columns, text: str, modifier: str) -> Condition:
    """Return the condition of a text that begins so; with a modifier: holds it, or is exactly it."""
    whole = unescape(text)
    folded = string_value(whole)
    if modifier == "exact":
        return sa.and_(columns.value == folded, columns.rows.c.text == clean(whole)[:LONGEST_VALUE])
    if modifier == "contains":
        return columns.value.contains(folded, autoescape=True)
    # A range of the index on both databases: columns are compared byte by byte.
    return sa.and_(columns.value >= folded, columns.value < folded + "\U0010ffff")


def date_condition(rows: Rows, text: str, clock: Clock) -> Condition:
    """Return the condition of a date with or without prefix (R4 search, 3.1.1.4.5)."""
    prefix, (low, high) = date_value(text, clock)
    first, last = rows.c.low, rows.c.high
    inside = sa.and_(first >= low, last <= high)
    conditions: dict[str, Callable[[], Condition]] = {
        "eq": lambda: inside,
        "ne": lambda: sa.not_(inside),
        "gt": lambda: last > high,
        "lt": lambda: first < low,
        "ge": lambda: sa.or_(last > high, first >= low),
        "le": lambda: sa.or_(first < low, last <= high),
        "sa": lambda: first >= high,
        "eb": lambda: last <= low,
        "ap": lambda: sa.and_(last > low, first < high),
    }
    return conditions[prefix]()


def instant_condition(column: sa.ColumnElement[datetime], text: str, clock: Clock) -> Condition:
    """Return the condition of an instant."""
    prefix, (low, high) = date_value(text, clock)
    conditions: dict[str, Callable[[], Condition]] = {
        "eq": lambda: sa.and_(column >= low, column < high),
        "ne": lambda: sa.or_(column < low, column >= high),
        "gt": lambda: column >= high,
        "sa": lambda: column >= high,
        "lt": lambda: column < low,
        "eb": lambda: column < low,
        "ge": lambda: column >= low,
        "le": lambda: column < high,
        "ap": lambda: sa.and_(column >= low, column < high),
    }
    return conditions[prefix]()


def date_value(text: str, clock: Clock) -> tuple[str, Period]:
    """Return prefix and period of a date; InvalidError where it is none."""
    prefix, value = _prefixed(text)
    try:
        low, high = period(value, clock.zone)
    except (ValueError, OverflowError):
        raise InvalidError(
            "a date is written as in 2024-05-01 or 2024-05-01T09:30:00+02:00, with a prefix or none"
        ) from None
    if prefix == "ap":
        margin = abs(clock.now - low) * _APPROXIMATION
        low, high = shifted(low, -margin), shifted(high, margin)
    return prefix, (low, high)


def quantity_condition(columns: Columns, text: str) -> Condition:
    """Return the condition of `5.4`, `gt5.4|system|code` and `5.4||unit` (R4 search, 3.1.1.4.7)."""
    parts = split_unescaped(text, "|", 2)
    number = _number_condition(columns.rows.c.number, parts[0])
    if len(parts) == 1:
        return number
    system, unit = unescape(parts[1]), unescape(parts[2] if len(parts) > 2 else "")  # noqa: PLR2004 # number|system|code
    conditions = [number]
    if system:
        conditions.append(columns.system == token_value(system))
    if unit:
        is_unit = columns.value == token_value(unit)
        conditions.append(is_unit if system else sa.or_(is_unit, columns.rows.c.text == token_value(unit)))
    return sa.and_(*conditions)


def shifted(moment: datetime, by: timedelta) -> datetime:
    """Return a moment moved, no further than dates go."""
    try:
        return min(max(moment + by, EARLIEST), LATEST)
    except OverflowError:
        return LATEST if by > timedelta() else EARLIEST


def _number_condition(column: sa.ColumnElement[float], text: str) -> Condition:
    prefix, value = _prefixed(text)
    try:
        number = Decimal(value) if len(value) <= _LONGEST_NUMBER else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(number.adjusted()) > _LARGEST_EXPONENT or "_" in value:
        raise InvalidError("a quantity is written as in 5.4 or gt5.4|http://unitsofmeasure.org|mg")
    exact, half = float(number), 0.5 * 10.0**exponent
    if prefix == "ap":
        half = max(half, abs(exact) * _APPROXIMATION)
    near = sa.and_(column >= exact - half, column < exact + half)
    conditions: dict[str, Callable[[], Condition]] = {
        "eq": lambda: near,
        "ap": lambda: near,
        "ne": lambda: sa.not_(near),
        "gt": lambda: column > exact,
        "sa": lambda: column > exact,
        "lt": lambda: column < exact,
        "eb": lambda: column < exact,
        "ge": lambda: column >= exact,
        "le": lambda: column <= exact,
    }
    return conditions[prefix]()


def _prefixed(text: str) -> tuple[str, str]:
    match = _PREFIXED.fullmatch(unescape(text))
    return (match[1] or "eq", match[2]) if match else ("eq", text)
