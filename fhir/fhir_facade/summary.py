"""`_summary` and `_elements`: a part of a resource, marked as one (R4 search, 3.1.1.5.8 and 3.1.1.5.9)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args

import orjson
from fhir.resources.R4B import get_fhir_model_class

from fhir_facade.resource import Json

_ALWAYS = frozenset({"resourceType", "id", "meta", "implicitRules"})
_SUBSETTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
    "display": "Resource encoded in summary mode",
}
_DEEPEST = 6


def is_whole(summary: str, elements: Sequence[str]) -> bool:
    """Say whether resources are given as they lie."""
    return summary not in ("true", "text", "data") and not elements


def subset(body: bytes, resource_type: str, summary: str, elements: Sequence[str]) -> bytes:
    """Return what is asked of a resource.

    Parameters
    ----------
    summary
        'true': the elements that the standard marks so; 'text': narrative and what must be there; 'data': all but the
        narrative.
    elements
        Names, perhaps with the type before a dot; used where no summary is asked for.
    """
    content: Json = json.loads(body, parse_float=lambda digits: orjson.Fragment(digits.encode()))
    needed = _ALWAYS | _mandatory(resource_type)
    if summary == "true":
        kept = _summarised(content, resource_type, needed)
    elif summary == "data":
        kept = {name: value for name, value in content.items() if name != "text"}
    else:
        asked = {"text"} if summary == "text" else _asked(elements, resource_type)
        kept = {name: value for name, value in content.items() if name.removeprefix("_") in needed | asked}
    meta = content.get("meta", {})
    kept["meta"] = {**meta, "tag": [*meta.get("tag", []), _SUBSETTED]}
    return orjson.dumps(kept)


def _asked(elements: Sequence[str], resource_type: str) -> set[str]:
    """Return the elements asked for of this type; what is below them goes with them."""
    asked = set()
    for element in elements:
        first, _, rest = element.partition(".")
        if first[:1].isupper():
            if first != resource_type:
                continue
            first = rest.partition(".")[0]
        asked.add(first)
    return asked


def _summarised(content: Json, type_name: str, needed: frozenset[str], depth: int = 0) -> Json:
    marked = _marked(type_name)
    return {
        name: _within(value, marked.get(name.removeprefix("_"), ""), depth + 1)
        for name, value in content.items()
        if name.removeprefix("_") in needed or name.removeprefix("_") in marked
    }


def _within(value: Any, type_name: str, depth: int) -> Any:
    """Return an element of a summary: of a backbone element what is marked in its turn."""
    if not type_name or depth > _DEEPEST:
        return value
    if isinstance(value, list):
        return [_within(each, type_name, depth) for each in value]
    if not isinstance(value, dict):
        return value
    return _summarised(value, type_name, _mandatory(type_name), depth)


@cache
def _mandatory(type_name: str) -> frozenset[str]:
    """Return the elements that must be there, by the name that they have in JSON."""
    fields = get_fhir_model_class(type_name).model_fields
    return frozenset(
        field.alias or name
        for name, field in fields.items()
        if field.is_required() or (_extra(field).get("element_required") and not name.endswith("__ext"))
    )


@cache
def _marked(type_name: str) -> Mapping[str, str]:
    """Return the elements that belong to a summary, each with the backbone type that it is of; '' where of none."""
    model = get_fhir_model_class(type_name)
    return {
        field.alias or name: _backbone(field.annotation, type_name)
        for name, field in model.model_fields.items()
        if _extra(field).get("summary_element_property")
    }


def _backbone(annotation: Any, type_name: str) -> str:
    """Return the backbone type within an annotation: its name begins with that of the type that it is part of."""
    name = getattr(annotation, "__name__", "").removesuffix("Type")
    if isinstance(annotation, type) and name.startswith(type_name) and name != type_name:
        return name
    found = (_backbone(each, type_name) for each in get_args(annotation))
    return next((each for each in found if each), "")


def _extra(field: Any) -> Mapping[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}
