"""What a resource has to meet, whatever it is: the base of `criteria.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import sqlalchemy as sa

from fhir_facade.matching import Clock, Condition, Rows


class Criterion(ABC):
    """What a resource has to meet."""

    __slots__ = ()

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

    def rows(self, rows: Rows, clock: Clock) -> Condition | None:
        """Return the condition on rows of the index; None where it is about the resource itself."""
        del rows, clock
        return None

    def window(self, rows: Rows, clock: Clock) -> list[Condition]:
        """Return conditions that follow from those of `rows`, and bound the part of the index that is looked at."""
        del rows, clock
        return []

    @abstractmethod
    def holds(self, resource_pk: sa.ColumnElement[int], resource: Rows, clock: Clock) -> Condition:
        """Return the condition that a resource meets it."""
