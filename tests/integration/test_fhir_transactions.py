"""Transactions that write: patients and orders together, or nothing of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app

from gateway.store import Store
from gateway.store.tables import fhir_resource
from tests import fhir_made as made
from tests.access import made_token, serving
from tests.unit.fhir.node import complaints
from tests.unit.web.serving import served

JSON = {"Content-Type": "application/fhir+json"}
NEW = "urn:uuid:6b9fbe0c-8d8a-4f0e-9a6e-3a4a2f1f0c55"


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of an empty server."""
    with served(create_app(store, zone=UTC)) as opened:
        yield opened


def patient(number: str) -> dict[str, Any]:
    """Return a patient as a hospital knows it."""
    identifier = {"system": "urn:oid:1.2.40", "value": number}
    return {"resourceType": "Patient", "identifier": [identifier], "name": [{"family": "Curie"}]}


def order(subject: str, **values: Any) -> dict[str, Any]:
    """Return an order."""
    quantity = {"value": 0.5, "unit": "mL"}
    head = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "quantityQuantity": quantity}
    return head | {"subject": {"reference": subject}} | values


def entry(resource: dict[str, Any], method: str = "POST", url: str = "", **values: Any) -> dict[str, Any]:
    """Return an entry; `values` are those of its request, but for fullUrl."""
    full_url = {"fullUrl": values.pop("fullUrl")} if "fullUrl" in values else {}
    return full_url | {
        "resource": resource,
        "request": {"method": method, "url": url or resource["resourceType"], **values},
    }


def post(client: httpx.Client, *entries: dict[str, Any], **headers: str) -> httpx.Response:
    """Post a transaction."""
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}
    return client.post("/", json=bundle, headers=JSON | headers)


def held(store: Store) -> int:
    """Return how many versions of anything there are."""
    with store.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(fhir_resource)) or 0


def test_patient_and_order_are_written_together(client: httpx.Client, tmp_path: Path) -> None:
    """The order comes first and names the patient by its fullUrl; sent again on condition, nothing is made twice."""
    number = "identifier=urn:oid:1.2.40|N-1"
    entries = (
        entry(order(NEW, identifier=[{"system": "urn:x", "value": "O-1"}]), ifNoneExist="identifier=urn:x|O-1"),
        entry(patient("N-1"), fullUrl=NEW, ifNoneExist=number),
    )
    first, again = post(client, *entries), post(client, *entries)
    made_order, made_patient = (each["resource"] for each in first.json()["entry"])

    assert [each["response"]["status"] for each in first.json()["entry"]] == ["201 Created", "201 Created"]
    assert made_order["subject"]["reference"] == f"Patient/{made_patient['id']}"
    assert client.get(f"/ServiceRequest?subject.{number}").json()["total"] == 1
    assert [each["response"]["status"] for each in again.json()["entry"]] == ["200 OK", "200 OK"]
    assert [each["resource"]["id"] for each in again.json()["entry"]] == [made_order["id"], made_patient["id"]]
    assert complaints([first.json()], tmp_path) == []


def test_what_fails_leaves_nothing(store: Store, client: httpx.Client) -> None:
    """Whichever entry it is: the answer names it, with the status that it would have by itself."""
    made.write(store, [made.patient(1)])
    before = held(store)
    fine = entry(patient("N-1"), fullUrl=NEW)
    shown = client.get("/Patient/pat-1").json()
    refusals = [
        (entry(order("Patient/nobody")), 422),
        (entry(order(NEW, intent="wish")), 422),
        (entry({"resourceType": "Patient"}), 422),
        (entry(patient("N-1")), 409),
        (entry(shown, "PUT", "Patient/pat-1", ifMatch='W/"7"'), 412),
        (entry(shown | {"id": "other"}, "PUT", "Patient/pat-1"), 400),
        (entry(patient("N-2") | {"id": "x"}, "PUT", "Patient/x"), 405),
        (entry(shown, "DELETE", "Patient/pat-1"), 400),
        (entry({"resourceType": "Observation"}), 400),
        ({"request": {"method": "GET", "url": "Patient/pat-1"}}, 400),
        ({"request": {"method": "POST", "url": "Patient"}}, 400),
        (entry(patient("N-3"), ifNoneExist="nonsense=1"), 400),
    ]

    for refused, status in refusals:
        answer = post(client, fine, refused)
        assert (answer.status_code, answer.json()["resourceType"]) == (status, "OperationOutcome"), answer.text
        assert answer.json()["issue"][0]["diagnostics"].startswith("entry 1 of the transaction"), answer.text
        assert held(store) == before, refused


def test_many_at_once_make_one_of_each(client: httpx.Client) -> None:
    """The same patients in any order, on condition: nobody waits in a circle, and each is there once."""
    numbers = [f"N-{at}" for at in range(4)]
    entries = [entry(patient(each), ifNoneExist=f"identifier=urn:oid:1.2.40|{each}") for each in numbers]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda at: post(client, *(entries if at % 2 else entries[::-1])), range(6)))

    assert {answer.status_code for answer in answers} == {200}
    assert client.get("/Patient").json()["total"] == 4


def test_what_is_asked_for_comes_back(client: httpx.Client) -> None:
    """`Prefer: return` as for single writes."""
    minimal = post(client, entry(patient("N-1")), Prefer="return=minimal").json()["entry"][0]
    told = post(client, entry(patient("N-2")), Prefer="return=OperationOutcome").json()["entry"][0]

    assert "resource" not in minimal
    assert minimal["response"]["etag"] == 'W/"1"'
    assert told["response"]["outcome"]["resourceType"] == "OperationOutcome"


def test_scopes_hold_within_a_transaction(store: Store) -> None:
    """Who may create patients and no orders writes neither in one transaction."""
    bearer = made_token(store, "app", "integrator", scopes=["system/Patient.cruds"])
    entries = [entry(patient("N-1"), fullUrl=NEW), entry(order(NEW))]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    with serving(store) as client:
        refused = client.post("/fhir/", json=bundle, headers=bearer | JSON)
        alone = client.post("/fhir/Patient", json=patient("N-1"), headers=bearer | JSON)

    assert refused.status_code == 403
    assert alone.status_code == 201
