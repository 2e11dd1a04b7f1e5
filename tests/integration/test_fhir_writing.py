"""What clients may write: patients and orders; versions, conditions, preferences, and what the images contradict."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app
from fhir_facade.identity import installation_ids
from fhir_facade.render import FhirRenderer
from starlette.types import Receive, Scope, Send

from gateway.store import Store
from gateway.store.demographics import issue_of_study
from gateway.store.tables import study
from gateway.web.caller import Caller
from tests.unit.fhir import cases
from tests.unit.fhir.node import complaints
from tests.unit.web.serving import served

JSON = {"Content-Type": "application/fhir+json"}


@dataclass
class Writable:
    """A served FHIR server that holds the images of one patient."""

    store: Store
    http: httpx.Client
    renderer: FhirRenderer

    def commit(self, revision: int = 1) -> None:
        """Finish a job over the study."""
        given = cases.study(patient_id_issuer="1.2.40")
        columns = ("patient_id", "patient_id_issuer", "patient_name", "patient_birth_date", "patient_sex")
        cases.commit(self.store, cases.finished(cases.pneumonia(), study=given, revision=revision), self.renderer)
        with self.store.write() as connection:
            connection.execute(sa.update(study).values({name: getattr(given, name) for name in columns}))

    def patient(self) -> dict[str, Any]:
        """Return the patient of the images as it stands."""
        found: dict[str, Any] = self.http.get("/Patient", params={"identifier": "P-17"}).json()["entry"][0]["resource"]
        return found

    def put(self, content: dict[str, Any], **headers: str) -> httpx.Response:
        """Update a patient."""
        return self.http.put(f"/Patient/{content['id']}", json=content, headers=JSON | headers)

    def flags(self) -> list[str]:
        """Return the status of the patient's flags."""
        found = self.http.get("/Flag", params={"patient": self.patient()["id"]}).json()
        return [entry["resource"]["status"] for entry in found.get("entry", [])]


@pytest.fixture
def writable(store: Store) -> Iterator[Writable]:
    """Give a server with one patient, over both databases."""
    with served(create_app(store, zone=UTC)) as http:
        made = Writable(store, http, FhirRenderer(installation_ids(store.data_dir), zone=UTC))
        made.commit()
        yield made


def test_a_patient_is_updated_under_its_version(writable: Writable, tmp_path: Path) -> None:
    """ETag, Location, If-Match, Prefer; the next job over the images leaves what was written."""
    shown = writable.patient()
    changed = shown | {"telecom": [{"system": "phone", "value": "+49 1"}]}
    answer = writable.put(changed, **{"If-Match": 'W/"1"'})
    stale = writable.put(changed | {"active": True}, **{"If-Match": 'W/"1"'})
    minimal = writable.put(changed | {"active": True}, Prefer="return=minimal")
    told = writable.put(changed | {"active": True}, Prefer="return=OperationOutcome")
    writable.commit(revision=2)
    after = writable.patient()

    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"2"')
    assert answer.headers["location"].endswith(f"/Patient/{shown['id']}/_history/2")
    assert answer.json()["telecom"] == changed["telecom"]
    assert stale.status_code == 412
    assert (minimal.status_code, minimal.content) == (200, b"")
    assert told.json()["resourceType"] == "OperationOutcome"
    assert (after["active"], after["meta"]["versionId"]) == (True, "3")
    assert writable.flags() == []
    assert complaints([after], tmp_path) == []


def test_what_the_images_contradict_is_flagged_and_never_merged(writable: Writable, tmp_path: Path) -> None:
    """Told in the answer, the Patient, a Flag and on the study, until both say the same; images stay as they are."""
    shown = writable.patient()
    changed = shown | {"birthDate": "1971-01-01", "name": [{"family": "Mueller", "given": ["Anna"]}]}
    answer = writable.put(changed)
    writable.commit(revision=2)
    tagged, during = writable.patient(), writable.flags()
    flag = writable.http.get("/Flag").json()["entry"][0]["resource"]
    with writable.store.read() as connection:
        issue = issue_of_study(connection, cases.STUDY_UID)
        kept = connection.execute(sa.select(study.c.patient_name, study.c.patient_birth_date)).one()
    writable.put(shown | {"name": [{"family": "MÜLLER", "given": ["Anna"]}]})
    with writable.store.read() as connection:
        none_left = issue_of_study(connection, cases.STUDY_UID)

    assert "birthDate, name" in answer.json()["issue"][0]["diagnostics"]
    assert answer.json()["issue"][0]["severity"] == "warning"
    assert tagged["birthDate"] == "1971-01-01"
    assert tagged["meta"]["tag"][0]["code"] == "mismatch"
    assert during == ["active"]
    assert issue is not None
    assert issue.elements == ["birthDate", "name"]
    assert tuple(kept) == ("Müller^Anna Maria^^Dr.", "19700214")
    assert none_left is None
    assert writable.flags() == ["inactive"]
    assert "tag" not in writable.patient()["meta"]
    assert complaints([tagged, flag], tmp_path) == []


def test_patients_are_created_once(writable: Writable) -> None:
    """By identifier; on condition, of many at once one creates and the others find it; one of the images is known."""
    new = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.40", "value": "N-1"}], "gender": "male"}
    condition = JSON | {"If-None-Exist": "identifier=urn:oid:1.2.40|N-1"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: writable.http.post("/Patient", json=new, headers=condition), range(6)))
    again = writable.http.post("/Patient", json=new, headers=JSON)
    of_images = new | {"identifier": [{"system": "urn:oid:1.2.40", "value": "P-17"}]}
    nameless = {"resourceType": "Patient", "gender": "male"}
    own_id = writable.put(writable.patient() | {"id": "mine"})
    without_number = writable.put(writable.patient() | {"identifier": [{"value": "other"}]})

    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert again.status_code == 409
    assert writable.http.post("/Patient", json=of_images, headers=JSON).status_code == 409
    assert writable.http.post("/Patient", json=nameless, headers=JSON).status_code == 422
    assert own_id.status_code == 405
    assert without_number.status_code == 422
    assert writable.patient()["meta"]["versionId"] == "1"


def test_orders_are_taken_and_what_is_wrong_is_refused(writable: Writable) -> None:
    """A valid one can be found; each broken one is refused with an OperationOutcome; nothing is deleted."""
    patient = writable.patient()
    order = {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "subject": {"reference": f"Patient/{patient['id']}"},
        "code": {"text": "CT Thorax"},
    }
    created = writable.http.post("/ServiceRequest", json=order, headers=JSON)
    xhtml = "http://www.w3.org/1999/xhtml"
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><script>x()</script></svg>'
    hidden = "javascr&#9;ipt:x()"
    broken = {
        "code outside of its binding": {"intent": "wish"},
        "another's patient": {"subject": {"reference": "Patient/nobody"}},
        "another type": {"requester": {"reference": "Medication/1"}},
        "unknown meaning": {"modifierExtension": [{"url": "http://a.example", "valueString": "b"}]},
        "runs": {"text": {"status": "generated", "div": f'<div xmlns="{xhtml}"><p onclick="x()">y</p></div>'}},
        "runs as SVG": {"text": {"status": "generated", "div": f'<div xmlns="{xhtml}">{svg}</div>'}},
        "hides": {"text": {"status": "generated", "div": f'<div xmlns="{xhtml}"><a href="{hidden}">y</a></div>'}},
        "entities": {"text": {"status": "generated", "div": f'<!DOCTYPE d []><div xmlns="{xhtml}">y</div>'}},
        "no date": {"authoredOn": "2020-13-45"},
        "no element": {"nonsense": 1},
        "within": {"contained": [{"resourceType": "Patient"}]},
    }
    refused = {
        name: writable.http.post("/ServiceRequest", json=order | change, headers=JSON)
        for name, change in broken.items()
    }
    address = f"/Patient/{patient['id']}"
    xml = (
        f'<ServiceRequest xmlns="http://hl7.org/fhir"><status value="active"/><intent value="order"/>'
        f'<subject><reference value="Patient/{patient["id"]}"/></subject></ServiceRequest>'
    )
    by_xml = writable.http.post("/ServiceRequest", content=xml, headers={"Content-Type": "application/fhir+xml"})
    deep: dict[str, Any] = {"url": "http://a.example", "valueString": "b"}
    for _ in range(200):
        deep = {"url": "http://a.example", "extension": [deep]}
    others = {
        "nested": writable.http.post("/Patient", json=patient | {"extension": [deep]}, headers=JSON).status_code,
        "deep": writable.http.post("/Patient", content=b'{"a":' * 5000, headers=JSON).status_code,
        "large": writable.http.post("/Patient", content=b" " * (1 << 19), headers=JSON).status_code,
        "text": writable.http.post("/Patient", content=b"{}", headers={"Content-Type": "text/plain"}).status_code,
        "delete": writable.http.delete(address).status_code,
        "report": writable.http.post("/DiagnosticReport", json={}, headers=JSON).status_code,
    }

    assert (created.status_code, by_xml.status_code) == (201, 201)
    assert writable.http.get("/ServiceRequest", params={"subject": address[1:]}).json()["total"] >= 1
    assert {name: answer.status_code for name, answer in refused.items()} == dict.fromkeys(broken, 422)
    assert all(answer.json()["resourceType"] == "OperationOutcome" for answer in refused.values())
    assert others == {"nested": 422, "deep": 400, "large": 413, "text": 415, "delete": 405, "report": 405}


@pytest.mark.parametrize(
    ("element", "value"),
    [
        *(("birthDate", 0), ("deceasedDateTime", 3), ("active", "true"), ("birthDate", None)),
        *(("name", [{"family": None}]), ("name", [{"given": [""]}]), ("meta", {"lastUpdated": 5}), ("telecom", [{}])),
    ],
)
def test_what_json_does_not_say_as_fhir_does_is_refused(writable: Writable, element: str, value: object) -> None:
    """A number for a date, null, nothing at all: the models take them, the index could not; the element is named."""
    answer = writable.put(writable.patient() | {element: value})

    assert answer.status_code == 422
    assert element in answer.json()["issue"][0]["diagnostics"]


def test_primitives_may_have_extensions_alone(writable: Writable) -> None:
    """Null stands in an array of primitives where the array beside it says more (R4, 2.6.2.3)."""
    why = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}]}
    name = {"family": "Doe", "given": ["Jane", None], "_given": [None, why]}
    content = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "P-9"}], "name": [name]}

    answer = writable.http.post("/Patient", json=content | {"_birthDate": why}, headers=JSON)

    assert answer.status_code == 201, answer.text


def test_an_order_whose_subject_is_null_is_refused(writable: Writable) -> None:
    """Before anything looks at what the reference leads to."""
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": {"reference": None}}

    assert writable.http.post("/ServiceRequest", json=order, headers=JSON).status_code == 422


@pytest.mark.parametrize("endpoint", [[], True, 0])
def test_a_subscription_whose_endpoint_is_no_text_is_refused(writable: Writable, endpoint: object) -> None:
    """The models' own check fails on it with an error that is none of validation."""
    channel = {"type": "rest-hook", "endpoint": endpoint, "payload": "application/fhir+json"}
    content = {"resourceType": "Subscription", "status": "requested", "reason": "x", "criteria": "DiagnosticReport?"}

    answer = writable.http.post("/Subscription", json=content | {"channel": channel}, headers=JSON)

    assert answer.status_code == 422


def test_who_may_write(store: Store) -> None:
    """A SMART client writes what its scopes take, and of its own patient alone where it is bound to one."""

    def asked(caller: Caller, method: str, path: str, content: dict[str, Any]) -> int:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await server({**scope, "state": {"caller": caller}}, receive, send)

        with served(app) as http:
            return http.request(method, path, json=content, headers=JSON).status_code

    server = create_app(store, zone=UTC)
    renderer = FhirRenderer(installation_ids(store.data_dir), zone=UTC)
    cases.commit(store, cases.finished(cases.pneumonia()), renderer)
    with served(server) as http:
        patient = http.get("/Patient").json()["entry"][0]["resource"]
    reference = {"reference": f"Patient/{patient['id']}"}
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": reference}
    at = f"/Patient/{patient['id']}"
    reader = Caller("r", "smart", frozenset(), frozenset({"system/*.rs"}))
    writer = Caller("w", "smart", frozenset(), frozenset({"system/Patient.u", "system/ServiceRequest.c"}))
    other = Caller("o", "smart", frozenset(), frozenset({"patient/*.cruds"}), "someone-else")
    own = Caller("o", "smart", frozenset(), frozenset({"patient/*.cruds"}), patient["id"])

    callers = (reader, writer, other, own)

    assert [asked(each, "PUT", at, patient) for each in callers] == [403, 200, 403, 200]
    assert [asked(each, "POST", "/ServiceRequest", order) for each in callers] == [403, 201, 403, 201]
