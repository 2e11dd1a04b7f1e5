"""What the FHIR server answers, checked by validators of R4, R5 and XML that share no code with what writes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fhir.resources import get_fhir_model_class
from fhir_facade.app import create_app
from fhir_facade.audit_event import AuditEventRenderer
from fhir_facade.server import ExchangeRules

from gateway.audit.dicom_xml import AuditSource
from gateway.exchange.endpoint import AllowedEndpoints
from gateway.store import Store
from gateway.store.results import write_resources
from tests.auditing import every_act
from tests.unit.fhir import cases, node
from tests.unit.web.serving import served

JSON = {"Content-Type": "application/fhir+json"}
PATHS = (
    "/metadata",
    "/Patient?name=müller&_count=1",
    "/DiagnosticReport?_include=DiagnosticReport:subject&_include=DiagnosticReport:result",
    "/Media",
    "/ServiceRequest",
    "/Endpoint",
    "/Device?identifier=nobody",
    "/Patient/none",
    "/Patient?_nonsense:nonsense=1",
    "/AuditEvent",
    "/Subscription",
    "/SearchParameter",
    "/OperationDefinition",
)
_GONE_TYPES = '"BodySite" | "CatalogEntry" | "Conformance"'
TOPIC = "urn:hybridmed:subscription-topic:diagnostic-report"
GUIDE = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"


def apart(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a Bundle without its resources, and these beside it: R5 types tell nothing of what is in a Bundle."""
    inside = [each["resource"] for each in content.get("entry", ())]
    entries = [{name: value for name, value in each.items() if name != "resource"} for each in content.get("entry", ())]
    return [content | ({"entry": entries} if entries else {}), *inside]


def write_events(store: Store) -> None:
    """Write an AuditEvent of each act."""
    render = AuditEventRenderer(cases.RENDERER.ids, AuditSource("HM", "Hospital"))
    with store.write() as connection:
        versions = [render(connection, each) for each in every_act()]
        write_resources(connection, versions, cases.NOW, job_id=None)


def subscriptions() -> list[dict[str, Any]]:
    """Return one to a topic, with all that may be asked for, and one of R4's own kind."""
    channel = {"type": "rest-hook", "endpoint": "http://127.0.0.1:9/hook", "payload": "application/fhir+json"}
    plain = {"resourceType": "Subscription", "status": "requested", "reason": "x", "channel": channel}
    content = {"extension": [{"url": f"{GUIDE}/backport-payload-content", "valueCode": "id-only"}]}
    timed = [{"url": f"{GUIDE}/backport-heartbeat-period", "valueUnsignedInt": 60}]
    filters = [{"url": f"{GUIDE}/backport-filter-criteria", "valueString": "status:not=final&patient.name=x"}]
    topical = channel | {"_payload": content, "extension": timed, "header": ["X-Key: secret"]}
    return [
        plain | {"criteria": "DiagnosticReport?status=final"},
        plain | {"criteria": TOPIC, "_criteria": {"extension": filters}, "channel": topical},
    ]


def test_what_the_server_answers_is_valid(local_store: Store, tmp_path: Path) -> None:
    """CapabilityStatement, searchsets with and without entries and errors: R4, the same as XML, and R5."""
    for job_done in (cases.whole(cases.pneumonia()), cases.whole(cases.pneumonia(with_fine=False), revision=2)):
        cases.commit(local_store, job_done, replace(cases.RENDERER, site=cases.SITE))
    write_events(local_store)
    with served(create_app(local_store, exchange=ExchangeRules(AllowedEndpoints((), with_loopback=True)))) as client:
        for each in subscriptions():
            assert client.post("/Subscription", json=each, headers=JSON).status_code == 201
        r4, xml, r5 = (
            [client.get(path, headers={"Accept": f"application/fhir+{form}"}).text for path in PATHS]
            for form in ("json", "xml", "json; fhirVersion=5.0")
        )

    assert node.complaints([json.loads(each) for each in r4], tmp_path) == []
    inside = [one for each in r5 for one in apart(json.loads(each))]
    for each in inside:
        get_fhir_model_class(each["resourceType"]).model_validate(each)
    # Those types know the resource types that are gone alone as the base of a SearchParameter, and none that there is.
    found = [each for each in node.complaints_of_r5(inside, tmp_path) if _GONE_TYPES not in each]
    assert found == []
    as_text = [json.loads(each, parse_float=str, parse_int=str) for each in r4]
    theirs = node.convert([{"json": each, "xml": ours} for each, ours in zip(as_text, xml, strict=True)], tmp_path)
    for path, ours, each in zip(PATHS[1:], xml[1:], theirs[1:], strict=True):  # the first tells when it was made
        assert ElementTree.canonicalize(ours) == ElementTree.canonicalize(each["xml"], strip_text=True), path
