"""A query string -> a search.

What is not understood is ignored and left out of the self link, so that a client sees what was asked; with
`Prefer: handling=strict` it is an error (R4 search, 3.1.1.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fhir_facade.asking import parse_criterion
from fhir_facade.criteria import Nothing
from fhir_facade.criterion import Asked
from fhir_facade.include import Include, parse_include
from fhir_facade.outcome import InvalidError, NotSupportedError, TooCostlyError
from fhir_facade.parameters import SEARCHED
from fhir_facade.sorting import SortKey, is_sortable

DEFAULT_COUNT = 50
LARGEST_COUNT = 500
_MOST_VALUES = 200
_MOST_SORT_KEYS = 4
_MOST_INCLUDES = 20
_LONGEST_VALUE = 2048
_LONGEST_COUNT = 9
_CONTROL: Mapping[str, frozenset[str] | None] = {
    "_count": None,
    "_sort": None,
    "_page": None,
    "_elements": None,
    "_summary": frozenset({"true", "text", "data", "count", "false"}),
    "_total": frozenset({"none", "estimate", "accurate"}),
    "_totalMethod": frozenset({"none", "count"}),
    "_contained": frozenset({"true", "false", "both"}),
    "_containedType": frozenset({"container", "contained"}),
}
"""About which part of the result to give, and how: name -> the values it takes, None: any."""
_IGNORED = frozenset({"_format", "_pretty"})
"""About the answer's form: read elsewhere, no part of the search."""
_INCLUDES = frozenset({"_include", "_revinclude"})


@dataclass(frozen=True, slots=True)
class Search:
    """A search as it was understood."""

    types: tuple[str, ...]
    path: str
    """Below the server's address: `DiagnosticReport`, `Patient/1/Observation`; empty: all types."""
    criteria: tuple[Asked, ...]
    count: int = DEFAULT_COUNT
    sort: tuple[SortKey, ...] = ()
    includes: tuple[Include, ...] = ()
    summary: str = "false"
    elements: tuple[str, ...] = ()
    is_count_only: bool = False
    with_total: bool = False
    page: str | None = None
    understood: tuple[tuple[str, str], ...] = ()
    """The pairs of the query that had a meaning, without `_page`."""


@dataclass(slots=True)
class _Reading:
    """What was read so far."""

    types: tuple[str, ...]
    is_strict: bool
    criteria: list[Asked] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    control: dict[str, str] = field(default_factory=dict)
    understood: list[tuple[str, str]] = field(default_factory=list)
    values: int = 0

    def take(self, name: str, value: str) -> bool:
        """Read one pair; False where it means nothing here."""
        base = name.partition(":")[0]
        if base in _INCLUDES:
            include = parse_include(name, value)
            if include is not None:
                self.includes.append(include)
            return include is not None
        if name in _CONTROL:
            return self._take_control(name, value)
        criterion, values = parse_criterion(self.types, name, value)
        if criterion is not None:
            self.criteria.append(criterion)
            self.values += values
        return criterion is not None

    def _take_control(self, name: str, value: str) -> bool:
        allowed = _CONTROL[name]
        if not value or (allowed is not None and value not in allowed):
            return False
        self.control[name] = value
        return True


def understand(
    types: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    *,
    is_strict: bool = False,
    path: str | None = None,
    also: Sequence[Asked] = (),
) -> Search:
    """Read the pairs of a query string.

    Parameters
    ----------
    types
        What is searched for.
    path
        Of the search, below the server's address; None: the one type.
    also
        What the resources have to meet besides.

    Raises
    ------
    InvalidError, NotSupportedError, TooCostlyError
        A value makes no sense; a modifier or, with `is_strict`, a parameter is not known; there is too much.
    """
    reading = _Reading(tuple(types), is_strict)
    for name, value in pairs:
        if "\0" in name + value or len(value) > _LONGEST_VALUE:
            raise InvalidError("a parameter is too long or holds a character that no value has")
        if not reading.take(name, value):
            what = f"the parameter {name[:64]} with this value is not supported for {path or ', '.join(types[:3])}"
            _refuse_if(is_strict and bool(value) and name not in _IGNORED, what)
        elif name != "_page":
            reading.understood.append((name, value))
    if reading.values > _MOST_VALUES:
        raise TooCostlyError(f"more than {_MOST_VALUES} values in one search")
    if len(reading.includes) > _MOST_INCLUDES:
        raise TooCostlyError(f"more than {_MOST_INCLUDES} includes in one search")
    return _search(reading, also, types[0] if path is None else path)


def types_of(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the types that `_type` asks for, all by default, and the pairs without it; InvalidError at others."""
    asked = [part for name, value in pairs if name == "_type" for part in value.split(",") if part]
    unknown = [part for part in asked if part not in SEARCHED]
    if unknown:
        raise InvalidError(f"_type: this server searches {', '.join(SEARCHED)}")
    return tuple(dict.fromkeys(asked)) or SEARCHED, [pair for pair in pairs if pair[0] != "_type"]


def read_count(text: str | None, default: int = DEFAULT_COUNT) -> int:
    """Return a page size within the bounds; InvalidError where it is no number."""
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > _LONGEST_COUNT:
        raise InvalidError("_count takes a whole number that is not negative")
    return min(int(text), LARGEST_COUNT)


def _search(reading: _Reading, also: Sequence[Asked], path: str) -> Search:
    control = reading.control
    summary, count = control.get("_summary", "false"), read_count(control.get("_count"))
    is_counting = control.get("_total") in ("accurate", "estimate") or control.get("_totalMethod") == "count"
    _refuse_if(summary == "text" and bool(reading.includes), "_summary=text cannot be combined with includes")
    contained = (Nothing(),) if control.get("_contained") == "true" else ()  # no resource here contains another
    return Search(
        types=reading.types,
        path=path,
        criteria=(*reading.criteria, *also, *contained),
        count=count,
        sort=_sort_keys(reading.types, control.get("_sort", ""), reading.is_strict),
        includes=tuple(dict.fromkeys(reading.includes)),
        summary=summary,
        elements=tuple(part.strip() for part in control.get("_elements", "").split(",") if part.strip()),
        is_count_only=summary == "count" or count == 0,
        with_total=is_counting,
        page=control.get("_page"),
        understood=tuple(reading.understood),
    )


def _sort_keys(types: Sequence[str], text: str, is_strict: bool) -> tuple[SortKey, ...]:
    keys = []
    for part in (part.strip() for part in text.split(",")):
        name = part.removeprefix("-")
        if is_sortable(types, name):
            keys.append(SortKey(name, part.startswith("-")))
        else:
            _refuse_if(is_strict and bool(part), f"cannot be sorted by {name[:64]}")
    if len(keys) > _MOST_SORT_KEYS:
        raise TooCostlyError(f"more than {_MOST_SORT_KEYS} sort keys")
    return tuple(keys)


def _refuse_if(is_wrong: bool, text: str) -> None:
    if is_wrong:
        raise NotSupportedError(text)
