"""A resource that a client writes: its bytes -> content that FHIR's rules and ours allow; and the answer to it.

The models of fhir.resources find unknown elements, wrong types and missing ones. What they pass and R4 forbids is
looked for here: codes outside of required bindings, references to other types than an element takes, narrative that a
browser would run, modifiers that this server does not know and could therefore misunderstand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final
from xml.etree import ElementTree as ET

import orjson
from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from fhir_facade.answer import answer
from fhir_facade.negotiation import body_format
from fhir_facade.outcome import InvalidError, MediaTypeError
from fhir_facade.refusal import BrokenError, VersionConflictError
from fhir_facade.representation import read_body
from fhir_facade.request import bounded_body, preferences
from fhir_facade.resource import Json, parse

LARGEST_BODY: Final = 1 << 18
"""Bytes of a resource that is written."""
_MOST_COMPLAINTS = 10
_DEEPEST = 40
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')
_BINDINGS: dict[tuple[str, str], frozenset[str]] = {
    ("Patient", "gender"): frozenset({"male", "female", "other", "unknown"}),
    ("Patient", "identifier.use"): frozenset({"usual", "official", "temp", "secondary", "old"}),
    ("Patient", "name.use"): frozenset({"usual", "official", "temp", "nickname", "anonymous", "old", "maiden"}),
    ("Patient", "telecom.system"): frozenset({"phone", "fax", "email", "pager", "url", "sms", "other"}),
    ("Patient", "telecom.use"): frozenset({"home", "work", "temp", "old", "mobile"}),
    ("Patient", "address.use"): frozenset({"home", "work", "temp", "old", "billing"}),
    ("Patient", "address.type"): frozenset({"postal", "physical", "both"}),
    ("Patient", "contact.gender"): frozenset({"male", "female", "other", "unknown"}),
    ("Patient", "link.type"): frozenset({"replaced-by", "replaces", "refer", "seealso"}),
    ("ServiceRequest", "status"): frozenset(
        {"draft", "active", "on-hold", "revoked", "completed", "entered-in-error", "unknown"}
    ),
    ("ServiceRequest", "intent"): frozenset(
        {"proposal", "plan", "directive", "order", "original-order", "reflex-order", "filler-order"}
        | {"instance-order", "option"}
    ),
    ("ServiceRequest", "priority"): frozenset({"routine", "urgent", "asap", "stat"}),
    ("ServiceRequest", "identifier.use"): frozenset({"usual", "official", "temp", "secondary", "old"}),
    ("Subscription", "status"): frozenset({"requested", "active", "error", "off"}),
    ("Subscription", "channel.type"): frozenset({"rest-hook", "websocket", "email", "sms", "message"}),
}
"""Required bindings of R4."""
_PERSONS = frozenset({"Practitioner", "PractitionerRole", "Organization"})
_TARGETS: dict[tuple[str, str], frozenset[str]] = {
    ("Patient", "generalPractitioner"): _PERSONS,
    ("Patient", "managingOrganization"): frozenset({"Organization"}),
    ("Patient", "link.other"): frozenset({"Patient", "RelatedPerson"}),
    ("ServiceRequest", "subject"): frozenset({"Patient", "Group", "Location", "Device"}),
    ("ServiceRequest", "encounter"): frozenset({"Encounter"}),
    ("ServiceRequest", "requester"): _PERSONS | {"Patient", "RelatedPerson", "Device"},
    ("ServiceRequest", "performer"): _PERSONS | {"CareTeam", "HealthcareService", "Patient", "Device", "RelatedPerson"},
    ("ServiceRequest", "basedOn"): frozenset({"CarePlan", "ServiceRequest", "MedicationRequest"}),
    ("ServiceRequest", "replaces"): frozenset({"ServiceRequest"}),
    ("ServiceRequest", "specimen"): frozenset({"Specimen"}),
}
"""Types that references may lead to (R4)."""
_XHTML = "{http://www.w3.org/1999/xhtml}"
_RUNNING = frozenset({"script", "object", "embed", "iframe", "form", "input", "link", "style", "base", "frame", "xml"})


async def read_resource(request: Request, resource_type: str) -> Json:
    """Return the resource in the body, checked; MediaTypeError, InvalidError or BrokenError where it is none."""
    written = body_format(request.headers.get("content-type"))
    if written is None or written[1] != "4.0":
        raise MediaTypeError("a resource is sent as application/fhir+json or application/fhir+xml, of R4")
    return checked(read_body(await bounded_body(request, LARGEST_BODY), written[0]), resource_type)


def checked(body: bytes, resource_type: str) -> Json:
    """Return the content of a resource; InvalidError where it is no JSON, BrokenError where it breaks a rule."""
    try:
        orjson.loads(body)  # refuses what json takes: NaN, lone surrogates, depth without end
        content = parse(body)
    except (ValueError, RecursionError):
        raise InvalidError("the body is not JSON in UTF-8") from None
    if not isinstance(content, dict) or content.get("resourceType") != resource_type:
        raise InvalidError(f"the body is not a {resource_type}")
    try:
        complaints = list(_complaints(content))
    except RecursionError:
        complaints = [f"more than {_DEEPEST} levels deep"]
    if complaints:
        raise BrokenError("; ".join(complaints[:_MOST_COMPLAINTS]))
    return content


def expected_version(request: Request) -> int | None:
    """Return the version that If-Match names; None where it is not given or `*`."""
    return version_named(request.headers.get("if-match", "*"))


def version_named(etag: str) -> int | None:
    """Return the version that an If-Match names; None for `*`."""
    text = etag.strip()
    if text == "*":
        return None
    match = _ETAG.fullmatch(text)
    if match is None or not match[1].isdecimal() or not match[1].isascii():
        raise VersionConflictError("If-Match names no version of this resource")
    return int(match[1])


def written_response(
    request: Request, base: str, body: bytes, *, is_new: bool, warnings: Sequence[str] = ()
) -> Response:
    """Return the answer to a write: 201 or 200, Location, ETag, and what `Prefer: return` asks for.

    Parameters
    ----------
    body
        The resource as it now stands.
    warnings
        Told in an OperationOutcome, which is answered wherever there are some and the client did not ask otherwise.
    """
    content = parse(body)
    version = content["meta"]["versionId"]
    location = f"{base}/{content['resourceType']}/{content['id']}/_history/{version}"
    headers = {"Location": location, "ETag": f'W/"{version}"'}
    status = 201 if is_new else 200
    asked = preferences(request).get("return", "OperationOutcome" if warnings else "representation")
    if asked == "minimal":
        return Response(status_code=status, headers=headers)
    shown = outcome(warnings) if asked == "OperationOutcome" else body
    return answer(request, shown, status=status, headers=headers)


def outcome(warnings: Sequence[str]) -> bytes:
    """Return an OperationOutcome that says it was done, and what was noted."""
    issues = [{"severity": "warning", "code": "business-rule", "diagnostics": text} for text in warnings]
    done = {"severity": "information", "code": "informational", "diagnostics": "done"}
    return orjson.dumps({"resourceType": "OperationOutcome", "issue": issues or [done]})


def _complaints(content: Json) -> Iterator[str]:
    try:
        model = get_fhir_model_class(content["resourceType"]).model_validate(content)
    except (TypeError, AttributeError):  # the models' own checks look at values before they know their types
        yield "an element has a value of another type"
        return
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            # The sentences of value errors may hold what was sent; the place and the kind say enough.
            text = item["type"] if item["type"] == "value_error" else item["msg"]
            yield f"{'.'.join(map(str, item['loc']))}: {text}"
        return
    unlike = list(_forms(content, orjson.loads(model.model_dump_json()), ()))
    if unlike:
        yield from unlike
        return
    for name in ("contained", "implicitRules"):
        if name in content:
            yield f"{name} is not taken by this server"
    yield from _walk(content["resourceType"], content, (), 0)
    yield from _narrative(content.get("text"))


def _forms(given: Any, understood: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Complain where the JSON has another form than the element (R4, 2.6.2): the models take a number for a date.

    Parameters
    ----------
    given
        As it was sent; null stands for nothing but in arrays of primitives.
    understood
        What the models made of it.
    """
    if given == []:
        return  # clients write it for what they do not have, and it does no harm
    if isinstance(given, list) and isinstance(understood, list):
        for each, other in zip(given, understood, strict=False):
            if each is not None:
                yield from _forms(each, other, path)
    elif isinstance(given, dict) and isinstance(understood, dict) and given:
        for name, value in given.items():
            yield from _forms(value, understood.get(name), (*path, name))
    elif given in (None, "", {}):
        yield f"{'.'.join(path)}: has no value; leave it out"
    elif _form(given) != _form(understood):
        yield f"{'.'.join(path)}: is not written as this element is"


def _form(value: Any) -> type:
    """Return which of the forms of JSON a value has."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return float if is_number else type(value)


def _walk(resource_type: str, element: Any, path: tuple[str, ...], depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        yield f"more than {_DEEPEST} levels deep"
        return
    if isinstance(element, list):
        for each in element:
            yield from _walk(resource_type, each, path, depth)
        return
    key = (resource_type, ".".join(path))
    if isinstance(element, str):
        allowed = _BINDINGS.get(key)
        if allowed is not None and element not in allowed:
            yield f"{key[1]} takes {', '.join(sorted(allowed))}"
    elif isinstance(element, dict):
        if "modifierExtension" in element:
            yield f"{key[1] or 'resource'}: a modifierExtension is not taken: its meaning is not known"
        if key in _TARGETS:
            yield from _target(key[1], element, _TARGETS[key])
        for name, value in element.items():
            if name not in {"extension", "text"} and not name.startswith("_"):
                yield from _walk(resource_type, value, (*path, name), depth + 1)


def _target(path: str, element: Json, allowed: frozenset[str]) -> Iterator[str]:
    text = element.get("reference", "")
    parts = text.split("/_history/")[0].split("/")
    named = element.get("type") or (parts[-2] if len(parts) > 1 and not text.startswith("urn:") else "")
    if named and named not in allowed:
        yield f"{path} refers to one of {', '.join(sorted(allowed))}"


def _narrative(text: Json | None) -> Iterator[str]:
    """Complain about narrative that is no XHTML or that does something (R4 narrative, txt-1)."""
    if text is None:
        return
    if text.get("status") not in {"generated", "extensions", "additional", "empty"}:
        yield "text.status takes generated, extensions, additional or empty"
    div = str(text.get("div", ""))
    try:
        root = None if "<!" in div else ET.fromstring(div)  # noqa: S314 # without a DTD there are no entities
    except ET.ParseError:
        root = None
    if root is None or root.tag != f"{_XHTML}div":
        yield "text.div is not an XHTML div"
        return
    for element in root.iter():
        name = element.tag.removeprefix(_XHTML).lower()
        is_foreign = not element.tag.startswith(_XHTML)  # SVG and MathML hold scripts of their own
        if is_foreign or name in _RUNNING or any(_runs(*each) for each in element.attrib.items()):
            yield "text.div holds something that a browser would run"
            return


def _runs(attribute: str, value: str) -> bool:
    """Say whether a browser would run an attribute; in addresses it passes over white space and control characters."""
    address = "".join(char for char in value.lower() if char.isprintable() and not char.isspace())
    return attribute.lower().startswith("on") or "script:" in address or "data:" in address
