"""Content of a resource -> the values of its search parameters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from typing import Any

from fhir_facade.parameters import PARAMETERS, Parameter
from fhir_facade.resource import Json, clean
from fhir_facade.timing import period
from gateway.store.results import IndexEntry

LONGEST_VALUE = 200
"""Characters compared: what is longer is cut on both sides, so that a database's limit on index rows holds."""
_REFERENCE_PARTS = 2


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
        for element in _walk(content, parameter.path.split("."))
        for entry in _entries(parameter, element, zone)
    ]
    return list(dict.fromkeys([*found, *extra]))


def token_value(text: str) -> str:
    """Return a token's code or system as it is indexed and asked for."""
    return text[:LONGEST_VALUE]


def string_value(text: str) -> str:
    """Return text as it is indexed and asked for: without case, accents and doubled spaces (R4 search, string)."""
    decomposed = unicodedata.normalize("NFKD", clean(text)).casefold()
    kept = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(kept.split())[:LONGEST_VALUE]


def _walk(element: Any, path: Sequence[str]) -> Iterator[Any]:
    if isinstance(element, list):
        for each in element:
            yield from _walk(each, path)
    elif not path:
        yield element
    elif path[0] in element:
        yield from _walk(element[path[0]], path[1:])


def _entries(parameter: Parameter, element: Any, zone: tzinfo | None) -> Iterator[IndexEntry]:
    if parameter.kind == "token":
        yield from _tokens(parameter, element)
    elif parameter.kind == "reference":
        parts = element.get("reference", "").split("/")
        if len(parts) >= _REFERENCE_PARTS:
            yield IndexEntry(parameter.name, system=parts[0], value=parts[1])
    elif parameter.kind == "date":
        low, high = period(element, zone)
        yield IndexEntry(parameter.name, low=low, high=high)
    else:
        for text in _texts(element):
            yield IndexEntry(parameter.name, value=string_value(text))


def _tokens(parameter: Parameter, element: Any) -> Iterator[IndexEntry]:
    """Yield the tokens of a code, a Coding, a CodeableConcept or an Identifier."""
    if isinstance(element, str):
        yield IndexEntry(parameter.name, system=parameter.system, value=token_value(element))
        return
    for coding in element.get("coding", [element]):
        value = coding.get("code", coding.get("value"))
        if value is not None:
            system = coding.get("system")
            yield IndexEntry(parameter.name, system=token_value(system) if system else None, value=token_value(value))


def _texts(element: Any) -> Iterator[str]:
    """Yield the strings of a string or a HumanName."""
    if isinstance(element, str):
        yield element
        return
    for name in ("text", "family"):
        if name in element:
            yield element[name]
    for name in ("given", "prefix", "suffix"):
        yield from element.get(name, ())
