"""What a search says, apart from how it asks: values in numbered places, so that a statement serves all like it.

To put a statement together costs several times what the database then takes for it. A criterion therefore knows of its
values only what they look like; what they say is bound when the statement is executed, which may have been made for
another search.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

_Shape = ParamSpec("_Shape")
_Made = TypeVar("_Made")
_MOST_KEPT = 48
_MOST_PARTS = 24
"""Of a search whose statement is kept: those of many values are rare, and their statements large."""


@dataclass(frozen=True, slots=True)
class Held:
    """One value, as a statement knows it."""

    form: Hashable
    """What it looks like: all that decides which statement is made."""
    place: int
    """Number of its first part."""

    def part(self, at: int = 0, type_: TypeEngine[Any] | None = None) -> sa.BindParameter[Any]:
        """Return a part of what it says, to be bound; its type is that of what it is compared with, unless given."""
        return sa.bindparam(_name(self.place + at), type_=type_)


class Values:
    """Takes what the values of one search say."""

    def __init__(self) -> None:
        self._parts: list[Any] = []

    def hold(self, form: Hashable, *parts: Any) -> Held:
        """Keep the parts of a value; return it as a statement knows it."""
        held = Held(form, len(self._parts))
        self._parts.extend(parts)
        return held

    def hold_each(self, parts: Sequence[Any]) -> tuple[Held, ...]:
        """Keep values of which each has one part and no form of its own."""
        return tuple(self.hold("", part) for part in parts)

    def __len__(self) -> int:
        return len(self._parts)

    def bound(self) -> dict[str, Any]:
        """Return what a statement is executed with."""
        return {_name(at): part for at, part in enumerate(self._parts)}


def kept(make: Callable[_Shape, _Made]) -> Callable[Concatenate[Values, _Shape], _Made]:
    """Keep what is made for the searches that were asked last, by what it is made from."""
    keep = cast("Callable[_Shape, _Made]", lru_cache(maxsize=_MOST_KEPT)(make))

    @wraps(make)
    def made(values: Values, /, *shape: _Shape.args, **named: _Shape.kwargs) -> _Made:
        return (keep if len(values) <= _MOST_PARTS else make)(*shape, **named)

    return made


def _name(place: int) -> str:
    return f"held_{place}"
