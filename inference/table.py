"""Reading a TOML table so that every complaint names the file and the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

from inference.errors import BundleError
from inference.findings import Code

T = TypeVar("T")

_SCHEMES = {"SCT", "LN", "DCM", "RADLEX", "UCUM", "99HYBRIDMED"}
_LONGEST_SHORT_STRING = 16
_LONGEST_MEANING = 64
_SNOMED_CONCEPT = re.compile(r"[1-9][0-9]{2,14}00[0-9]")
_VERHOEFF_D = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_VERHOEFF_FIRST = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


class Table:
    """One table of a TOML file, with its place in the file.

    Parameters
    ----------
    values
        The table as read.
    file
        For messages.
    place
        Dotted name of the table, empty at the top.
    """

    def __init__(self, values: Mapping[str, object], file: Path, place: str = "") -> None:
        self.values = values
        self.file = file
        self.place = place

    def wrong(self, key: str, reason: str) -> BundleError:
        """Return the error that names `key`."""
        return BundleError(f"{self.file}: {self.place}{key}: {reason}")

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return the value of `key`; a whole number passes for a float.

        Raises
        ------
        BundleError
            It is missing without a default, or of another type.
        """
        value = self.values.get(key, default)
        if value is None:
            raise self.wrong(key, "is missing")
        if kind is float and type(value) is int:
            return cast(T, float(value))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"must be {_KINDS.get(kind, kind.__name__)}, is {value!r}")
        return value

    def items(self, key: str, kind: type[T], default: tuple[T, ...] | None = None) -> tuple[T, ...]:
        """Return the array `key`, every element checked."""
        if default is not None and key not in self.values:
            return default
        elements = self.get(key, list)
        named = Table({f"{key}[{index}]": element for index, element in enumerate(elements)}, self.file, self.place)
        return tuple(named.get(name, kind) for name in named.values)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """Return the array `key` of `count` numbers."""
        numbers = self.items(key, float)
        if len(numbers) != count:
            raise self.wrong(key, f"must hold {count} numbers")
        return numbers

    def table(self, key: str, *, is_optional: bool = False) -> Table:
        """Return the sub-table `key`, an empty one where it is optional and missing."""
        values = self.get(key, dict, {} if is_optional else None)
        return Table(values, self.file, f"{self.place}{key}.")

    def tables(self, key: str) -> tuple[Table, ...]:
        """Return the array of tables `key`; none where it is missing."""
        elements = self.items(key, dict, ())
        return tuple(
            Table(element, self.file, f"{self.place}{key}[{index}].") for index, element in enumerate(elements)
        )

    def floats(self) -> dict[str, float]:
        """Return the whole table as numbers by name."""
        return {key: self.get(key, float) for key in self.values}

    def code(self, key: str, *, is_optional: bool = False) -> Code | None:
        """Return the code `key`, given as `{ value, scheme, meaning }`, checked for form (PS3.3 section 8.1)."""
        if is_optional and key not in self.values:
            return None
        entry = self.table(key)
        value, scheme, meaning = (entry.get(part, str) for part in ("value", "scheme", "meaning"))
        if scheme not in _SCHEMES:
            raise entry.wrong("scheme", f"{scheme!r} is none of {', '.join(sorted(_SCHEMES))}")
        if not 0 < len(value) <= _LONGEST_SHORT_STRING and scheme != "UCUM":
            raise entry.wrong("value", f"must have 1 to {_LONGEST_SHORT_STRING} characters")
        if not 0 < len(meaning) <= _LONGEST_MEANING:
            raise entry.wrong("meaning", f"must have 1 to {_LONGEST_MEANING} characters")
        if scheme == "SCT" and not is_snomed_id(value):
            raise entry.wrong("value", f"{value} is no SNOMED CT concept identifier (check digit)")
        return Code(value, scheme, meaning)

    def needed_code(self, key: str) -> Code:
        """Return the code `key`, which must be there."""
        return cast(Code, self.code(key))


_KINDS: dict[type, str] = {str: "a string", int: "a whole number", float: "a number", list: "an array", dict: "a table"}


def is_snomed_id(value: str) -> bool:
    """Say whether `value` is a core SNOMED CT concept identifier: partition 00, Verhoeff check digit (SNOMED TIG 6)."""
    if not _SNOMED_CONCEPT.fullmatch(value):
        return False
    check = 0
    for position, digit in enumerate(reversed(value)):
        permuted = int(digit)
        for _ in range(position % 8):
            permuted = _VERHOEFF_FIRST[permuted]
        check = _VERHOEFF_D[check][permuted]
    return check == 0
