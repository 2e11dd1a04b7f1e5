"""Criteria -> conditions of a statement.

Criterion
├── OnColumn    `_id`, `_lastUpdated`: columns of the resource
├── OnIndex     a parameter of the type
├── Chain       `patient.identifier=…`: what is referred to meets another criterion
├── Reverse     `_has:Observation:patient:code=…`: what refers to it does
├── Within      what belongs to one patient, or to one device
└── Nothing     a condition that none meets

A criterion is asked in two ways: which rows of the index it selects (`rows`), or whether a resource meets it
(`holds`). The first drives a query, the second filters what another one brings. Its values are bound later
(`held.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fhir_facade.criterion import Criterion
from fhir_facade.held import Held
from fhir_facade.index import IDENTIFIER, LONG
from fhir_facade.matching import (
    Columns,
    Condition,
    date_begins,
    date_condition,
    date_ends,
    first_part,
    instant_condition,
    one_of,
    quantity_condition,
    reference_condition,
    second_part,
    string_condition,
    text_condition,
    token_condition,
)
from fhir_facade.parameters import Kind, Parameter
from fhir_facade.rows import Rows, index_rows, resource_rows
from fhir_facade.timing import EARLIEST
from gateway.store.engine import UtcDateTime

_UNIQUE = frozenset({"identifier", "series", "instance", "requisition", "group-identifier"})
_RANK_OF_UNIQUE = 1
_RANKS: Mapping[Kind, int] = {
    "reference": 2,
    "string": 3,
    "uri": 3,
    "quantity": 3,
    "composite": 3,
    "token": 4,
    "date": 5,
}


def _exists(rows: Rows, *conditions: Condition, at_once: bool = False) -> Condition:
    """Return the condition that there is such a row, looked for anew for each row of the statement around.

    Parameters
    ----------
    at_once
        Let PostgreSQL find all such rows before, which it else would as soon as it takes them to be few: for
        conditions that every row of the statement around is put to. An OFFSET keeps it from that.
    """
    found = sa.select(sa.literal(1)).select_from(rows).where(*conditions)
    return (found if at_once else found.offset(0)).exists()


@dataclass(frozen=True, slots=True)
class OnColumn(Criterion):
    """`_id` or `_lastUpdated`."""

    name: str
    values: tuple[Held, ...]

    @property
    def rank(self) -> int:
        """Ids before all."""
        return 0 if self.name == "_id" else 3

    @property
    def asks_resource(self) -> bool:
        """Whether `holds` looks at the resource's own columns."""
        return True

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return the condition on the resource's column."""
        del resource_pk
        if self.name == "_id":
            return one_of(resource.c.resource_id, [held.part() for held in self.values])
        return sa.or_(*(instant_condition(resource.c.last_updated, held) for held in self.values))


@dataclass(frozen=True, slots=True)
class OnIndex(Criterion):
    """A parameter of the type."""

    types: tuple[str, ...]
    parameter: Parameter
    modifier: str
    values: tuple[tuple[Held, ...], ...] = ()
    """Each may match: one value, of a composite its two."""
    is_missing: bool = False
    """With the modifier `missing`: whether it is to be."""

    @property
    def rank(self) -> int:
        """Identifiers first, dates last."""
        return _RANK_OF_UNIQUE if self.parameter.name in _UNIQUE else _RANKS[self.parameter.kind]

    @property
    def can_drive(self) -> bool:
        """Whether it says what is, not what is absent."""
        return self.modifier != "not" and not self.is_missing

    @property
    def is_in_order(self) -> bool:
        """Whether it is one value that rows are compared with."""
        is_equality = self.parameter.kind in ("token", "reference", "uri") and self.modifier in ("", *self._targets)
        is_one = len(self.values) == len(self.types) == len(self.parameter.indexed_as) == 1
        return is_equality and is_one and self.values[0][0].form != "system"

    @property
    def _targets(self) -> tuple[str, ...]:
        return self.parameter.targets

    def rows(self, rows: Rows) -> Condition | None:
        """Return the condition on rows of the index."""
        return sa.and_(one_of(rows.c.type, self.types), self._rows(rows))

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return the condition that a resource has such a row, or none."""
        del resource
        other = index_rows()
        conditions = [other.c.resource_pk == resource_pk, self._rows(other)]
        if self.is_in_order:
            # Only then: with the type at hand SQLite would go through all rows of a range instead of the resource's.
            conditions.append(other.c.type == self.types[0])
        if self.can_drive:
            return _exists(other, *conditions)
        return sa.not_(_exists(other, *conditions, at_once=True))

    def window(self, rows: Rows) -> list[Condition]:
        """Return conditions on the start of a date.

        A period of more than a day may have begun long before; those have rows of a value of their own.
        """
        if self.parameter.kind != "date" or len(self.values) != 1 or self.modifier:
            return []
        ((held,),) = self.values
        bounds: list[Condition] = []
        begins, ends = date_begins(held), date_ends(held)
        if begins is not None:
            longer = index_rows()
            is_long = _exists(
                longer,
                one_of(longer.c.type, self.types),
                longer.c.parameter == self.parameter.indexed_as[0],
                longer.c.value == LONG,
            )
            bound = sa.case((is_long, sa.literal(EARLIEST, UtcDateTime)), else_=begins)
            bounds.append(rows.c.low >= sa.select(bound).scalar_subquery())
        if ends is not None:
            bounds.append(rows.c.low < ends)
        return bounds

    def _rows(self, rows: Rows) -> Condition:
        names = self.parameter.indexed_as
        if self.modifier == "identifier" and self.parameter.kind == "reference":
            names = tuple(name + IDENTIFIER for name in names)
        named = one_of(rows.c.parameter, names)
        if self.modifier == "missing":
            return named
        return sa.and_(named, sa.or_(*(self._one(rows, held) for held in self.values)))

    def _one(self, rows: Rows, held: tuple[Held, ...]) -> Condition:
        kind, columns = self.parameter.kind, first_part(rows)
        if self.modifier == "text":
            return text_condition(rows, held[0])
        if self.modifier == "identifier":
            return token_condition(columns, held[0])
        if kind == "reference":
            return reference_condition(columns, held[0], (self.modifier,) if self.modifier else self._targets)
        if kind == "composite":
            return sa.and_(
                token_condition(columns, held[0]), _simple(self.parameter.second, second_part(rows), held[1])
            )
        return _simple(kind, columns, held[0])


def _simple(kind: Kind, columns: Columns, held: Held) -> Condition:
    if kind == "token":
        return token_condition(columns, held)
    if kind == "date":
        return date_condition(columns.rows, held)
    if kind == "quantity":
        return quantity_condition(columns, held)
    return columns.value == held.part() if kind == "uri" else string_condition(columns, held)


@dataclass(frozen=True, slots=True)
class Chain(Criterion):
    """`parameter.rest=…`: a resource refers to another that meets a criterion."""

    types: tuple[str, ...]
    parameter: Parameter
    inner: tuple[tuple[str, Criterion], ...]
    """Type that is referred to, and what it has to meet."""
    identifiers: tuple[Held, ...] = ()
    """Of a chain to `identifier`: the values, which references may hold without leading to a resource."""

    @property
    def rank(self) -> int:
        """As for references."""
        return 2

    @property
    def is_unique(self) -> bool:
        """Whether it leads to what its values name one by one."""
        return all(inner.rank <= _RANK_OF_UNIQUE for _, inner in self.inner)

    def rows(self, rows: Rows) -> Condition | None:
        """Return the condition on rows of the index.

        Of several ways by the numbers of their rows: joined by OR, they would keep PostgreSQL off the index.
        """
        if len(self.inner) == 1 and not self.identifiers:
            return self._refers(rows, *self.inner[0])
        numbers = []
        for target, inner in self.inner:
            each = index_rows()
            numbers.append(sa.select(each.c.id).where(self._refers(each, target, inner)))
        if self.identifiers:
            each = index_rows()
            numbers.append(sa.select(each.c.id).where(self._names(each, [one_of(each.c.type, self.types)])))
        return rows.c.id.in_(sa.union_all(*numbers))

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return the condition that a resource has such a row, found from the row on: one resource, one target."""
        del resource
        ways = [self._leads(resource_pk, target, inner) for target, inner in self.inner]
        if self.identifiers:
            other = index_rows()
            ways.append(_exists(other, self._names(other, [other.c.resource_pk == resource_pk])))
        return sa.or_(*ways)

    def _leads(self, resource_pk: sa.ColumnElement[int], target: str, inner: Criterion) -> Condition:
        """Return the condition that the resource refers to one of a type that meets a criterion."""
        rows, other = index_rows(), resource_rows()
        is_target = (other.c.type == target, other.c.resource_id == rows.c.value, other.c.is_current)
        return _exists(
            sa.join(rows, other, sa.and_(*is_target)),
            rows.c.resource_pk == resource_pk,
            one_of(rows.c.parameter, self.parameter.indexed_as),
            rows.c.system == target,
            # Within a CASE, or SQLite may begin with what meets it instead of with what is referred to.
            sa.case((inner.holds(other.c.id, other), sa.true()), else_=sa.false()),
        )

    def _names(self, rows: Rows, given: Sequence[Condition]) -> Condition:
        """Return the condition that a row is the identifier of what is referred to."""
        held = sa.or_(*(token_condition(first_part(rows), each) for each in self.identifiers))
        names = [name + IDENTIFIER for name in self.parameter.indexed_as]
        return sa.and_(*given, one_of(rows.c.parameter, names), held)

    def _refers(self, rows: Rows, target: str, inner: Criterion) -> Condition:
        """Return the condition that a row refers to one of a type that meets a criterion."""
        return sa.and_(
            one_of(rows.c.type, self.types),
            one_of(rows.c.parameter, self.parameter.indexed_as),
            rows.c.system == target,
            rows.c.value.in_(_ids(target, inner)),
        )


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

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return the condition on the resource's id."""
        del resource_pk
        rows, referring = index_rows(), resource_rows()
        ids = sa.select(rows.c.value).where(
            rows.c.type == self.other,
            one_of(rows.c.parameter, self.parameter.indexed_as),
            rows.c.system == self.resource_type,
            rows.c.resource_pk.in_(_numbers(self.other, self.inner, referring)),
        )
        return resource.c.resource_id.in_(ids)


@dataclass(frozen=True, slots=True)
class Within(Criterion):
    """What belongs to a compartment: refers to its resource in one of the ways that count, or is it."""

    ways: tuple[tuple[str, tuple[str, ...]], ...]
    """Type, and the names of its index rows that count."""
    resource_type: str
    resource_id: Held

    @property
    def rank(self) -> int:
        """As for identifiers."""
        return 1

    @property
    def asks_resource(self) -> bool:
        """Whether `holds` looks at the resource's own columns."""
        return True

    def rows(self, rows: Rows) -> Condition | None:
        """Return the condition on rows of the index; None where the resource itself belongs to what is asked."""
        if any(resource_type == self.resource_type for resource_type, _names in self.ways):
            return None
        return self._rows(rows)

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return the condition that a resource belongs to it."""
        other = index_rows()
        found = sa.select(other.c.resource_pk).where(self._rows(other))
        is_itself = sa.and_(resource.c.type == self.resource_type, resource.c.resource_id == self.resource_id.part())
        return sa.or_(is_itself, resource_pk.in_(found))

    def _rows(self, rows: Rows) -> Condition:
        leads_there = (rows.c.value == self.resource_id.part(), rows.c.system == self.resource_type)
        ways = (
            sa.and_(rows.c.type == resource_type, one_of(rows.c.parameter, names), *leads_there)
            for resource_type, names in self.ways
            if names
        )
        return sa.or_(sa.false(), *ways)


@dataclass(frozen=True, slots=True)
class Nothing(Criterion):
    """Met by none."""

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return a condition that is false."""
        del resource_pk, resource
        return sa.false()


def _numbers(resource_type: str, inner: Criterion, resource: Rows) -> sa.Select[Any]:
    """Return the query for the numbers of current resources of a type that meet a criterion."""
    rows = index_rows()
    condition = inner.rows(rows) if inner.can_drive else None
    if condition is not None:
        return sa.select(rows.c.resource_pk).where(condition, *inner.window(rows))
    return sa.select(resource.c.id).where(
        resource.c.type == resource_type, resource.c.is_current, inner.holds(resource.c.id, resource)
    )


def _ids(resource_type: str, inner: Criterion) -> sa.Select[Any]:
    """Return the query for the ids of current resources of a type that meet a criterion."""
    resource, rows = resource_rows(), index_rows()
    condition = inner.rows(rows) if inner.can_drive else None
    if condition is not None:
        joined = sa.join(rows, resource, resource.c.id == rows.c.resource_pk)
        return sa.select(resource.c.resource_id).select_from(joined).where(condition, *inner.window(rows))
    return sa.select(resource.c.resource_id).where(
        resource.c.type == resource_type, resource.c.is_current, inner.holds(resource.c.id, resource)
    )
