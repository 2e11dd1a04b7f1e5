"""History, batches, operations and bulk export of the FHIR server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fhir_facade.app import create_app
from fhir_facade.outcome import TooCostlyError
from fhir_facade.routes.batch import _Answer

from gateway.store import Store
from gateway.store.fhir_exports import add_export, claim_export
from gateway.store.results import delete_resource
from tests import fhir_made as made
from tests.unit.web.serving import served

JSON = {"Content-Type": "application/fhir+json"}
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server with three patients, their results, and a second version of the first report."""
    made.fill(store, 3)
    made.write(store, [made.report(1, status="amended")], made.later(1))
    with served(create_app(store, zone=UTC)) as opened:
        yield opened


def entries(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the entries of a Bundle."""
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json().get("entry", [])
    return found


def keys(response: httpx.Response) -> list[str]:
    """Return type and id of each resource in a Bundle."""
    resources = (each["resource"] for each in entries(response))
    return [f"{each['resourceType']}/{each['id']}" for each in resources]


def following(response: httpx.Response) -> str | None:
    """Return the address of the next page."""
    links = {each["relation"]: each["url"] for each in response.json()["link"]}
    return links.get("next")


def outcome_code(response: httpx.Response) -> str:
    """Return the issue type of an OperationOutcome."""
    body = response.json()
    assert body["resourceType"] == "OperationOutcome"
    return str(body["issue"][0]["code"])


def test_history_tells_every_version_newest_first(store: Store, client: httpx.Client) -> None:
    """Of an instance, a type and the whole server, in pages, since a time and at a time; and of what was deleted."""
    one = client.get("/DiagnosticReport/rep-1/_history")
    with store.write() as connection:
        assert delete_resource(connection, "DiagnosticReport", "rep-2", made.later(2))
        assert not delete_resource(connection, "DiagnosticReport", "rep-2", made.later(3))
    of_type = client.get("/DiagnosticReport/_history")
    pages, address = [], "/DiagnosticReport/_history?_count=2"
    while address:
        page = client.get(address)
        pages += entries(page)
        address = following(page) or ""

    assert [each["response"]["etag"] for each in entries(one)] == ['W/"2"', 'W/"1"']
    assert [each["request"]["method"] for each in entries(of_type)] == ["DELETE", "PUT", "POST", "POST", "POST"]
    assert "resource" not in entries(of_type)[0]
    assert pages == entries(of_type)
    assert len(entries(client.get("/_history"))) == 15
    assert len(entries(client.get("/_history?_since=2026-03-02T14:00:00Z"))) == 2
    assert [
        each["response"]["etag"]
        for each in entries(client.get("/DiagnosticReport/rep-1/_history?_at=2026-03-02T13:30:00Z"))
    ] == ['W/"1"']
    assert client.get("/DiagnosticReport/nobody/_history").status_code == 404
    assert outcome_code(client.get("/_history?_since=yesterday")) == "invalid"


def test_what_was_deleted_is_gone_but_not_forgotten(store: Store, client: httpx.Client) -> None:
    """410 for the resource and its last version; earlier versions stay, searches and includes leave it out."""
    with store.write() as connection:
        delete_resource(connection, "Patient", "pat-1", made.later(2))

    assert outcome_code(client.get("/Patient/pat-1")) == "deleted"
    assert [client.get(f"/Patient/pat-1{tail}").status_code for tail in ("", "/_history/2", "/_history/1")] == [
        410,
        410,
        200,
    ]
    assert "Patient/pat-1" not in keys(client.get("/Patient"))
    assert keys(client.get("/DiagnosticReport?_id=rep-1&_include=DiagnosticReport:subject")) == [
        "DiagnosticReport/rep-1"
    ]
    made.write(store, [made.patient(1)], made.later(3))
    assert client.get("/Patient/pat-1").json()["meta"]["versionId"] == "3"


def bundle(kind: str, *requests: tuple[str, str]) -> bytes:
    """Return a Bundle that asks for these."""
    asked = [{"request": {"method": method, "url": url}} for method, url in requests]
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": asked}).encode()


def test_a_batch_answers_each_entry_by_itself(client: httpx.Client) -> None:
    """Reads, searches, conditional reads and mistakes, in the order they came."""
    asked = json.loads(
        bundle("batch", ("GET", "Patient/pat-1"), ("GET", "/Patient?name=anna&_count=1"), ("GET", "Patient/nobody"))
    )
    asked["entry"].append({"request": {"method": "GET", "url": "Patient/pat-1", "ifNoneMatch": 'W/"1"'}})
    asked["entry"].append({"request": {"method": "DELETE", "url": "Device/algorithm"}})
    response = client.post("/", content=json.dumps(asked), headers=JSON)
    found = entries(response)

    assert response.json()["type"] == "batch-response"
    assert [each["response"]["status"][:3] for each in found] == ["200", "200", "404", "304", "405"]
    assert found[0]["resource"]["id"] == "pat-1"
    assert found[0]["response"]["etag"] == 'W/"1"'
    assert found[1]["resource"]["type"] == "searchset"
    assert found[2]["response"]["outcome"]["issue"][0]["code"] == "not-found"


def test_an_answer_to_an_entry_is_not_gathered_beyond_the_bound() -> None:
    """Of the file of an export, which may be larger than the memory."""
    part, got = {"type": "http.response.body", "body": bytes(1 << 20), "more_body": True}, _Answer()

    async def take(parts: int) -> None:
        for _ in range(parts):
            await got.send(part)

    with pytest.raises(TooCostlyError):
        asyncio.run(take(66))


def test_a_transaction_answers_whole_or_not_at_all(client: httpx.Client) -> None:
    """One that reads is answered; one that fails or writes is refused as a whole; what is none is an error."""
    good = client.post("/", content=bundle("transaction", ("GET", "Patient/pat-1"), ("GET", "Device")), headers=JSON)
    failing = client.post("/", content=bundle("transaction", ("GET", "Device"), ("GET", "Device/no")), headers=JSON)
    writing = client.post("/", content=bundle("transaction", ("DELETE", "Patient/pat-1")), headers=JSON)
    wrong = [
        b"",
        b"[]",
        b"{}",
        bundle("message"),
        bundle("batch", ("BREW", "x")),
        bundle("batch", ("GET", "http://x/y")),
    ]
    wrong += [bundle("batch", ("POST", "")), b'{"resourceType":"Bundle","type":"batch","entry":[1]}']

    assert good.json()["type"] == "transaction-response"
    assert len(entries(good)) == 2
    assert (failing.status_code, outcome_code(failing)) == (404, "processing")
    assert (writing.status_code, outcome_code(writing)) == (400, "not-supported")
    assert {client.post("/", content=each, headers=JSON).status_code for each in wrong} == {400}
    assert client.post("/", content=b"<Bundle/>", headers={"Content-Type": "text/xml"}).status_code == 415
    assert (
        outcome_code(client.post("/", content=bundle("batch", *[("GET", "Device")] * 101), headers=JSON))
        == "too-costly"
    )


def test_everything_about_a_patient_comes_in_pages(client: httpx.Client) -> None:
    """The patient, what belongs to it, and the devices that are referred to; nothing of others."""
    whole = keys(client.get("/Patient/pat-1/$everything"))
    paged: list[str] = []
    address: str | None = "/Patient/pat-1/$everything?_count=1"
    while address is not None:
        page = client.get(address)
        paged += keys(page)
        address = following(page)
    posted = {"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Observation"}]}

    assert sorted(whole) == [
        "Device/algorithm",
        "DiagnosticReport/rep-1",
        "ImagingStudy/img-1",
        "Observation/obs-1",
        "Patient/pat-1",
    ]
    assert sorted(paged) == sorted(whole)
    assert keys(client.post("/Patient/pat-1/$everything", json=posted)) == ["Observation/obs-1"]
    assert keys(client.get("/Patient/pat-1/$everything?_since=2026-03-02T14:00:00Z")) == ["DiagnosticReport/rep-1"]
    assert keys(client.get("/Patient/pat-1/$everything?start=2027-01-01&_type=Patient,Observation")) == [
        "Patient/pat-1"
    ]
    assert client.get("/Patient/nobody/$everything").status_code == 404
    assert client.get("/Patient/pat-1/$everything?_type=Medication").status_code == 400


def test_the_latest_report_of_each_study(store: Store, client: httpx.Client) -> None:
    """Of two reports on a study the one that was written last; with the parameters of any search; and defined."""
    made.write(
        store, [made.report(7, imagingStudy=[{"reference": "ImagingStudy/img-2"}], status="final")], made.later(2)
    )
    latest = keys(client.get("/DiagnosticReport/$latest-per-study"))
    defined = client.get("/OperationDefinition/latest-per-study").json()
    own = client.get("/SearchParameter?base=DiagnosticReport&code=imagingStudy")

    assert sorted(latest) == [f"DiagnosticReport/rep-{number}" for number in (1, 3, 7)]
    assert keys(client.get("/DiagnosticReport/$latest-per-study?status=final")) == [
        f"DiagnosticReport/rep-{number}" for number in (3, 7)
    ]
    assert (defined["resourceType"], defined["resource"]) == ("OperationDefinition", ["DiagnosticReport"])
    assert client.get(f"/{keys(own)[0]}").json()["expression"] == "DiagnosticReport.imagingStudy"
    assert client.get("/SearchParameter/nobody").status_code == 404


def exported(client: httpx.Client, address: str) -> tuple[httpx.Response, str]:
    """Ask for an export and wait for it; return the manifest and the address of its state."""
    begun = client.get(address, headers=ASYNC)
    assert begun.status_code == 202, begun.text
    state = begun.headers["content-location"]
    return ended(client, state), state


def ended(client: httpx.Client, state: str) -> httpx.Response:
    """Wait for an export and return its manifest."""
    for _ in range(3000):
        response = client.get(state)
        if response.status_code != 202:
            return response
        assert response.headers["retry-after"].isdecimal()
        assert response.headers["x-progress"]
        time.sleep(0.01)
    raise AssertionError("the export does not end")


def test_bulk_export(client: httpx.Client) -> None:
    """Kick-off, state, files that hold each current resource once, deletion; by type and since a time."""
    manifest, state = exported(client, "/$export")
    files = {each["type"]: each for each in manifest.json()["output"]}
    lines = [json.loads(line) for line in client.get(files["DiagnosticReport"]["url"]).text.splitlines()]
    of_patients = exported(client, "/Patient/$export?_type=Observation,Patient&_outputFormat=ndjson")[0].json()[
        "output"
    ]
    recent = exported(client, "/$export?_since=2026-03-02T13:30:00Z")[0].json()["output"]
    gone = client.delete(state)

    assert sorted(files) == ["Device", "DiagnosticReport", "ImagingStudy", "Observation", "Patient"]
    assert [(each["id"], each["status"]) for each in lines] == [
        ("rep-2", "preliminary"),
        ("rep-3", "final"),
        ("rep-1", "amended"),
    ]
    assert {each["type"]: each["count"] for each in of_patients} == {"Patient": 3, "Observation": 3}
    assert [(each["type"], each["count"]) for each in recent] == [("DiagnosticReport", 1)]
    assert (gone.status_code, client.get(state).status_code) == (202, 404)
    assert client.get(files["Patient"]["url"]).status_code == 404


def test_exports_that_are_refused(client: httpx.Client) -> None:
    """Each mistake has its status and an OperationOutcome."""
    answers = [
        client.get("/$export").status_code,
        client.get("/$export?_type=Medication", headers=ASYNC).status_code,
        client.get("/$export?_since=yesterday", headers=ASYNC).status_code,
        client.get("/$export?_outputFormat=text/csv", headers=ASYNC).status_code,
        client.get("/$export/nobody").status_code,
        client.get("/$export/nobody/Patient.ndjson").status_code,
    ]

    assert answers == [400, 400, 400, 400, 404, 404]


def test_an_export_whose_process_died_is_written_by_another(store: Store, client: httpx.Client) -> None:
    """A row that nobody has touched for long is taken over by whoever is asked for it."""
    silent_since = datetime.now(UTC) - timedelta(minutes=10)
    asked = {"request": "http://x/$export", "owner": None, "types": ["Patient"], "patients_only": False, "since": None}
    with store.write() as connection:
        export_id = add_export(connection, silent_since, most_open=9, **asked)
        claimed = claim_export(connection, silent_since, timedelta(minutes=2))

    manifest = ended(client, f"/$export/{export_id}")

    assert claimed is not None
    assert manifest.json()["output"][0]["count"] == 3


def test_metadata_is_true(client: httpx.Client) -> None:
    """What the CapabilityStatement lists is there: parameters, includes both ways, operations; also by HEAD."""
    statement = client.get("/metadata").json()
    rest = statement["rest"][0]
    strict = {"Prefer": "handling=strict"}
    for resource in rest["resource"]:
        for kind in ("Include", "RevInclude"):
            for value in resource.get(f"search{kind}", [])[:3] if resource["type"] != "Binary" else []:
                address = f"/{resource['type']}?_{kind.lower()}={value}&_count=1"
                assert client.get(address, headers=strict).status_code == 200, address

    assert statement["fhirVersion"] == "4.0.1"
    assert {each["code"] for each in rest["interaction"]} == {"batch", "transaction", "history-system", "search-system"}
    operations = {each["name"] for resource in rest["resource"] for each in resource.get("operation", [])}
    assert operations >= {"everything", "export", "latest-per-study"}
    assert client.head("/metadata").content == b""
    assert client.options("/Patient").headers["allow"].endswith("OPTIONS")


def test_long_answers_are_compressed_for_who_takes_it(client: httpx.Client) -> None:
    """Gzip where it is accepted and worth it; not for short answers."""
    long = client.get("/DiagnosticReport", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/DiagnosticReport", headers={"Accept-Encoding": "identity"})

    assert long.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert long.json() == plain.json()
