"""One search parameter with its values -> a condition on `fhir_resource` (R4 search, 3.1.1.4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

import sqlalchemy as sa

from fhir_facade.index import string_value, token_value
from fhir_facade.outcome import InvalidError, NotSupportedError
from fhir_facade.parameters import PARAMETERS, Kind, Parameter
from fhir_facade.timing import EARLIEST, LATEST, Period, period
from gateway.store.tables import fhir_index, fhir_resource

_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
_APPROXIMATION = 0.1
"""Share of the time that has passed since, by which 'about' may miss (R4 search, date, ap)."""
_UNESCAPED_COMMA = re.compile(r"(?<!\\)(?:\\\\)*,")
_ESCAPE = re.compile(r"\\([\\,|$])")

Condition = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class Clock:
    """What dates in a search are measured against."""

    now: datetime
    zone: tzinfo | None
    """The site's zone, for dates without offset; None: that of this machine."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A parameter as it was asked: `name:modifier=value,value`, perhaps over a chain."""

    resource_type: str
    name: str
    modifier: str
    values: tuple[str, ...]
    """Each may match; still escaped."""

    def condition(self, clock: Clock) -> Condition:
        """Return the condition; InvalidError or NotSupportedError where it makes no sense."""
        if self.name == "_id":
            self._take_modifiers()
            return fhir_resource.c.resource_id.in_([_unescape(value) for value in self.values])
        if self.name == "_lastUpdated":
            self._take_modifiers()
            column = fhir_resource.c.last_updated
            return sa.or_(*(_instant_condition(column, value, clock) for value in self.values))
        if "." in self.name:
            return self._chain(clock)
        parameter = PARAMETERS[self.resource_type][self.name]
        if self.modifier == "missing":
            return self._missing()
        matching = sa.or_(*(self._one(parameter, value, clock) for value in self.values))
        found = fhir_resource.c.id.in_(_rows(self.resource_type, self.name).where(matching))
        return sa.not_(found) if self.modifier == "not" else found

    def _one(self, parameter: Parameter, value: str, clock: Clock) -> Condition:
        if parameter.kind == "token":
            self._take_modifiers("not")
            return _token_condition(value)
        if parameter.kind == "reference":
            self._take_modifiers(*parameter.targets)
            return _reference_condition(value, (self.modifier,) if self.modifier else parameter.targets)
        if parameter.kind == "date":
            self._take_modifiers()
            return _date_condition(value, clock)
        self._take_modifiers("contains")
        text = string_value(_unescape(value))
        column = fhir_index.c.value
        return column.contains(text, autoescape=True) if self.modifier else column.startswith(text, autoescape=True)

    def _missing(self) -> Condition:
        if self.values not in (("true",), ("false",)):
            raise InvalidError(f"{self.name}:missing takes true or false")
        present = fhir_resource.c.id.in_(_rows(self.resource_type, self.name))
        return present if self.values == ("false",) else sa.not_(present)

    def _chain(self, clock: Clock) -> Condition:
        """Return the condition of `patient.identifier` and its like: resources whose referred ones match."""
        first, _, rest = self.name.partition(".")
        name, _, _target = first.partition(":")
        target = chain_target(self.resource_type, first)
        referred = Criterion(target, rest, self.modifier, self.values)
        ids = sa.select(fhir_resource.c.resource_id).where(
            fhir_resource.c.type == target, fhir_resource.c.is_current, referred.condition(clock)
        )
        ids = ids.correlate(None)  # names the table of the query around it, and must not be taken for that
        rows = _rows(self.resource_type, name).where(fhir_index.c.system == target, fhir_index.c.value.in_(ids))
        return fhir_resource.c.id.in_(rows)

    def _take_modifiers(self, *allowed: str) -> None:
        if self.modifier and self.modifier not in allowed:
            raise NotSupportedError(f"{self.name}: the modifier :{self.modifier} is not supported")


def chain_target(resource_type: str, first: str) -> str:
    """Return the type that the first link of a chain leads to; '' where it leads nowhere or to several."""
    name, _, target = first.partition(":")
    parameter = PARAMETERS[resource_type].get(name)
    if parameter is None or parameter.kind != "reference":
        return ""
    if target:
        return target if target in parameter.targets else ""
    return parameter.targets[0] if len(parameter.targets) == 1 else ""


def kind_of(resource_type: str, name: str) -> Kind | None:
    """Return the kind of a parameter of this type; None where it has none of that name."""
    parameter = PARAMETERS[resource_type].get(name)
    return None if parameter is None else parameter.kind


def split_values(text: str) -> tuple[str, ...]:
    """Split at commas that no backslash escapes; empty parts go."""
    parts, start = [], 0
    for match in _UNESCAPED_COMMA.finditer(text):
        parts.append(text[start : match.end() - 1])
        start = match.end()
    return tuple(part for part in (*parts, text[start:]) if part)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)


def _rows(resource_type: str, name: str) -> sa.Select[tuple[int]]:
    query = sa.select(fhir_index.c.resource_pk)
    return query.where(fhir_index.c.type == resource_type, fhir_index.c.parameter == name).correlate(None)


def _token_condition(text: str) -> Condition:
    """Return the condition of `code`, `|code`, `system|` and `system|code`."""
    parts = re.split(r"(?<!\\)\|", text, maxsplit=1)
    code = fhir_index.c.value == token_value(_unescape(parts[-1]))
    if len(parts) == 1:
        return code
    system = _unescape(parts[0])
    if not system:
        return sa.and_(code, fhir_index.c.system.is_(None))
    in_system = fhir_index.c.system == token_value(system)
    return sa.and_(code, in_system) if parts[1] else in_system


def _reference_condition(text: str, targets: Sequence[str]) -> Condition:
    """Return the condition of `id`, `Type/id` and `https://…/Type/id`."""
    parts = _unescape(text).split("/")
    types = [parts[-2]] if len(parts) > 1 else list(targets)
    return sa.and_(fhir_index.c.value == parts[-1], fhir_index.c.system.in_(types))


def _date_condition(text: str, clock: Clock) -> Condition:
    prefix, (low, high) = _prefixed(text, clock)
    first, last = fhir_index.c.low, fhir_index.c.high
    inside = sa.and_(first >= low, last <= high)
    conditions: dict[str, Callable[[], Condition]] = {
        "eq": lambda: inside,
        "ne": lambda: sa.not_(inside),
        "gt": lambda: last > high,
        "lt": lambda: first < low,
        "ge": lambda: sa.or_(last > high, inside),
        "le": lambda: sa.or_(first < low, inside),
        "sa": lambda: first >= high,
        "eb": lambda: last <= low,
        "ap": lambda: sa.and_(last > low, first < high),
    }
    return conditions[prefix]()


def _instant_condition(column: sa.Column[datetime], text: str, clock: Clock) -> Condition:
    prefix, (low, high) = _prefixed(text, clock)
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


def _prefixed(text: str, clock: Clock) -> tuple[str, Period]:
    match = _PREFIXED.fullmatch(_unescape(text))
    prefix, value = (match[1] or "eq", match[2]) if match else ("eq", text)
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
    try:
        return moment + by
    except OverflowError:
        return LATEST if by > timedelta() else EARLIEST
