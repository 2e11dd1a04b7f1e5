"""What a fault is: something that is begun, lasts, and is ended."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.acceptance.faults.site import Kind, Site

End = Callable[[], None]
Begin = Callable[[Site, random.Random], End]
Part = Literal["", "database", "broker", "disk", "deliveries", "role dispatch"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    name: str
    subject: str
    """What it hits; the two of a pair hit different things."""
    begin: Begin
    lasts_s: tuple[float, float] = (0.0, 0.0)
    """Least and most."""
    part: Part = ""
    """Of /readyz, which shows it while it lasts; '' where it is over at once or nothing is degraded."""
    weight: int = 2
    """How often it is chosen, against the others."""
    kinds: frozenset[Kind] = field(default_factory=lambda: frozenset({"sqlite", "postgres"}))
    needs_mount: bool = False
    needs_clock: bool = False


def over_at_once() -> None:
    """End a fault that ended by itself."""
