"""Criteria of operations, which no search parameter expresses."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from fhir_facade.criterion import Asked, Criterion
from fhir_facade.held import Held, Values
from fhir_facade.matching import Clock, Condition, date_condition, hold_date
from fhir_facade.rows import Rows, index_rows

_OF_CARE = ("date", "started", "authored", "created", "period")
"""Dates of what was done to a patient, as the index names them."""


@dataclass(frozen=True, slots=True)
class CareDate(Asked):
    """`start` and `end` of `$everything`: what was done in that time, and what tells no such time."""

    start: str
    end: str

    def settled(self, values: Values, clock: Clock) -> Criterion:
        """Return the criterion; InvalidError where one is no date."""
        bounds = (("ge", self.start), ("le", self.end))
        return InCareDate(tuple(hold_date(values, f"{prefix}{text}", clock) for prefix, text in bounds if text))


@dataclass(frozen=True, slots=True)
class InCareDate(Criterion):
    """A resource tells no date of care outside of bounds."""

    bounds: tuple[Held, ...]

    @property
    def can_drive(self) -> bool:
        """It says what is left out."""
        return False

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return the condition that no date of the resource lies outside."""
        del resource
        rows = index_rows()
        bounds = [date_condition(rows, held) for held in self.bounds]
        outside = sa.select(rows.c.id).where(
            rows.c.resource_pk == resource_pk,
            rows.c.parameter.in_(_OF_CARE),
            rows.c.low.is_not(None),
            sa.not_(sa.and_(sa.true(), *bounds)),
        )
        return ~outside.exists()


@dataclass(frozen=True, slots=True)
class LatestOfStudy(Criterion):
    """No report of the same imaging study was written later."""

    @property
    def can_drive(self) -> bool:
        """It says what is left out."""
        return False

    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return the condition that none follows."""
        del resource
        mine, other = index_rows(), index_rows()
        later = sa.select(other.c.id).where(
            mine.c.resource_pk == resource_pk,
            mine.c.parameter == "imagingStudy",
            other.c.type == "DiagnosticReport",
            other.c.parameter == "imagingStudy",
            other.c.value == mine.c.value,
            other.c.resource_pk > mine.c.resource_pk,
        )
        return ~later.exists()
