"""The FHIR server over a real database: reading, versions, searching, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fhir_facade.app import create_app

from gateway.store import Store
from tests.unit.fhir import cases
from tests.unit.web.serving import served

MEDIA_TYPE = "application/fhir+json"
REPORTS = "/DiagnosticReport"
SECOND = "1.2.826.0.1.3680043.8.498.2"


URL_CHARACTERS = "=&%|:,._-+/'"
SEARCHES = {
    "": 3,
    "identifier=urn:dicom:uid|urn:oid:2.25.71": 3,
    "identifier=|urn:oid:2.25.71": 0,
    "identifier=urn:dicom:uid|": 3,
    "identifier=urn:nobody|": 0,
    "status=preliminary": 3,
    "status=final": 0,
    "status=final,preliminary": 3,
    "status=http://hl7.org/fhir/diagnostic-report-status|preliminary": 3,
    "status:not=preliminary": 0,
    "status=preliminary&status=final": 0,
    "modality=DX": 2,
    "modality=http://dicom.nema.org/resources/ontology/DCM|MR": 1,
    "code=http://loinc.org|30745-4": 2,
    "code=30745-4,25056-3": 3,
    "patient.identifier=P-17": 1,
    "patient.identifier=urn:oid:1.2.40|P-19": 1,
    "patient.identifier=HOSPITAL-A|P-17": 0,
    "subject:Patient.identifier=P-18,P-17": 2,
    "subject:Device.identifier=P-18": 0,
    "patient.name=mull": 2,
    "patient.name=MÜLLER": 2,
    "patient.name:contains=neil": 1,
    "patient.family=o'n": 1,
    "patient.family=%25": 0,
    "patient.nonsense=1": 3,
    "imagingStudy.modality=MR": 1,
    "imagingStudy.identifier=ACC-1": 3,
    "date=2026-03-01": 1,
    "date=2026-03": 2,
    "date=2026": 2,
    "date=ne2026-03-01": 1,
    "date=gt2026-03-01": 1,
    "date=ge2026-03-01": 2,
    "date=lt2026-03-02": 1,
    "date=le2026-03-02": 2,
    "date=sa2026-03-01T08:30:05Z": 1,
    "date=eb2026-03-02T08:30:05Z": 1,
    "date=ap2026-03-01": 2,
    "date=ge2026-03-01&date=lt2026-03-02": 1,
    "date=2026-03-01T08:30:05.250Z": 1,
    "date=2026-03-01T09:30:05.250%2B01:00": 1,
    "date=2026-03-01T09:30": 0,
    "date:missing=true": 1,
    "date:missing=false": 2,
    "issued=2026-03-02": 3,
    "_lastUpdated=ge2026-03-02T14:00:00Z": 3,
    "_lastUpdated=gt2026-03-02T14:00:00Z": 0,
    "_lastUpdated=2026-03-02T14:00:00.000Z": 3,
    "_lastUpdated=lt2026": 0,
    "_id=nobody": 0,
    "nonsense=1": 3,
    "status=": 3,
    "_format=json": 3,
    "identifier=' OR 1=1 --": 0,
}
ERRORS: list[tuple[str, dict[str, str], int, str]] = [
    ("GET /DiagnosticReport/nobody", {}, 404, "not-found"),
    ("GET /DiagnosticReport/n%20b", {}, 404, "not-found"),
    ("GET /DiagnosticReport/nobody/_history/1", {}, 404, "not-found"),
    ("GET /DiagnosticReport/nobody/_history/x", {}, 404, "not-found"),
    ("GET /Medication", {}, 404, "not-supported"),
    ("GET /Medication/1", {}, 404, "not-supported"),
    ("GET /a/b/c/d", {}, 404, "not-found"),
    ("GET /Binary?_id=1", {}, 404, "not-supported"),
    ("POST /Observation", {}, 405, "not-supported"),
    ("PUT /Observation/1", {}, 405, "not-supported"),
    ("DELETE /Patient/1", {}, 405, "not-supported"),
    ("GET /Patient", {"Accept": "text/turtle"}, 406, "not-supported"),
    ("GET /Patient", {"Accept": "application/json;q=0"}, 406, "not-supported"),
    ("GET /Patient?_format=turtle", {}, 406, "not-supported"),
    ("GET /metadata?_format=turtle", {}, 406, "not-supported"),
    ("GET /Patient?birthdate=yesterday", {}, 400, "invalid"),
    ("GET /Patient?birthdate=2024-13-01", {}, 400, "invalid"),
    ("GET /Patient?birthdate=9999-99-99", {}, 400, "invalid"),
    ("GET /Patient?_lastUpdated=xx2024", {}, 400, "invalid"),
    ("GET /Patient?_count=-1", {}, 400, "invalid"),
    ("GET /Patient?_count=many", {}, 400, "invalid"),
    ("GET /Patient?_page=bm9uc2Vuc2U", {}, 400, "invalid"),
    ("GET /Patient?_page=%C3%A4", {}, 400, "invalid"),
    ("GET /Patient?_sort=_id&_page=WzFd", {}, 400, "invalid"),
    ("GET /Patient?identifier=%00", {}, 400, "invalid"),
    ("GET /Patient?identifier:above=1", {}, 400, "not-supported"),
    ("GET /Patient?identifier:missing=perhaps", {}, 400, "invalid"),
    ("GET /Patient?_id=" + ",".join("a" * 500), {}, 400, "too-costly"),
    ("GET /Patient?" + "&".join(["_id=1"] * 150), {}, 400, "invalid"),
    ("POST /Patient/_search", {"Content-Type": "application/json", "X-Body": "{}"}, 415, "not-supported"),
]


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server over `store`."""
    with served(create_app(store, zone=UTC)) as made:
        yield made


@pytest.fixture
def filled(store: Store, client: httpx.Client) -> httpx.Client:
    """Give the client with three patients: a finding, one of the next day by another name, one not evaluable."""
    cases.commit(store, cases.finished(cases.pneumonia()))
    other = cases.study(study_instance_uid=SECOND, patient_id="P-18", patient_name="O'Neil^Bob", study_date="20260302")
    cases.commit(store, cases.finished(cases.pneumonia(), study=other, bundle="other"))
    third = cases.study(study_instance_uid="1.2.3", patient_id="P-19", patient_id_issuer="1.2.40", study_date="")
    mr = [cases.series(modality="MR")]
    cases.commit(store, cases.finished(cases.not_evaluable(), study=third, bundle="third", series=mr))
    return client


def found(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the resources of a searchset."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    return [entry["resource"] for entry in response.json().get("entry", [])]


def total(client: httpx.Client, address: str) -> int:
    """Return how many resources a search finds."""
    response = client.get(address)
    assert response.status_code == 200, response.text
    bundle = response.json()
    assert bundle["total"] == len(bundle.get("entry", []))
    return int(bundle["total"])


def outcome_code(response: httpx.Response) -> str:
    """Return the issue code of an OperationOutcome; '' where a response is none."""
    body = response.json()
    is_one = response.headers["content-type"] == MEDIA_TYPE and body["resourceType"] == "OperationOutcome"
    return str(body["issue"][0]["code"]) if is_one else ""


def test_a_report_is_found_by_its_patient(filled: httpx.Client) -> None:
    """The way of an EHR: patient by identifier, reports by patient, observations by reference."""
    (patient,) = found(filled.get("/Patient?identifier=P-17"))
    (report,) = found(filled.get(f"{REPORTS}?patient={patient['id']}"))
    observations = [filled.get(f"/{result['reference']}").json() for result in report["result"]]

    assert report["status"] == "preliminary"
    assert report["code"]["coding"][0]["code"] == "30745-4"
    assert [each.get("valueQuantity", {}).get("value") for each in observations] == [None, None, None, 1234.5]
    assert observations[0]["hasMember"] == [{"reference": f"Observation/{observations[1]['id']}"}]
    assert {each["subject"]["reference"] for each in (report, *observations)} == {f"Patient/{patient['id']}"}


def test_stored_bytes_are_served_as_they_lie(filled: httpx.Client) -> None:
    """Digits of decimals stay, in a read and within a searchset."""
    entry = filled.get("/Observation?code=pneumonia-kind&_count=1")
    resource_id = found(entry)[0]["id"]
    body = filled.get(f"/Observation/{resource_id}").content

    assert b'"value":90.0000' in body
    assert body in entry.content


def test_a_reprocess_is_a_new_version_of_the_same_report(store: Store, client: httpx.Client) -> None:
    """The second revision amends: same id, next version; what it no longer says is withdrawn; the first stays."""
    cases.commit(store, cases.finished(cases.pneumonia()))
    (first,) = found(client.get(REPORTS))
    cases.commit(store, cases.finished(cases.pneumonia(with_fine=False), revision=2))
    (second,) = found(client.get(REPORTS))

    assert (second["id"], second["status"], second["meta"]["versionId"]) == (first["id"], "amended", "2")
    assert client.get(f"{REPORTS}/{first['id']}/_history/1").json() == first
    withdrawn = found(client.get("/Observation?status=entered-in-error"))
    assert [each["code"]["text"] for each in withdrawn] == ["Kind of pneumonia"]
    assert withdrawn[0]["id"] not in json.dumps(second)
    revision = found(client.get(f"/Provenance?entity=DiagnosticReport/{first['id']}"))
    assert revision[0]["entity"][1]["what"] == {"reference": f"DiagnosticReport/{first['id']}/_history/1"}
    assert total(client, "/Patient") == 1
    assert found(client.get("/Patient"))[0]["meta"]["versionId"] == "1"


def test_a_withdrawn_observation_comes_back_under_its_id(store: Store, client: httpx.Client) -> None:
    """A third revision that says it again makes the withdrawn Observation preliminary once more."""
    cases.commit(store, cases.finished(cases.pneumonia()))
    cases.commit(store, cases.finished(cases.not_evaluable(), revision=2))
    cases.commit(store, cases.finished(cases.pneumonia(), revision=3))

    kinds = found(client.get("/Observation?code=pneumonia-kind"))

    assert [(each["status"], each["meta"]["versionId"]) for each in kinds] == [("preliminary", "3")]
    assert total(client, "/Observation?status=entered-in-error") == 1


def test_not_evaluable_is_said(filled: httpx.Client) -> None:
    """A study outside the declared input has a report that says so, and an Observation without a value."""
    (report,) = found(filled.get(f"{REPORTS}?modality=MR"))
    (observation,) = found(filled.get("/Observation?data-absent-reason=not-performed"))

    assert report["status"] == "preliminary"
    assert "not evaluable: lateral view, a frontal one was expected" in report["conclusion"]
    assert report["result"] == [{"reference": f"Observation/{observation['id']}"}]


def test_one_patient_over_many_studies_is_one_resource(store: Store, client: httpx.Client) -> None:
    """Studies of the same issuer and patient id share their Patient; another issuer's do not."""
    for number, issuer in enumerate(("HOSPITAL-A", "HOSPITAL-A", "HOSPITAL-B")):
        given = cases.study(study_instance_uid=f"1.2.3.{number}", patient_id_issuer=issuer)
        cases.commit(store, cases.finished(cases.pneumonia(), study=given, bundle=f"b{number}"))

    counts = sorted(total(client, f"{REPORTS}?patient={each['id']}") for each in found(client.get("/Patient")))

    assert counts == [1, 2]


def test_an_unchanged_resource_gets_no_new_version(store: Store) -> None:
    """Of a second job over the same study only report, observations and provenance are new."""
    cases.commit(store, cases.finished(cases.pneumonia()))

    written = cases.commit(store, cases.finished(cases.pneumonia(), bundle="other"))

    assert written == 6


def test_search(filled: httpx.Client) -> None:
    """Each form of each parameter finds what it should."""
    counts = {query: total(filled, f"{REPORTS}?{quote(query, safe=URL_CHARACTERS)}") for query in SEARCHES}

    assert counts == SEARCHES


def test_references_are_understood_bare_typed_and_absolute(filled: httpx.Client) -> None:
    """`patient` and `subject` take an id, a typed id and an address; another type finds nothing."""
    patient_id = found(filled.get("/Patient?identifier=P-17"))[0]["id"]
    forms = [patient_id, f"Patient/{patient_id}", f"http://gateway/fhir/Patient/{patient_id}", f"Device/{patient_id}"]

    assert [total(filled, f"{REPORTS}?subject={form}") for form in forms] == [1, 1, 1, 0]
    assert total(filled, f"{REPORTS}?patient:Patient={patient_id}") == 1
    assert total(filled, f"{REPORTS}?_id={','.join(each['id'] for each in found(filled.get(REPORTS)))}") == 3


def test_pages_hold_everything_once(filled: httpx.Client) -> None:
    """Following the next links in any order yields each resource once, as one large page does."""
    for sort in ("", "date", "-date", "_lastUpdated", "-_lastUpdated", "_id", "-_id", "status,-date"):
        whole, paged = whole_and_paged(filled, sort)

        assert paged == whole
        assert len(set(whole)) == len(whole) == 9


def whole_and_paged(filled: httpx.Client, sort: str) -> tuple[list[str], list[str]]:
    """Return the ids of one large page, and those of pages of two."""
    whole = [each["id"] for each in found(filled.get(f"/Observation?_sort={sort}"))]
    paged: list[str] = []
    address: str | None = f"/Observation?_sort={sort}&_count=2"
    while address is not None:
        response = filled.get(address)
        page = found(response)
        assert 0 < len(page) <= 2
        paged += [each["id"] for each in page]
        address = {link["relation"]: link["url"] for link in response.json()["link"]}.get("next")
    return whole, paged


def test_sorting_by_date(filled: httpx.Client) -> None:
    """`date` sorts the oldest first, `-date` the newest; studies without a date come last in both."""
    ascending = [each.get("effectiveDateTime", "") for each in found(filled.get(f"{REPORTS}?_sort=date"))]
    descending = [each.get("effectiveDateTime", "") for each in found(filled.get(f"{REPORTS}?_sort=-date"))]

    assert ascending == [*sorted(ascending[:2]), ""]
    assert descending == [*ascending[1::-1], ""]


def test_a_client_that_pages_misses_nothing_that_changes(store: Store, filled: httpx.Client) -> None:
    """A report amended between two pages is seen again at the end, and none is left out."""
    first = filled.get(f"{REPORTS}?_count=1")
    seen = [each["id"] for each in found(first)]
    cases.commit(store, cases.finished(cases.pneumonia(), revision=2))
    address = next(link["url"] for link in first.json()["link"] if link["relation"] == "next")
    seen += [each["id"] for each in found(filled.get(address.replace("_count=1", "_count=50")))]

    assert set(seen) == {each["id"] for each in found(filled.get(REPORTS))}


@pytest.mark.parametrize("query", ["_count=0", "_summary=count", "_count=0&_totalMethod=count"])
def test_counting_alone(filled: httpx.Client, query: str) -> None:
    """Only the total comes back."""
    bundle = filled.get(f"{REPORTS}?{query}").json()

    assert bundle["total"] == 3
    assert "entry" not in bundle


def test_the_self_link_says_what_was_understood(filled: httpx.Client) -> None:
    """Unknown parameters are left out; with `Prefer: handling=strict` they are an error."""
    query = f"{REPORTS}?status=preliminary&colour=red&_count=1"
    links = {link["relation"]: link["url"] for link in filled.get(query).json()["link"]}
    strict = filled.get(query, headers={"Prefer": "handling=strict"})

    assert links["self"] == f"{str(filled.base_url).rstrip('/')}/DiagnosticReport?status=preliminary&_count=1"
    assert strict.status_code == 400
    assert outcome_code(strict) == "not-supported"


def test_search_by_post(filled: httpx.Client) -> None:
    """Parameters in a form, and in the address beside it, count alike."""
    by_form = filled.post(f"{REPORTS}/_search", data={"patient.identifier": "P-17", "_count": "1"})
    by_both = filled.post(f"{REPORTS}/_search?modality=MR", data={"patient.identifier": "P-17"})
    empty = filled.post(f"{REPORTS}/_search")

    assert [len(found(each)) for each in (by_form, by_both, empty)] == [1, 0, 3]


def test_conditional_read(filled: httpx.Client) -> None:
    """ETag and Last-Modified are given, and a client that holds the version is told so."""
    address = f"{REPORTS}/{found(filled.get(REPORTS))[0]['id']}"
    first = filled.get(address)

    assert first.headers["etag"] == 'W/"1"'
    assert first.headers["last-modified"] == "Mon, 02 Mar 2026 14:00:00 GMT"
    assert filled.get(address, headers={"If-None-Match": 'W/"7", W/"1"'}).status_code == 304
    assert filled.get(address, headers={"If-None-Match": 'W/"2"'}).status_code == 200
    assert filled.get(address, headers={"If-Modified-Since": first.headers["last-modified"]}).status_code == 304
    assert filled.get(address, headers={"If-Modified-Since": "yesterday"}).status_code == 200


def test_every_error_is_an_outcome(client: httpx.Client) -> None:
    """Each refusal has its status and an OperationOutcome with the issue type that goes with it."""
    answers = []
    for request_line, headers, _status, _code in ERRORS:
        method, _, address = request_line.partition(" ")
        response = client.request(method, address, headers=headers, content=headers.get("X-Body"))
        answers.append((request_line, headers, response.status_code, outcome_code(response)))

    assert answers == ERRORS


def test_a_body_beyond_the_bounds_is_refused(client: httpx.Client) -> None:
    """A search form has its limit."""
    response = client.post("/Patient/_search", data={"identifier": "x" * 100_000})

    assert response.status_code == 413
    assert outcome_code(response) == "too-long"


def test_metadata_names_what_is_there(client: httpx.Client) -> None:
    """The CapabilityStatement lists each type with its search parameters, and every one of them is understood."""
    statement = client.get("/metadata").json()

    assert statement["fhirVersion"] == "4.0.1"
    values = {"date": "2024-01-01", "quantity": "1", "composite": "x$1"}
    for resource in statement["rest"][0]["resource"]:
        for parameter in resource.get("searchParam", []):
            value = values.get(parameter["type"], "x").replace(
                "x$1", "x$2024" if "date" in parameter["name"] else "x$1"
            )
            answer = client.get(
                f"/{resource['type']}?{parameter['name']}={value}&_count=1", headers={"Prefer": "handling=strict"}
            )
            assert answer.status_code == 200, answer.text
