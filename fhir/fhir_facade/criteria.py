"""Search parameters with their values -> conditions.

Criterion
├── OnColumn    `_id`, `_lastUpdated`: columns of the resource
├── OnIndex     a parameter of the type
├── Chain       `patient.identifier=…`: what is referred to meets another criterion
├── Reverse     `_has:Observation:patient:code=…`: what refers to it does
├── Within      what belongs to one patient, or to one device
└── Nothing     a condition that none meets

A criterion is asked in two ways: which rows of the index it selects (`rows`), or whether a resource meets it
(`holds`). The first drives a query, the second filters what another one brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fhir_facade.criterion import Criterion
from fhir_facade.index import IDENTIFIER, LONG, LONGEST_DAY, token_value
from fhir_facade.matching import (
    Clock,
    Columns,
    Condition,
    Rows,
    date_condition,
    date_value,
    first_part,
    instant_condition,
    one_of,
    quantity_condition,
    reference_condition,
    second_part,
    shifted,
    split_unescaped,
    string_condition,
    text_condition,
    token_condition,
    unescape,
)
from fhir_facade.outcome import InvalidError, NotSupportedError
from fhir_facade.parameters import Parameter
from fhir_facade.timing import EARLIEST
from gateway.store.engine import UtcDateTime
from gateway.store.tables import fhir_index, fhir_resource

__all__ = ["Chain", "Clock", "Criterion", "Nothing", "OnColumn", "OnIndex", "Reverse", "Within", "index_rows"]

_MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"not", "text"}),
    "reference": frozenset({"identifier", "text"}),
    "string": frozenset({"exact", "contains"}),
}
_UNIQUE = frozenset({"identifier", "series", "instance", "requisition", "group-identifier"})
_RANKS = {"reference": 2, "string": 3, "uri": 3, "quantity": 3, "composite": 3, "token": 4, "date": 5}


def index_rows() -> Rows:
    """Return the index under a name of its own."""
    return fhir_index.alias()


def _exists(rows: Rows, *conditions: Condition) -> Condition:
    return sa.select(sa.literal(1)).select_from(rows).where(*conditions).exists()


@dataclass(frozen=True, slots=True)
class OnColumn(Criterion):
    """`_id` or `_lastUpdated`."""

    name: str
    modifier: str
    values: tuple[str, ...]

    @property
    def rank(self) -> int:
        """Ids before all."""
        return 0 if self.name == "_id" else 3

    @property
    def asks_resource(self) -> bool:
        """Whether `holds` looks at the resource's own columns."""
        return True

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows, clock: Clock) -> Condition:
        """Return the condition on the resource's column."""
        del resource_pk
        if self.modifier:
            raise NotSupportedError(f"{self.name}: the modifier :{self.modifier[:32]} is not supported")
        if self.name == "_id":
            return one_of(resource.c.resource_id, [unescape(value)[:128] for value in self.values])
        return sa.or_(*(instant_condition(resource.c.last_updated, value, clock) for value in self.values))


@dataclass(frozen=True, slots=True)
class OnIndex(Criterion):
    """A parameter as it was asked: `name:modifier=value,value`."""

    types: tuple[str, ...]
    parameter: Parameter
    modifier: str
    values: tuple[str, ...]
    """Each may match; still escaped."""

    @property
    def rank(self) -> int:
        """Identifiers first, dates last."""
        return 1 if self.parameter.name in _UNIQUE else _RANKS[self.parameter.kind]

    @property
    def can_drive(self) -> bool:
        """Whether it says what is, not what is absent."""
        return self.modifier != "not" and (self.modifier != "missing" or self.values == ("false",))

    @property
    def is_in_order(self) -> bool:
        """Whether it is one value that rows are compared with."""
        is_equality = self.parameter.kind in ("token", "reference", "uri") and self.modifier in ("", *self._targets)
        is_one = len(self.values) == len(self.types) == len(self.parameter.indexed_as) == 1
        return is_equality and is_one and not self.values[0].endswith("|")

    @property
    def _targets(self) -> tuple[str, ...]:
        return self.parameter.targets

    def rows(self, rows: Rows, clock: Clock) -> Condition | None:
        """Return the condition on rows of the index."""
        return sa.and_(one_of(rows.c.type, self.types), self._rows(rows, clock))

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows, clock: Clock) -> Condition:
        """Return the condition that a resource has such a row, or none."""
        del resource
        other = index_rows()
        conditions = [other.c.resource_pk == resource_pk, self._rows(other, clock)]
        if self.is_in_order:
            # Only then: with the type at hand SQLite would go through all rows of a range instead of the resource's.
            conditions.append(other.c.type == self.types[0])
        found = _exists(other, *conditions)
        return found if self.can_drive else sa.not_(found)

    def window(self, rows: Rows, clock: Clock) -> list[Condition]:
        """Return conditions on the start of a date.

        A period of more than a day may have begun long before; those have rows of a value of their own.
        """
        if self.parameter.kind != "date" or len(self.values) > 1 or self.modifier:
            return []
        prefix, (low, high) = date_value(self.values[0], clock)
        bounds: list[Condition] = []
        begins = {"eq": low, "ge": low, "ap": low, "gt": high, "sa": high}.get(prefix)
        if begins is not None:
            longer = index_rows()
            is_long = _exists(
                longer,
                one_of(longer.c.type, self.types),
                longer.c.parameter == self.parameter.indexed_as[0],
                longer.c.value == LONG,
            )
            earliest = sa.literal(EARLIEST, UtcDateTime)
            bound = sa.case((is_long, earliest), else_=sa.literal(shifted(begins, -LONGEST_DAY), UtcDateTime))
            bounds.append(rows.c.low >= sa.select(bound).scalar_subquery())
        ends = {"eq": high, "le": high, "ap": high, "lt": low, "eb": low}.get(prefix)
        if ends is not None:
            bounds.append(rows.c.low < ends)
        return bounds

    def _rows(self, rows: Rows, clock: Clock) -> Condition:
        names = self.parameter.indexed_as
        if self.modifier == "identifier" and self.parameter.kind == "reference":
            names = tuple(name + IDENTIFIER for name in names)
        named = one_of(rows.c.parameter, names)
        if self.modifier == "missing":
            if self.values not in (("true",), ("false",)):
                raise InvalidError(f"{self.parameter.name}:missing takes true or false")
            return named
        self._check_modifier()
        return sa.and_(named, sa.or_(*(self._one(rows, value, clock) for value in self.values)))

    def _check_modifier(self) -> None:
        known = _MODIFIERS.get(self.parameter.kind, frozenset()) | set(self._targets)
        if self.modifier and self.modifier not in known:
            raise NotSupportedError(f"{self.parameter.name}: the modifier :{self.modifier[:32]} is not supported")

    def _one(self, rows: Rows, value: str, clock: Clock) -> Condition:
        kind, columns = self.parameter.kind, first_part(rows)
        if self.modifier == "text":
            return text_condition(rows, value)
        if self.modifier == "identifier":
            return token_condition(columns, value)
        if kind == "reference":
            return reference_condition(columns, value, (self.modifier,) if self.modifier else self._targets)
        if kind == "composite":
            return self._composite(rows, value, clock)
        return _simple(kind, columns, value, self.modifier, clock)

    def _composite(self, rows: Rows, value: str, clock: Clock) -> Condition:
        parts = split_unescaped(value, "$", 1)
        if len(parts) == 1:
            raise InvalidError(f"{self.parameter.name} takes two values with $ between them")
        code = token_condition(first_part(rows), parts[0])
        return sa.and_(code, _simple(self.parameter.second, second_part(rows), parts[1], "", clock))


def _simple(kind: str, columns: Columns, value: str, modifier: str, clock: Clock) -> Condition:
    if kind == "token":
        return token_condition(columns, value)
    if kind == "date":
        return date_condition(columns.rows, value, clock)
    if kind == "quantity":
        return quantity_condition(columns, value)
    if kind == "uri":
        return columns.value == token_value(unescape(value))
    return string_condition(columns, value, modifier)


@dataclass(frozen=True, slots=True)
class Chain(Criterion):
    """`parameter.rest=…`: a resource refers to another that meets a criterion."""

    types: tuple[str, ...]
    parameter: Parameter
    inner: tuple[tuple[str, Criterion], ...]
    """Type that is referred to, and what it has to meet."""
    identifiers: tuple[str, ...] = ()
    """Of a chain to `identifier`: the values, which references may hold without leading to a resource."""

    @property
    def rank(self) -> int:
        """As for references."""
        return 2

    def rows(self, rows: Rows, clock: Clock) -> Condition | None:
        """Return the condition on rows of the index."""
        return self._rows(rows, clock, [one_of(rows.c.type, self.types)])

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows, clock: Clock) -> Condition:
        """Return the condition that a resource has such a row, found from the row on: one resource, one target.

        Within a CASE, or PostgreSQL would join all rows with all targets as soon as it takes one of them to be few.
        """
        del resource
        ways = [self._leads(resource_pk, target, inner, clock) for target, inner in self.inner]
        if self.identifiers:
            other = index_rows()
            ways.append(_exists(other, self._names(other, [other.c.resource_pk == resource_pk])))
        return sa.case((sa.or_(*ways), sa.true()), else_=sa.false())

    def _leads(self, resource_pk: sa.ColumnElement[int], target: str, inner: Criterion, clock: Clock) -> Condition:
        """Return the condition that the resource refers to one of a type that meets a criterion."""
        rows, other = index_rows(), fhir_resource.alias()
        is_target = (other.c.type == target, other.c.resource_id == rows.c.value, other.c.is_current)
        return _exists(
            sa.join(rows, other, sa.and_(*is_target)),
            rows.c.resource_pk == resource_pk,
            one_of(rows.c.parameter, self.parameter.indexed_as),
            rows.c.system == target,
            inner.holds(other.c.id, other, clock),
        )

    def _names(self, rows: Rows, given: Sequence[Condition]) -> Condition:
        """Return the condition that a row is the identifier of what is referred to."""
        held = sa.or_(*(token_condition(first_part(rows), value) for value in self.identifiers))
        names = [name + IDENTIFIER for name in self.parameter.indexed_as]
        return sa.and_(*given, one_of(rows.c.parameter, names), held)

    def _rows(self, rows: Rows, clock: Clock, given: Sequence[Condition]) -> Condition:
        names = self.parameter.indexed_as
        ways = [
            sa.and_(
                *given,
                one_of(rows.c.parameter, names),
                rows.c.system == target,
                rows.c.value.in_(_ids(target, inner, clock)),
            )
            for target, inner in self.inner
        ]
        if self.identifiers:
            ways.append(self._names(rows, given))
        return sa.or_(*ways)


@dataclass(frozen=True, slots=True)
class Reverse(Criterion):
    """`_has:other:parameter:rest=…`: a resource is referred to by one that meets a criterion."""

    resource_type: str
    other: str
    parameter: Parameter
    inner: Criterion

    @property
    def rank(self) -> int:
        """As for references."""
        return 2

    @property
    def asks_resource(self) -> bool:
        """Whether `holds` looks at the resource's own columns."""
        return True

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows, clock: Clock) -> Condition:
        """Return the condition on the resource's id."""
        del resource_pk
        rows, referring = index_rows(), fhir_resource.alias()
        ids = sa.select(rows.c.value).where(
            rows.c.type == self.other,
            one_of(rows.c.parameter, self.parameter.indexed_as),
            rows.c.system == self.resource_type,
            rows.c.resource_pk.in_(_numbers(self.other, self.inner, clock, referring)),
        )
        return resource.c.resource_id.in_(ids)


@dataclass(frozen=True, slots=True)
class Within(Criterion):
    """What belongs to a compartment: refers to its resource in one of the ways that count, or is it."""

    ways: tuple[tuple[str, tuple[str, ...]], ...]
    """Type, and the names of its index rows that count."""
    resource_type: str
    resource_id: str

    @property
    def rank(self) -> int:
        """As for identifiers."""
        return 1

    @property
    def asks_resource(self) -> bool:
        """Whether `holds` looks at the resource's own columns."""
        return True

    def rows(self, rows: Rows, clock: Clock) -> Condition | None:
        """Return the condition on rows of the index; None where the resource itself belongs to what is asked."""
        del clock
        if any(resource_type == self.resource_type for resource_type, _names in self.ways):
            return None
        return self._rows(rows)

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows, clock: Clock) -> Condition:
        """Return the condition that a resource belongs to it."""
        del clock
        other = index_rows()
        found = sa.select(other.c.resource_pk).where(self._rows(other))
        is_itself = sa.and_(resource.c.type == self.resource_type, resource.c.resource_id == self.resource_id)
        return sa.or_(is_itself, resource_pk.in_(found))

    def _rows(self, rows: Rows) -> Condition:
        leads_there = (rows.c.value == self.resource_id, rows.c.system == self.resource_type)
        ways = (
            sa.and_(rows.c.type == resource_type, one_of(rows.c.parameter, names), *leads_there)
            for resource_type, names in self.ways
            if names
        )
        return sa.or_(sa.false(), *ways)


@dataclass(frozen=True, slots=True)
class Nothing(Criterion):
    """Met by none."""

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows, clock: Clock) -> Condition:
        """Return a condition that is false."""
        del resource_pk, resource, clock
        return sa.false()


def _numbers(resource_type: str, inner: Criterion, clock: Clock, resource: Rows) -> sa.Select[Any]:
    """Return the query for the numbers of current resources of a type that meet a criterion."""
    rows = index_rows()
    condition = inner.rows(rows, clock) if inner.can_drive else None
    if condition is not None:
        return sa.select(rows.c.resource_pk).where(condition, *inner.window(rows, clock))
    return sa.select(resource.c.id).where(
        resource.c.type == resource_type, resource.c.is_current, inner.holds(resource.c.id, resource, clock)
    )


def _ids(resource_type: str, inner: Criterion, clock: Clock) -> sa.Select[Any]:
    """Return the query for the ids of current resources of a type that meet a criterion."""
    resource, rows = fhir_resource.alias(), index_rows()
    condition = inner.rows(rows, clock) if inner.can_drive else None
    if condition is not None:
        joined = sa.join(rows, resource, resource.c.id == rows.c.resource_pk)
        return sa.select(resource.c.resource_id).select_from(joined).where(condition, *inner.window(rows, clock))
    return sa.select(resource.c.resource_id).where(
        resource.c.type == resource_type, resource.c.is_current, inner.holds(resource.c.id, resource, clock)
    )
