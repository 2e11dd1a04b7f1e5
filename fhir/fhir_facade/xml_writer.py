"""Content of a resource -> XML (R4 2.6.1), by the order of the definitions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from fhir_facade.elements import Element, Release, elements_of, resource_model
from fhir_facade.resource import Json

NAMESPACE = "http://hl7.org/fhir"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML 1.0 (2.2) cannot hold, not even escaped."""
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"} | {c: f"&#{ord(c)};" for c in "\t\n\r"}
)


def write_xml(content: Json, release: Release = "4.0", *, pretty: bool = False) -> bytes:
    """Return a resource as XML in UTF-8.

    Parameters
    ----------
    content
        As JSON; numbers as text, so that decimals keep their digits.
    release
        The release whose definitions give the order.
    pretty
        Whether each element begins a line.

    Raises
    ------
    LookupError
        The release has no such resource type.
    """
    writer = _Writer(release, pretty=pretty)
    writer.resource(content, 0, is_root=True)
    return (_DECLARATION + "".join(writer.parts)).encode("utf-8")


class _Writer:
    """Collects the text of one document."""

    def __init__(self, release: Release, *, pretty: bool) -> None:
        self.parts: list[str] = []
        self._release = release
        self._pretty = pretty

    def resource(self, content: Json, depth: int, *, is_root: bool = False) -> None:
        """Write a resource as an element named by its type."""
        name = content["resourceType"]
        attributes = f' xmlns="{NAMESPACE}"' if is_root else ""
        self._complex(name, attributes, content, resource_model(name, self._release), depth)

    def _complex(self, name: str, attributes: str, content: Json, model: str, depth: int) -> None:
        elements = elements_of(model)
        for element in elements.values():
            if element.is_attribute and element.name in content:
                attributes += f' {element.name}="{_escaped(content[element.name])}"'
        self._line(depth)
        self.parts.append(f"<{name}{attributes}>")
        for element in elements.values():
            if not element.is_attribute:
                self._element(element, content, depth + 1)
        self._line(depth)
        self.parts.append(f"</{name}>")

    def _element(self, element: Element, content: Json, depth: int) -> None:
        for value, extras in _occurrences(content.get(element.name), content.get(f"_{element.name}")):
            if element.kind == "resource":
                self._line(depth)
                self.parts.append(f"<{element.name}>")
                self.resource(value, depth + 1)
                self._line(depth)
                self.parts.append(f"</{element.name}>")
            elif element.kind == "complex":
                self._complex(element.name, "", value, element.model, depth)
            elif element.kind == "xhtml":
                self._line(depth)
                self.parts.append(_with_namespace(value))
            else:
                self._primitive(element.name, value, extras or {}, depth)

    def _primitive(self, name: str, value: Any, extras: Mapping[str, Any], depth: int) -> None:
        attributes = f' id="{_escaped(extras["id"])}"' if "id" in extras else ""
        if value is not None:
            attributes += f' value="{_escaped(value)}"'
        self._line(depth)
        if "extension" not in extras:
            self.parts.append(f"<{name}{attributes}/>")
            return
        self.parts.append(f"<{name}{attributes}>")
        model = elements_of(resource_model("Basic", self._release))["extension"].model
        for each in extras["extension"]:
            self._complex("extension", "", each, model, depth + 1)
        self._line(depth)
        self.parts.append(f"</{name}>")

    def _line(self, depth: int) -> None:
        if self._pretty:
            self.parts.append("\n" + "  " * depth)


def _occurrences(value: Any, extras: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each value of an element with the id and extensions that go with it."""
    if value is None and extras is None:
        return
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    others: Sequence[Any] = extras if isinstance(extras, list) else [extras]
    yield from zip_longest(values, others)


def _escaped(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _FORBIDDEN.sub("", text).translate(_ESCAPES)


def _with_namespace(div: str) -> str:
    """Return the narrative with the name space that XHTML needs; JSON usually has it already."""
    if "xmlns=" in div.partition(">")[0]:
        return div
    return div.replace("<div", '<div xmlns="http://www.w3.org/1999/xhtml"', 1)
