"""Values of a TOML table in the fields of a dataclass, by the fields' own types."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import TypeVar, get_args, get_origin, get_type_hints

Config = TypeVar("Config")

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def in_fields(config: type[Config], table: Mapping[str, object]) -> Config:
    """Return `config` with the values of a `[network]` table, defaults elsewhere; arrays become tuples.

    Raises
    ------
    ValueError
        A field is unknown or of another type; names field and value.
    """
    hints = get_type_hints(config)
    given = {name: value for name, value in table.items() if name != "kind"}
    for name, value in given.items():
        if name not in hints:
            raise ValueError(f"network.{name}: unknown field; there are {', '.join(hints)}")
        if not _fits(value, hints[name]):
            raise ValueError(f"network.{name}: must be {_worded(hints[name])}, is {value!r}")
    return config(**{name: _as_tuples(value) for name, value in given.items()})


def _fits(value: object, hint: object) -> bool:
    """Say whether a value is of a type; a whole number passes for a float."""
    if get_origin(hint) is tuple:
        elements = value if isinstance(value, list | tuple) else None
        first, *others = get_args(hint)
        is_as_long = elements is not None and (others == [Ellipsis] or len(elements) == len(others) + 1)
        return is_as_long and all(_fits(element, first) for element in elements or ())
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    return type(value) is hint or (hint is float and type(value) is int)


def _worded(hint: object) -> str:
    if get_origin(hint) is tuple:
        first, *others = get_args(hint)
        return f"an array, each {_worded(first)}" if others == [Ellipsis] else f"an array of {len(others) + 1}"
    if isinstance(hint, UnionType):
        return " or ".join(_worded(each) for each in get_args(hint))
    return next((words for kind, words in _WORDS.items() if kind is hint), str(hint))


def _as_tuples(value: object) -> object:
    return tuple(_as_tuples(element) for element in value) if isinstance(value, list | tuple) else value
