"""The elements of every type, in the order of the definitions: read off the models of fhir.resources, once for each.

XML needs what JSON does not tell: the order of elements, which of them repeat, which primitive type a value has (R4
2.6.1). The models are looked at, never filled: a stored resource is not rebuilt for another form.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, Literal

Release = Literal["4.0", "5.0"]
Kind = Literal["boolean", "integer", "decimal", "text", "xhtml", "complex", "resource"]
_PACKAGES: Mapping[Release, str] = {"4.0": "fhir.resources.R4B", "5.0": "fhir.resources"}
"""R4B has the elements of R4, in the order of R4, for all types that are served."""
_LARGE_INTEGERS = frozenset({"Integer64"})
"""Written as a string in JSON (R5 datatypes, integer64)."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type."""

    name: str
    kind: Kind
    is_list: bool = False
    model: str = ""
    """Of a complex one: its model, as `elements_of` takes it."""
    is_attribute: bool = False
    """In XML (R4 2.6.1): `id` of an element and `url` of an extension."""


@cache
def resource_model(resource_type: str, release: Release) -> str:
    """Return the model of a resource type; LookupError where there is none."""
    models = importlib.import_module(_PACKAGES[release])
    try:
        found = models.get_fhir_model_class(resource_type)
    except (KeyError, LookupError, ValueError, AttributeError) as error:
        raise LookupError(f"FHIR {release} has no type {resource_type}") from error
    if not issubclass(found, models.get_fhir_model_class("Resource")):
        raise LookupError(f"{resource_type} is no resource")
    return f"{found.__module__}.{found.__name__}"


@cache
def elements_of(model: str) -> Mapping[str, Element]:
    """Return the elements of a model by their names in JSON, in order."""
    module, _, name = model.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    fields = {field.alias or key: field for key, field in found.model_fields.items()}
    is_resource = "implicitRules" in fields
    return {
        each: _element(each, fields[each].annotation, name, is_resource=is_resource)
        for each in found.elements_sequence()
        if each in fields
    }


def _element(name: str, annotation: Any, owner: str, *, is_resource: bool) -> Element:
    leaves = list(_leaves(annotation))
    is_list = any(leaf is list for leaf in leaves)
    models = [leaf._model_klass for leaf in leaves if hasattr(leaf, "_model_klass")]
    if models:
        is_any = models[0].rpartition(".")[2] == "Resource"
        return Element(name, "resource" if is_any else "complex", is_list, models[0])
    if owner == "Narrative" and name == "div":
        return Element(name, "xhtml")
    is_attribute = (name == "id" and not is_resource) or (owner == "Extension" and name == "url")
    return Element(name, _primitive(leaves), is_list, is_attribute=is_attribute)


def _primitive(leaves: list[Any]) -> Kind:
    if any(type(leaf).__name__ in _LARGE_INTEGERS for leaf in leaves):
        return "text"
    if bool in leaves:
        return "boolean"
    if Decimal in leaves:
        return "decimal"
    return "integer" if int in leaves else "text"


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of, lists and annotations among them."""
    origin = typing.get_origin(annotation)
    if origin is list:
        yield list
    arguments = typing.get_args(annotation)
    if not arguments:
        yield annotation
    for each in arguments:
        yield from _leaves(each)
