"""One value of a search -> a condition on a row of the index (R4 search, 3.1.1.4).

For each kind of parameter, `hold_…` reads the text of a value, and `…_condition` says what rows meet it. The second
knows the form of the value alone (`held.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias, cast

import sqlalchemy as sa

from fhir_facade.held import Held, Values
from fhir_facade.index import LONGEST_DAY, LONGEST_VALUE, TEXT_BREAK, local_reference, string_value, token_value
from fhir_facade.outcome import InvalidError
from fhir_facade.resource import clean
from fhir_facade.rows import Rows
from fhir_facade.timing import EARLIEST, LATEST, Period, period
from gateway.store.engine import UtcDateTime

Condition: TypeAlias = sa.ColumnElement[bool]

_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
_APPROXIMATION = 0.1
"""Share of the value, of a date: of the time that has passed since, by which 'about' may miss (R4 search, ap)."""
_ESCAPE = re.compile(r"\\([\\,|$])")
_LIKE_ESCAPE = "/"
_MOMENT: Final = UtcDateTime()
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


def hold_token(values: Values, text: str) -> Held:
    """Read `code`, `|code`, `system|` or `system|code`."""
    parts = split_unescaped(text, "|", 1)
    code = token_value(unescape(parts[-1]))
    if len(parts) == 1:
        return values.hold("code", code)
    system = token_value(unescape(parts[0]))
    if not system:
        return values.hold("no system", code)
    return values.hold("both", code, system) if parts[1] else values.hold("system", system)


def token_condition(columns: Columns, held: Held) -> Condition:
    """Return the condition of a token."""
    if held.form == "system":
        return columns.system == held.part()
    code = columns.value == held.part()
    if held.form == "no system":
        return sa.and_(code, columns.system.is_(None))
    return sa.and_(code, columns.system == held.part(1)) if held.form == "both" else code


def hold_text(values: Values, text: str) -> Held:
    """Read a value of `:text`."""
    begin = _like(string_value(unescape(text)))
    return values.hold("", f"{begin}%", f"%{TEXT_BREAK}{begin}%")


def text_condition(rows: Rows, held: Held) -> Condition:
    """Return the condition of `:text`: what a code is called begins so."""
    return sa.or_(*(rows.c.text.like(held.part(at), escape=_LIKE_ESCAPE) for at in (0, 1)))


def hold_reference(values: Values, text: str) -> Held:
    """Read `id`, `Type/id` or an address."""
    whole = unescape(text)
    local = local_reference(whole)
    if local is None:
        is_id = "/" not in whole and ":" not in whole
        return values.hold("id" if is_id else "foreign", token_value(whole))
    if whole.startswith(("http:", "https:")):
        return values.hold("here or foreign", local[1], local[0], token_value(whole))
    return values.hold("here", local[1], local[0])


def reference_condition(columns: Columns, held: Held, targets: Sequence[str]) -> Condition:
    """Return the condition of a reference; of a foreign one, that it is written so."""
    value = columns.value == held.part()
    if held.form == "id":
        return sa.and_(value, one_of(columns.system, targets))
    if held.form == "foreign":
        return sa.and_(value, columns.system.is_(None))
    here = sa.and_(value, columns.system == held.part(1))
    if held.form == "here":
        return here
    return sa.or_(here, sa.and_(columns.value == held.part(2), columns.system.is_(None)))


def hold_string(values: Values, text: str, modifier: str) -> Held:
    """Read a text."""
    whole = unescape(text)
    folded = string_value(whole)
    if modifier == "exact":
        return values.hold(modifier, folded, clean(whole)[:LONGEST_VALUE])
    if modifier == "contains":
        return values.hold(modifier, f"%{_like(folded)}%")
    return values.hold("", folded, folded + "\U0010ffff")


def string_condition(columns: Columns, held: Held) -> Condition:
    """Return the condition of a text that begins so; with a modifier: holds it, or is exactly it."""
    if held.form == "exact":
        return sa.and_(columns.value == held.part(), columns.rows.c.text == held.part(1))
    if held.form == "contains":
        return columns.value.like(held.part(), escape=_LIKE_ESCAPE)
    # A range of the index on both databases: columns are compared byte by byte.
    return sa.and_(columns.value >= held.part(), columns.value < held.part(1))


def hold_date(values: Values, text: str, clock: Clock) -> Held:
    """Read a date; its form is the prefix, its parts are begin and end, and both less the longest day.

    Raises
    ------
    InvalidError
        It is no date.
    """
    prefix, (low, high) = _date_value(text, clock)
    return values.hold(prefix, low, high, *(_shifted(each, -LONGEST_DAY) for each in (low, high)))


def date_condition(rows: Rows, held: Held) -> Condition:
    """Return the condition of a date with or without prefix (R4 search, 3.1.1.4.5)."""
    first, last, low, high = rows.c.low, rows.c.high, held.part(), held.part(1)
    conditions: dict[Hashable, Callable[[], Condition]] = {
        "eq": lambda: sa.and_(first >= low, last <= high),
        "ne": lambda: sa.not_(sa.and_(first >= low, last <= high)),
        "gt": lambda: last > high,
        "lt": lambda: first < low,
        "ge": lambda: sa.or_(last > high, first >= low),
        "le": lambda: sa.or_(first < low, last <= high),
        "sa": lambda: first >= high,
        "eb": lambda: last <= low,
        "ap": lambda: sa.and_(last > low, first < high),
    }
    return conditions[held.form]()


def date_begins(held: Held) -> sa.BindParameter[Any] | None:
    """Return from when on what meets a date and lasts no longer than a day begins; None: any time."""
    at = {"eq": 2, "ge": 2, "ap": 2, "gt": 3, "sa": 3}.get(str(held.form))
    return None if at is None else held.part(at, _MOMENT)


def date_ends(held: Held) -> sa.BindParameter[Any] | None:
    """Return before when what meets a date begins; None: any time."""
    at = {"eq": 1, "le": 1, "ap": 1, "lt": 0, "eb": 0}.get(str(held.form))
    return None if at is None else held.part(at, _MOMENT)


def instant_condition(column: sa.ColumnElement[datetime], held: Held) -> Condition:
    """Return the condition of an instant."""
    low, high = held.part(), held.part(1)
    conditions: dict[Hashable, Callable[[], Condition]] = {
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
    return conditions[held.form]()


def hold_quantity(values: Values, text: str) -> Held:
    """Read `5.4`, `gt5.4|system|code` or `5.4||unit` (R4 search, 3.1.1.4.7); its form: prefix, what names the unit.

    Raises
    ------
    InvalidError
        It is no quantity.
    """
    parts = split_unescaped(text, "|", 2)
    prefix, exact, half = _number(parts[0])
    system = token_value(unescape(parts[1])) if len(parts) > 1 else ""
    unit = token_value(unescape(parts[2])) if len(parts) > 2 else ""  # noqa: PLR2004 # number|system|code
    return values.hold((prefix, bool(system), bool(unit)), exact, exact - half, exact + half, system, unit)


def quantity_condition(columns: Columns, held: Held) -> Condition:
    """Return the condition of a quantity."""
    prefix, has_system, has_unit = cast("tuple[str, bool, bool]", held.form)
    conditions = [_number_condition(columns.rows.c.number, prefix, held)]
    if has_system:
        conditions.append(columns.system == held.part(3))
    if has_unit:
        is_unit = columns.value == held.part(4)
        conditions.append(is_unit if has_system else sa.or_(is_unit, columns.rows.c.text == held.part(4)))
    return sa.and_(*conditions)


def hold_uri(values: Values, text: str) -> Held:
    """Read an address, which is compared whole."""
    return values.hold("", token_value(unescape(text)))


def _date_value(text: str, clock: Clock) -> tuple[str, Period]:
    prefix, value = _prefixed(text)
    try:
        low, high = period(value, clock.zone)
    except (ValueError, OverflowError):
        raise InvalidError(
            "a date is written as in 2024-05-01 or 2024-05-01T09:30:00+02:00, with a prefix or none"
        ) from None
    if prefix == "ap":
        margin = abs(clock.now - low) * _APPROXIMATION
        low, high = _shifted(low, -margin), _shifted(high, margin)
    return prefix, (low, high)


def _shifted(moment: datetime, by: timedelta) -> datetime:
    """Return a moment moved, no further than dates go."""
    try:
        return min(max(moment + by, EARLIEST), LATEST)
    except OverflowError:
        return LATEST if by > timedelta() else EARLIEST


def _number(text: str) -> tuple[str, float, float]:
    """Return prefix, number, and by how much another may differ that is written alike."""
    prefix, value = _prefixed(text)
    try:
        number = Decimal(value) if len(value) <= _LONGEST_NUMBER else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(number.adjusted()) > _LARGEST_EXPONENT or "_" in value:
        raise InvalidError("a quantity is written as in 5.4 or gt5.4|http://unitsofmeasure.org|mg")
    exact, half = float(number), 0.5 * 10.0**exponent
    return prefix, exact, max(half, abs(exact) * _APPROXIMATION) if prefix == "ap" else half


def _number_condition(column: sa.ColumnElement[float], prefix: str, held: Held) -> Condition:
    exact, least, most = (held.part(at) for at in range(3))
    conditions: dict[str, Callable[[], Condition]] = {
        "eq": lambda: sa.and_(column >= least, column < most),
        "ap": lambda: sa.and_(column >= least, column < most),
        "ne": lambda: sa.not_(sa.and_(column >= least, column < most)),
        "gt": lambda: column > exact,
        "sa": lambda: column > exact,
        "lt": lambda: column < exact,
        "eb": lambda: column < exact,
        "ge": lambda: column >= exact,
        "le": lambda: column <= exact,
    }
    return conditions[prefix]()


def _like(text: str) -> str:
    """Return a text as LIKE takes it for itself."""
    for each in (_LIKE_ESCAPE, "%", "_"):
        text = text.replace(each, _LIKE_ESCAPE + each)
    return text


def _prefixed(text: str) -> tuple[str, str]:
    match = _PREFIXED.fullmatch(unescape(text))
    return (match[1] or "eq", match[2]) if match else ("eq", text)
