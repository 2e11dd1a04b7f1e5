"""Content of a resource -> the values of its search parameters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta, tzinfo
from typing import Any

from fhir_facade.parameters import PARAMETERS, Kind, Parameter
from fhir_facade.resource import Json, clean
from fhir_facade.timing import EARLIEST, LATEST, period
from gateway.store.results import IndexEntry

LONGEST_VALUE = 200
"""Characters compared: what is longer is cut on both sides, so that a database's limit on index rows holds."""
IDENTIFIER = ":identifier"
"""Ends the name under which the identifiers of references are indexed."""
TEXT_BREAK = "\n"
"""Between the texts of one concept."""
LONG = "long"
"""Value of a date that means more than a day: queries for short ones then need not look far back."""
LONGEST_DAY = timedelta(hours=26)
"""With the hour of a change of clocks, and one to spare."""
_SEGMENT = re.compile(r"(\w+)(?:\[(\w+)\])?")
_LOCAL = re.compile(r"(?:.*/)?([A-Z][A-Za-z]{2,31})/([A-Za-z0-9.-]{1,64})(?:/_history/[^/]*)?")


def index_entries(content: Json, zone: tzinfo | None, extra: Sequence[IndexEntry] = ()) -> list[IndexEntry]:
    """Return all values, each once.

    Parameters
    ----------
    zone
        The site's zone, for dates without offset.
    extra
        Values that are no elements of the resource.
    """
    found = [
        entry
        for parameter in PARAMETERS[content["resourceType"]].values()
        if parameter.path
        for element in elements(content, parameter.path)
        for entry in _entries(parameter, element, zone)
    ]
    return list(dict.fromkeys([*found, *extra]))


def elements(content: Any, paths: str) -> Iterator[Any]:
    """Yield the elements that any of the paths leads to."""
    for path in paths.split(" | "):
        yield from _walk(content, [] if path == "." else path.split("."))


def token_value(text: str) -> str:
    """Return a token's code or system as it is indexed and asked for."""
    return text[:LONGEST_VALUE]


def string_value(text: str) -> str:
    """Return text as it is indexed and asked for: without case, accents and doubled spaces (R4 search, string)."""
    decomposed = unicodedata.normalize("NFKD", clean(text)).casefold()
    kept = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(kept.split())[:LONGEST_VALUE]


def local_reference(text: str) -> tuple[str, str] | None:
    """Return type and id of a reference of the form `Type/id`, with or without an address before it."""
    match = _LOCAL.fullmatch(text)
    return (match[1], match[2]) if match else None


def _walk(element: Any, path: Sequence[str]) -> Iterator[Any]:
    if isinstance(element, list):
        for each in element:
            yield from _walk(each, path)
    elif not path:
        if element is not None:  # in an array of primitives, where an extension says why there is none
            yield element
    elif isinstance(element, dict):
        name, system = _segment(path[0])
        for each in _walk(element.get(name, []), ()):
            # Of contact points: those of one system, as in `telecom[phone]`.
            if system is None or each.get("system") == system:
                yield from _walk(each, path[1:])


def _segment(text: str) -> tuple[str, str | None]:
    match = _SEGMENT.fullmatch(text)
    return (match[1], match[2]) if match else (text, None)


def _entries(parameter: Parameter, element: Any, zone: tzinfo | None) -> Iterator[IndexEntry]:
    if parameter.kind == "composite":
        yield from _composites(parameter, element, zone)
    else:
        yield from _simple(parameter.kind, parameter, element, zone)


def _simple(kind: Kind, parameter: Parameter, element: Any, zone: tzinfo | None) -> Iterator[IndexEntry]:
    if kind == "token":
        yield from _tokens(parameter, element)
    elif kind == "reference":
        yield from _references(parameter, element)
    elif kind == "date":
        yield from _dates(parameter, element, zone)
    elif kind == "quantity":
        yield from _quantities(parameter, element)
    elif kind == "uri":
        yield IndexEntry(parameter.name, value=token_value(element))
    else:
        for text in _texts(element):
            yield IndexEntry(parameter.name, value=string_value(text), text=clean(text)[:LONGEST_VALUE])


def _composites(parameter: Parameter, element: Any, zone: tzinfo | None) -> Iterator[IndexEntry]:
    """Yield a row for each coding of the first part with each value of the second."""
    first, second = parameter.parts
    codes = [row for code in elements(element, first) for row in _tokens(parameter, code)]
    for value in elements(element, second):
        for row in _simple(parameter.second, parameter, value, zone):
            for code in codes:
                yield replace(row, system=code.system, value=code.value, other_system=row.system, other_value=row.value)


def _tokens(parameter: Parameter, element: Any) -> Iterator[IndexEntry]:
    """Yield the tokens of a code, a Coding, a CodeableConcept, an Identifier, a ContactPoint or a boolean."""
    if not isinstance(element, dict):
        code = str(element).lower() if isinstance(element, bool) else str(element)
        yield IndexEntry(parameter.name, system=parameter.system, value=token_value(code))
        return
    for coding in element.get("coding", [element]):
        value: str | None = coding.get("code", coding.get("value"))
        text: str | None = TEXT_BREAK.join(dict.fromkeys(_displays(element, coding))) or None
        if value is not None or text is not None:
            system = coding.get("system")
            yield IndexEntry(
                parameter.name,
                system=token_value(system) if system else None,
                value=None if value is None else token_value(value),
                text=text,
            )


def _displays(element: Json, coding: Json) -> Iterator[str]:
    """Yield what a code or an identifier is called (R4 search, token, :text)."""
    kind = element.get("type")
    for text in (element.get("text"), coding.get("display"), kind.get("text") if isinstance(kind, dict) else None):
        if isinstance(text, str):
            yield string_value(text)


def _references(parameter: Parameter, element: Any) -> Iterator[IndexEntry]:
    """Yield where a Reference leads, and the identifier that it names instead or besides."""
    address = element.get("reference", "")
    local = local_reference(address)
    text = string_value(element.get("display", "")) or None
    if local is not None and local[0] in parameter.targets:
        yield IndexEntry(parameter.name, system=local[0], value=local[1], text=text)
    elif local is None and address and not address.startswith("#"):
        yield IndexEntry(parameter.name, value=token_value(address), text=text)
    identifier = element.get("identifier", {})
    if "value" in identifier and element.get("type", parameter.targets[0]) in parameter.targets:
        system = identifier.get("system")
        yield IndexEntry(
            parameter.name + IDENTIFIER,
            system=token_value(system) if system else None,
            value=token_value(identifier["value"]),
        )


def _dates(parameter: Parameter, element: Any, zone: tzinfo | None) -> Iterator[IndexEntry]:
    """Yield what a date, a dateTime, an instant or a Period means."""
    if isinstance(element, str):
        low, high = period(element, zone)
    else:
        low = period(element["start"], zone)[0] if "start" in element else EARLIEST
        high = period(element["end"], zone)[1] if "end" in element else LATEST
    yield IndexEntry(parameter.name, value=LONG if high - low > LONGEST_DAY else None, low=low, high=high)


def _quantities(parameter: Parameter, element: Json) -> Iterator[IndexEntry]:
    if "value" in element:
        yield IndexEntry(
            parameter.name,
            system=token_value(element["system"]) if "system" in element else None,
            value=token_value(str(element.get("code", element.get("unit", "")))) or None,
            text=token_value(element["unit"]) if "unit" in element else None,
            number=float(element["value"]),
        )


def _texts(element: Any) -> Iterator[str]:
    """Yield the strings of a string, a HumanName or an Address."""
    if isinstance(element, str):
        yield element
        return
    for name in ("text", "family", "city", "district", "state", "postalCode", "country"):
        if name in element:
            yield element[name]
    for name in ("given", "prefix", "suffix", "line"):
        yield from (text for text in element.get(name, ()) if text is not None)
