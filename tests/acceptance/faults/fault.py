"""What a fault is: something that is begun, lasts, and is ended."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.acceptance.faults.sign import Sign
from tests.acceptance.faults.site import Kind, Site

End = Callable[[], None]
Begin = Callable[[Site, random.Random], End]
AT_ONCE = "it is over at once"
LATER = "everything works, only later"
SOON = "a role counts as gone 30 s after its last heartbeat"
"""Why nothing shows a fault."""
POWER = "power"
"""The subject of a loss of power: begun after the other of a pair, and ended after it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    name: str
    subject: str
    """What it hits; the two of a pair hit different things."""
    begin: Begin
    lasts_s: tuple[float, float] = (0.0, 0.0)
    """Least and most."""
    sign: Sign | str = AT_ONCE
    """By what it is seen while it lasts; text: why by nothing."""
    weight: int = 2
    """How often it is chosen, against the others."""
    kinds: frozenset[Kind] = field(default_factory=lambda: frozenset({"sqlite", "postgres"}))
    needs_mount: bool = False
    needs_compiler: bool = False
    not_with: frozenset[str] = frozenset()
    """Subjects of faults that it makes no pair with."""

    def goes_with(self, other: Fault) -> bool:
        """Say whether both can stand in a pair."""
        subjects = {self.subject, other.subject}
        return len(subjects) > 1 and not subjects & (self.not_with | other.not_with | {"all"})


def over_at_once() -> None:
    """End a fault that ended by itself."""
