"""A report -> transaction Bundles for another FHIR server (R4 http, 3.1.0.11), two of them.

What is ours has our ids and is updated under them, so that sending twice makes one: report, observations, devices,
provenance. What the hospital has too is created only where it is not there yet: the patient by identifier, the study by
its UID. That goes first and by itself: its answer says under which ids the hospital has them, and servers that bound
transactions with conditions take the report, which has none, as a whole.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

import orjson

from gateway.exchange.report import Json, Report

_NAMESPACE: Final = uuid.UUID("b0b2ef4c-29a0-4f2c-8df2-5d7d0c4b6d1a")
_OF_HOSPITAL = frozenset({"Patient", "ImagingStudy", "Organization", "Practitioner"})
_ORDER = ("Organization", "Practitioner", "Patient", "Device", "ImagingStudy", "Observation")
_LOCATION = re.compile(r"(?:^|/)(?P<type>[A-Za-z]+)/(?P<id>[A-Za-z0-9.-]{1,64})(?:/_history/[^/]*)?$")
_STAMPED = frozenset({"versionId", "lastUpdated"})


def of_hospital(report: Report) -> list[Json]:
    """Return the resources that the hospital may have, in the order in which they are sent."""
    return _ordered(each for each in report.resources if _condition(each) is not None)


def of_gateway(report: Report) -> list[Json]:
    """Return the resources that are ours, in the order in which they are sent."""
    return _ordered(each for each in report.resources if _condition(each) is None)


def transaction(resources: Sequence[Json], known: Mapping[str, str]) -> bytes:
    """Return a Bundle.

    Parameters
    ----------
    known
        `Type/id` here -> `Type/id` there, of what was sent before.
    """
    addresses = {**known, **{f"{each['resourceType']}/{each['id']}": _full_url(each) for each in resources}}
    entries = [_entry(each, addresses) for each in resources]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    return orjson.dumps(bundle, default=_decimal)


def location(content: Json, response: Json) -> str | None:
    """Return `Type/id` of a resource there, from its entry in the answer; None where that does not say.

    Parameters
    ----------
    response
        `Bundle.entry` of the answer, with `response.location` or the resource itself.
    """
    resource_type = content["resourceType"]
    for text in (_text(response, "response", "location"), f"{resource_type}/{_text(response, 'resource', 'id')}"):
        match = _LOCATION.search(text)
        if match is not None and match["type"] == resource_type:
            return f"{resource_type}/{match['id']}"
    return None


def _ordered(resources: Iterable[Json]) -> list[Json]:
    """Return resources so that what is referred to comes first, for servers that go through a Bundle once."""
    order = {name: place for place, name in enumerate(_ORDER)}
    return sorted(resources, key=lambda each: order.get(each["resourceType"], len(order)))


def _text(entry: Json, name: str, member: str) -> str:
    value = entry.get(name)
    return str(value.get(member, "")) if isinstance(value, dict) else ""


def _entry(content: Json, addresses: Mapping[str, str]) -> Json:
    resource_type = content["resourceType"]
    resource = {name: _with_addresses(value, addresses) for name, value in content.items() if name != "meta"}
    meta = {name: value for name, value in content.get("meta", {}).items() if name not in _STAMPED}
    if meta:
        resource["meta"] = meta
    condition = _condition(content)
    if condition is None:
        request = {"method": "PUT", "url": f"{resource_type}/{content['id']}"}
    else:
        del resource["id"]
        request = {"method": "POST", "url": resource_type, "ifNoneExist": condition}
    return {"fullUrl": _full_url(content), "resource": resource, "request": request}


def _condition(content: Json) -> str | None:
    """Return the query that finds a resource of the hospital; None for one of ours, or without an identifier."""
    if content["resourceType"] not in _OF_HOSPITAL:
        return None
    for identifier in content.get("identifier", ()):
        if identifier.get("system") and identifier.get("value"):
            token = f"{_escaped(identifier['system'])}|{_escaped(identifier['value'])}"
            return f"identifier={quote(token, safe=':/|')}"
    return None


def _full_url(content: Json) -> str:
    try:
        return f"urn:uuid:{uuid.UUID(content['id'])}"
    except ValueError:
        return f"urn:uuid:{uuid.uuid5(_NAMESPACE, content['resourceType'] + '/' + content['id'])}"


def _with_addresses(value: Any, addresses: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_with_addresses(each, addresses) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _with_addresses(each, addresses) for name, each in value.items()}
    if changed.get("reference") in addresses:
        changed["reference"] = addresses[changed["reference"]]
    return changed


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$")


def _decimal(value: object) -> orjson.Fragment:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return orjson.Fragment(format(value, "f").encode())
