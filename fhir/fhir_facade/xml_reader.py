"""XML of a resource -> its JSON (R4 2.6.1 and 2.6.2), within bounds; no document type, no entities of the sender's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import orjson

from fhir_facade.elements import Element, Release, elements_of, resource_model
from fhir_facade.outcome import InvalidError
from fhir_facade.resource import Json
from fhir_facade.xml_writer import NAMESPACE

_XHTML = "http://www.w3.org/1999/xhtml"
_SEPARATOR = " "
_DEEPEST = 100
_MOST_NODES = 200_000


@dataclass(slots=True)
class _Node:
    """One element of the document."""

    namespace: str
    name: str
    attributes: dict[str, str]
    parts: list[_Node | str] = field(default_factory=list)

    @property
    def children(self) -> list[_Node]:
        return [each for each in self.parts if isinstance(each, _Node)]


def read_xml(body: bytes, release: Release = "4.0") -> bytes:
    """Return a resource as JSON in UTF-8; decimals keep their digits.

    Raises
    ------
    InvalidError
        The body is no XML, holds a document type, is too deep, or is no resource of this release.
    """
    try:
        return orjson.dumps(_resource(_parsed(body), release))
    except LookupError as error:
        raise InvalidError(str(error.args[0])) from None
    except RecursionError:
        raise InvalidError("the XML is nested too deeply") from None


def _parsed(body: bytes) -> _Node:
    builder = _Builder()
    parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise InvalidError(f"not well-formed XML: line {error.lineno}, column {error.offset}") from None
    return builder.root


class _Builder:
    """Makes nodes of the parser's events."""

    def __init__(self) -> None:
        self.root = _Node("", "", {})
        self._open: list[_Node] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(_SEPARATOR)
        node = _Node(namespace, local, attributes)
        self._count += 1
        if len(self._open) >= _DEEPEST or self._count > _MOST_NODES:
            raise InvalidError("the XML is too deep or too large")
        if self._open:
            self._open[-1].parts.append(node)
        else:
            self.root = node
        self._open.append(node)

    def end(self, _name: str) -> None:
        self._open.pop()

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1].parts.append(data)

    def refuse(self, *_declaration: Any) -> None:
        raise InvalidError("XML with a document type is not read")


def _resource(node: _Node, release: Release) -> Json:
    if node.namespace != NAMESPACE:
        raise InvalidError(f"expected elements of {NAMESPACE}")
    content = _complex(node, resource_model(node.name, release), release)
    return {"resourceType": node.name} | content


def _complex(node: _Node, model: str, release: Release) -> Json:
    elements = elements_of(model)
    content: Json = {}
    for name, value in node.attributes.items():
        if name not in elements or not elements[name].is_attribute:
            raise InvalidError(f"{node.name} has no attribute {name}")
        content[name] = value
    for child in node.children:
        element = elements.get(child.name)
        if element is None or element.is_attribute:
            raise InvalidError(f"{node.name} has no element {child.name}")
        if not element.is_list and (element.name in content or f"_{element.name}" in content):
            raise InvalidError(f"{node.name} has {child.name} more than once")
        _add(content, element, child, release)
    return content


def _add(content: Json, element: Element, child: _Node, release: Release) -> None:
    """Put one occurrence of an element into the content; of a list, at its end."""
    name = element.name
    if element.kind == "resource":
        value: Any = _resource(_only_child(child), release)
    elif element.kind == "complex":
        value = _complex(child, element.model, release)
    elif element.kind == "xhtml":
        value = _xhtml(child, is_root=True)
    else:
        _add_primitive(content, element, child, release)
        return
    if element.is_list:
        content.setdefault(name, []).append(value)
    else:
        content[name] = value


def _add_primitive(content: Json, element: Element, child: _Node, release: Release) -> None:
    name = element.name
    value = _value(element, child)
    extras = _extras(child, release)
    if not element.is_list:
        content |= ({} if value is None else {name: value}) | ({f"_{name}": extras} if extras else {})
        return
    values = content.setdefault(name, [])
    values.append(value)
    if extras or f"_{name}" in content:
        others = content.setdefault(f"_{name}", [])
        others += [None] * (len(values) - 1 - len(others)) + [extras or None]


def _value(element: Element, child: _Node) -> Any:
    text = child.attributes.get("value")
    if text is None:
        return None
    if element.kind == "boolean":
        if text not in {"true", "false"}:
            raise InvalidError(f"{child.name} is true or false")
        return text == "true"
    if element.kind in {"integer", "decimal"}:
        return _number(child.name, text)
    return text


def _number(name: str, text: str) -> orjson.Fragment:
    try:
        number = orjson.loads(text)
    except orjson.JSONDecodeError:
        number = None
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise InvalidError(f"{name} is a number")
    return orjson.Fragment(text.encode())


def _extras(child: _Node, release: Release) -> Json:
    """Return id and extensions of a primitive element."""
    unknown = child.attributes.keys() - {"id", "value"}
    if unknown:
        raise InvalidError(f"{child.name} has no attribute {min(unknown)}")
    extras: Json = {"id": child.attributes["id"]} if "id" in child.attributes else {}
    model = elements_of(resource_model("Basic", release))["extension"].model
    for each in child.children:
        if each.name != "extension":
            raise InvalidError(f"{child.name} has no element {each.name}")
        extras.setdefault("extension", []).append(_complex(each, model, release))
    if not extras and "value" not in child.attributes:
        raise InvalidError(f"{child.name} has no value")
    return extras


def _only_child(node: _Node) -> _Node:
    if len(node.children) != 1:
        raise InvalidError(f"{node.name} holds one resource")
    return node.children[0]


def _xhtml(node: _Node, *, is_root: bool = False) -> str:
    if node.namespace != _XHTML:
        raise InvalidError("a narrative is XHTML")
    attributes = f' xmlns="{_XHTML}"' if is_root else ""
    attributes += "".join(f" {name}={quoteattr(value)}" for name, value in node.attributes.items())
    inner = "".join(escape(each) if isinstance(each, str) else _xhtml(each) for each in node.parts)
    return f"<{node.name}{attributes}>{inner}</{node.name}>" if inner else f"<{node.name}{attributes}/>"
