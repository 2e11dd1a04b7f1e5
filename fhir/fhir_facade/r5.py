"""R4 -> R5 of the types that are served, JSON to JSON, by the R4-to-R5 changes that each R5 resource page lists.

A pure function over content as it is stored: numbers may be any objects, and are handed through. A type that is not in
the table is not offered as R5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fhir_facade.r5_exchange import NoFormError, audit_event_as_r5, search_parameter_as_r5, subscription_as_r5
from fhir_facade.resource import Json, present

__all__ = ["NoFormError", "as_r5"]

_RELEASE = "5.0.0"


def as_r5(content: Json) -> Json:
    """Return a resource as R5 knows it; NoFormError, naming the type, where it is not offered."""
    resource_type = content["resourceType"]
    if resource_type not in _CHANGES:
        raise NoFormError(resource_type)
    changed: Json = _everywhere(_CHANGES[resource_type](content))
    return changed


def _everywhere(element: Any) -> Any:
    """Return what changed in data types: sizes of attachments are text, a Media is a DocumentReference."""
    if isinstance(element, list):
        return [_everywhere(each) for each in element]
    if not isinstance(element, dict):
        return element
    changed = {name: _everywhere(value) for name, value in element.items()}
    if "contentType" in changed and "size" in changed:
        changed["size"] = str(changed["size"])
    link = changed.get("reference")
    if isinstance(link, str) and ("Media/" in link):
        changed["reference"] = link.replace("Media/", "DocumentReference/")
    if changed.get("type") == "Media" and ("reference" in changed or "identifier" in changed):
        changed["type"] = "DocumentReference"
    return changed


def _same(content: Json) -> Json:
    return content


def _renamed(content: Json, names: Mapping[str, str]) -> Json:
    return {names.get(name, name): value for name, value in content.items()}


def _bundle(content: Json) -> Json:
    return content | present({"entry": [_entry(each) for each in content.get("entry", [])]})


def _entry(entry: Json) -> Json:
    changed = dict(entry)
    if "resource" in entry:
        changed["resource"] = as_r5(entry["resource"])
        if "fullUrl" in entry and entry["resource"]["resourceType"] == "Media":
            changed["fullUrl"] = entry["fullUrl"].replace("/Media/", "/DocumentReference/")
    if "response" in entry and "outcome" in entry["response"]:
        changed["response"] = entry["response"] | {"outcome": as_r5(entry["response"]["outcome"])}
    return changed


def _capability_statement(content: Json) -> Json:
    rest = [each | present({"resource": [_named(one) for one in each["resource"]]}) for each in content["rest"]]
    return content | {"fhirVersion": _RELEASE, "rest": rest}


def _named(resource: Json) -> Json:
    """Return what is said of a type, by its name in R5."""
    return resource | {"type": "DocumentReference"} if resource["type"] == "Media" else resource


def _diagnostic_report(content: Json) -> Json:
    return _renamed(content, {"imagingStudy": "study"})


def _imaging_study(content: Json) -> Json:
    changed = {name: value for name, value in content.items() if name not in {"procedureCode", "interpreter"}}
    procedures = [{"concept": each} for each in content.get("procedureCode", [])]
    return changed | present(
        {
            "modality": [_concept(each) for each in content.get("modality", [])],
            "procedure": procedures,
            "series": [_series(each) for each in content.get("series", [])],
        }
    )


def _series(content: Json) -> Json:
    changed = dict(content)
    for name in ("modality", "laterality"):
        if name in content:
            changed[name] = _concept(content[name])
    if "bodySite" in content:
        changed["bodySite"] = {"concept": _concept(content["bodySite"])}
    return changed


def _concept(coding: Json) -> Json:
    """Return a Coding as CodeableConcept; one of words alone as text."""
    return {"coding": [coding]} if "code" in coding else {"text": coding["display"]}


def _device(content: Json) -> Json:
    changed = {name: value for name, value in content.items() if name not in {"deviceName", "patient"}}
    names = content.get("deviceName", [])
    properties = [
        {"type": each["type"], name: value}
        for each in content.get("property", [])
        for name, value in (
            *(("valueQuantity", one) for one in each.get("valueQuantity", [])),
            *(("valueCodeableConcept", one) for one in each.get("valueCode", [])),
        )
    ]
    models = [each["name"] for each in names if each.get("type") == "model-name"]
    return changed | present(
        {
            "name": [{"value": each["name"], "type": "user-friendly-name"} for each in names],
            "modelNumber": changed.get("modelNumber", models[0] if models else None),
            "type": [content["type"]] if "type" in content else None,
            "property": properties,
        }
    )


def _provenance(content: Json) -> Json:
    return {name: value for name, value in content.items() if name != "reason"}


def _task(content: Json) -> Json:
    changed = _merged(content, {"reason": ("reasonCode", "reasonReference")})
    if "performerType" in content:
        changed["requestedPerformer"] = [{"concept": each} for each in changed.pop("performerType")]
    if "statusReason" in content:
        changed["statusReason"] = {"concept": content["statusReason"]}
    return changed


def _service_request(content: Json) -> Json:
    merged = {"reason": ("reasonCode", "reasonReference"), "location": ("locationCode", "locationReference")}
    changed = _merged({name: value for name, value in content.items() if name != "orderDetail"}, merged)
    return changed | ({"code": {"concept": content["code"]}} if "code" in content else {})


def _merged(content: Json, names: Mapping[str, tuple[str, str]]) -> Json:
    """Return content in which concepts and references, two elements in R4, are one list of CodeableReference."""
    changed = dict(content)
    for name, (concepts, references) in names.items():
        found = [{"concept": each} for each in _listed(changed.pop(concepts, []))]
        found += [{"reference": each} for each in _listed(changed.pop(references, []))]
        changed |= {name: found} if found else {}
    return changed


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _endpoint(content: Json) -> Json:
    changed = {name: value for name, value in content.items() if name not in {"payloadType", "payloadMimeType"}}
    payload = present({"type": content.get("payloadType"), "mimeType": content.get("payloadMimeType")})
    return changed | {"connectionType": [_concept(content["connectionType"])], "payload": [payload]}


def _organization(content: Json) -> Json:
    changed = {name: value for name, value in content.items() if name not in {"address", "telecom"}}
    contact = present({"telecom": content.get("telecom"), "address": (content.get("address") or [None])[0]})
    return changed | ({"contact": [contact]} if contact else {})


def _media(content: Json) -> Json:
    """Return a DocumentReference: R5 has no Media."""
    is_error = content["status"] == "entered-in-error"
    kept = ("id", "meta", "language", "identifier", "basedOn", "subject")
    created = content.get("createdDateTime", content.get("issued"))
    site = content.get("bodySite")
    return present(
        {
            "resourceType": "DocumentReference",
            **{name: content[name] for name in kept if name in content},
            "status": "entered-in-error" if is_error else "current",
            "type": content.get("type"),
            "modality": [content["modality"]] if "modality" in content else None,
            "bodySite": [{"concept": site}] if site else None,
            "date": created,
            "author": [content["device"]] if "device" in content else None,
            "description": content["content"].get("title"),
            "content": [{"attachment": content["content"]}],
        }
    )


_CHANGES: Mapping[str, Callable[[Json], Json]] = {
    "AuditEvent": audit_event_as_r5,
    "Binary": _same,
    "Bundle": _bundle,
    "CapabilityStatement": _capability_statement,
    "Device": _device,
    "DiagnosticReport": _diagnostic_report,
    "Endpoint": _endpoint,
    "Flag": _same,
    "ImagingStudy": _imaging_study,
    "Media": _media,
    "Observation": _same,
    "OperationDefinition": _same,
    "OperationOutcome": _same,
    "Organization": _organization,
    "Parameters": _same,
    "Patient": _same,
    "Practitioner": _same,
    "Provenance": _provenance,
    "SearchParameter": search_parameter_as_r5,
    "ServiceRequest": _service_request,
    "Subscription": subscription_as_r5,
    "Task": _task,
}
"""Resource type of R4 -> what makes it one of R5."""
