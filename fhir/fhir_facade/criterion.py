"""What a resource has to meet, whatever it is: the bases of `asked.py` and `criteria.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import sqlalchemy as sa

from fhir_facade.held import Values
from fhir_facade.matching import Clock, Condition
from fhir_facade.rows import Rows


class Asked(ABC):
    """What a resource has to meet, with the values as they were written."""

    __slots__ = ()

    @abstractmethod
    def settled(self, values: Values, clock: Clock) -> Criterion:
        """Return the criterion, whose values are held in `values`; FhirError where they make no sense."""


class Criterion(Asked):
    """What a resource has to meet, as a statement knows it: two that are equal make the same statement."""

    __slots__ = ()

    def settled(self, values: Values, clock: Clock) -> Criterion:
        """Return itself: there is nothing to read."""
        del values, clock
        return self

    @property
    def rank(self) -> int:
        """How few resources meet it, as a rule: the least first."""
        return 9

    @property
    def can_drive(self) -> bool:
        """Whether `rows` or a column of the resource selects what meets it."""
        return True

    @property
    def is_in_order(self) -> bool:
        """Whether the index holds the rows that it selects in the order of the resources' numbers."""
        return False

    @property
    def asks_resource(self) -> bool:
        """Whether `holds` looks at the resource's own columns."""
        return False

    def rows(self, rows: Rows) -> Condition | None:
        """Return the condition on rows of the index; None where it is about the resource itself."""
        del rows
        return None

    def window(self, rows: Rows) -> list[Condition]:
        """Return conditions that follow from those of `rows`, and bound the part of the index that is looked at."""
        del rows
        return []

    @abstractmethod
    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows) -> Condition:
        """Return the condition that a resource meets it."""
