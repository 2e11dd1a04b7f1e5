"""What is asked for, and what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.query.attributes import Level

Item = Mapping[int, str]
"""An item of a sequence."""
Value = str | int | None | Sequence[str] | Sequence[Item]
Match = Mapping[int, Value]
"""Tag -> value. Texts may be empty and numbers None, several values are a tuple, a sequence is a list of items."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for."""

    level: Level
    keys: Mapping[int, str] = field(default_factory=dict)
    """Tag -> value as PS3.4 C.2.2.2 writes it. Tags outside of `matching_tags(level)` match everything. What lies in
    Request Attributes Sequence (0040,0275) is given by its own tag."""
    parents: Mapping[int, str] = field(default_factory=dict)
    """Unique keys of the levels above, besides `keys`: no wildcards."""
    is_fuzzy: bool = False
    """Whether names are matched word by word, in any order, by their beginnings."""
    is_combined: bool = True
    """Whether ranges of a date and of its time are one range of moments; else each holds for itself."""
    limit: int | None = None
    offset: int = 0
    wanted: frozenset[int] | None = None
    """Tags to return, the unique keys of the level and those above always among them; None: all that there are."""
