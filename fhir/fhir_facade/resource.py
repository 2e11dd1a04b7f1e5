"""Content of a resource -> its bytes, checked by the R4B models of fhir.resources, which R4 shares for our elements.

The models are the gate, not the writer: they would drop the trailing zeros of decimals, which FHIR keeps
(R4 datatypes, decimal: the precision is part of the value).
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import orjson
from fhir.resources.R4B import get_fhir_model_class

Json: TypeAlias = dict[str, Any]


def clean(text: str) -> str:
    """Return text as a FHIR string holds it: no control characters, no space around it (R4 datatypes, string)."""
    kept = (char if char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cs"} else " " for char in text)
    return "".join(kept).strip()


def present(content: Mapping[str, Any]) -> Json:
    """Return the elements that have a value: FHIR has neither empty strings nor empty lists."""
    return {name: value for name, value in content.items() if value not in (None, "", [], {})}


def reference(resource_type: str, resource_id: str, display: str = "") -> Json:
    """Return a Reference to a resource of this server."""
    return present({"reference": f"{resource_type}/{resource_id}", "display": clean(display)})


def encode(content: Json) -> bytes:
    """Return a resource as JSON in UTF-8; pydantic's ValidationError where the model refuses it."""
    get_fhir_model_class(content["resourceType"]).model_validate(content)
    return dump(content)


def dump(content: Any) -> bytes:
    """Return what `parse` returned as JSON in UTF-8, unchecked; decimals keep their digits."""
    return orjson.dumps(content, default=_decimal)


def parse(body: bytes) -> Json:
    """Return the content of a stored resource; decimals keep their digits."""
    content: Json = json.loads(body, parse_float=Decimal)
    return content


def _decimal(value: object) -> orjson.Fragment:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return orjson.Fragment(format(value, "f").encode())
