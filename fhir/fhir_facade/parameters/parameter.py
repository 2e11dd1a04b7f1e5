"""One search parameter of one resource type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["token", "reference", "date", "string", "quantity", "uri", "composite"]
DEFINITION = "http://hl7.org/fhir/SearchParameter/"
OWN_DEFINITION = "SearchParameter/"
"""Of parameters that are ours: an address of this server, relative to its base."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter of one type."""

    name: str
    kind: Kind
    path: str = ""
    """Elements from the resource on, with dots; lists are walked; alternatives are parted by ' | ', and '.' is the
    resource itself. Empty: no element of the body, or rows of other parameters (`rows`)."""
    targets: tuple[str, ...] = ()
    """Types that a reference may lead to."""
    definition: str = ""
    """Id of the standard's SearchParameter; empty for one of our own."""
    documentation: str = ""
    system: str | None = None
    """Code system of an element of type code, which does not name it."""
    rows: tuple[str, ...] = ()
    """Parameters whose index rows this one looks at; empty: its own."""
    parts: tuple[str, str] = ("", "")
    """Of a composite: the paths of its two parts below `path`; the kind of the second."""
    second: Kind = "token"
    is_list: bool = False
    """Whether a resource may have several values of a date: then it orders no results by itself."""

    @property
    def indexed_as(self) -> tuple[str, ...]:
        """Names under which the index holds its values."""
        return self.rows or (self.name,)


def token(name: str, path: str, definition: str = "", *, system: str | None = None) -> Parameter:
    """Return a parameter over codes or identifiers."""
    return Parameter(name, "token", path, (), definition, system=system)


def reference(name: str, path: str, *targets: str, definition: str = "", rows: tuple[str, ...] = ()) -> Parameter:
    """Return a parameter over references."""
    return Parameter(name, "reference", path, targets, definition, rows=rows)


def date(name: str, path: str, definition: str = "", *, rows: tuple[str, ...] = ()) -> Parameter:
    """Return a parameter over dates, times or periods."""
    return Parameter(name, "date", path, (), definition, rows=rows)


def string(name: str, path: str, definition: str = "") -> Parameter:
    """Return a parameter over text."""
    return Parameter(name, "string", path, (), definition)


def quantity(name: str, path: str, *, rows: tuple[str, ...] = ()) -> Parameter:
    """Return a parameter over values with units."""
    return Parameter(name, "quantity", path, rows=rows)


def uri(name: str, path: str, definition: str = "") -> Parameter:
    """Return a parameter over addresses, compared whole."""
    return Parameter(name, "uri", path, (), definition)


def composite(name: str, path: str, code: str, value: str, second: Kind) -> Parameter:
    """Return a parameter over a code together with its value."""
    return Parameter(name, "composite", path, parts=(code, value), second=second)


def union(name: str, kind: Kind, *rows: str, second: Kind = "token") -> Parameter:
    """Return a parameter that finds what any of others of its type finds."""
    return Parameter(name, kind, rows=rows, second=second)


def own(name: str, kind: Kind, documentation: str, path: str = "", *, rows: tuple[str, ...] = ()) -> Parameter:
    """Return a parameter that is no part of the standard."""
    return Parameter(name, kind, path, documentation=documentation, rows=rows)


def own_reference(name: str, target: str, path: str, documentation: str, rows: tuple[str, ...] = ()) -> Parameter:
    """Return a reference parameter that is no part of R4."""
    return Parameter(name, "reference", path, (target,), documentation=documentation, rows=rows)
