"""SMART Backend Services: how a client gets a token, and what its scopes open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fhir_facade.app import create_app as create_fhir_app
from fhir_facade.security import security
from joserfc.jwk import ECKey

from gateway.store import Store
from gateway.store.access_clients import revoke_client
from gateway.web.access.assertion import Assertions
from gateway.web.access.keys import GivenKeys
from tests.access import (
    CLIENT_KEY,
    PUBLIC,
    TOKEN_URL,
    ask_token,
    assertion,
    ids,
    made_token,
    now_s,
    register,
    serving,
    smart,
    two_patients,
    types,
)

ALL = "system/*.rs"


@pytest.fixture
def client(sqlite_store: Store) -> Iterator[httpx.Client]:
    """Give a client of an application that knows the registered client 'app' and two patients."""
    register(sqlite_store, "app", ALL)
    two_patients(sqlite_store)
    with serving(sqlite_store) as made:
        yield made


def test_the_configuration_names_the_endpoint(client: httpx.Client) -> None:
    """Open to all, with the methods and algorithms that are taken."""
    found = client.get("/fhir/.well-known/smart-configuration").json()

    assert found["token_endpoint"] == TOKEN_URL
    assert found["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert {"client-confidential-asymmetric", "permission-v2"} <= set(found["capabilities"])


def test_a_token_is_given_once_for_an_assertion(store: Store) -> None:
    """The token works and is not to be stored; the same assertion is refused, by another process too."""
    register(store, "app", ALL)
    shown = assertion("app")
    with serving(store) as client:
        given = ask_token(client, shown, "system/Patient.rs system/Observation.read openid")
        bearer = {"Authorization": f"Bearer {given.json()['access_token']}"}
        read = client.get("/fhir/Patient", headers=bearer).status_code
        elsewhere = [
            client.get(path, headers=bearer).status_code for path in ("/worklist", "/metrics", "/dicomweb/studies")
        ]
        again = ask_token(client, shown, ALL)
    with serving(store) as other:
        elsewhere_again = ask_token(other, shown, ALL)

    assert given.status_code == 200
    assert given.headers["cache-control"] == "no-store"
    assert given.json()["token_type"].lower() == "bearer"
    assert given.json()["expires_in"] <= 300
    assert given.json()["scope"] == "system/Observation.read system/Patient.rs"
    assert (read, elsewhere) == (200, [403, 403, 403])
    assert [again.status_code, elsewhere_again.status_code] == [401, 401]
    assert again.json() == {"error": "invalid_client", "error_description": "the assertion was shown before"}


def test_assertions_that_prove_nothing(client: httpx.Client) -> None:
    """Over, too long, for others, of others, unsigned, by other keys and algorithms: none gets a token."""
    other = ECKey.generate_key("P-384", {"kid": "k1"})
    short = ECKey.generate_key("P-256", {"kid": "k1"})
    wrong = {
        "over": assertion("app", exp=now_s() - 60),
        "too long": assertion("app", exp=now_s() + 600),
        "no end": assertion("app", exp=None),
        "audience": assertion("app", aud="https://other.example/oauth/token"),
        "base as audience": assertion("app", aud=f"{PUBLIC}/fhir"),
        "subject": assertion("app", sub="other"),
        "no jti": assertion("app", jti=None),
        "long jti": assertion("app", jti="x" * 300),
        "not yet": assertion("app", nbf=now_s() + 120),
        "unknown client": assertion("nobody"),
        "another key": assertion("app", key=other),
        "another curve": assertion("app", key=short, alg="ES256"),
        "words": "a.b.c",
        "NUL": assertion("a\0b"),
    }
    answers = {name: ask_token(client, shown, ALL) for name, shown in list(wrong.items())}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(wrong, 401)
    assert {answer.json()["error"] for answer in answers.values()} == {"invalid_client"}


def test_requests_that_are_none(client: httpx.Client) -> None:
    """Each mistake has its error of RFC 6749."""
    found = [
        ask_token(client, assertion("app"), ALL, grant_type="authorization_code"),
        ask_token(client, assertion("app"), ALL, client_assertion_type="x"),
        ask_token(client, assertion("app"), "system/*.cruds openid"),
        ask_token(client, assertion("app"), ""),
        client.post("/oauth/token", json={"grant_type": "client_credentials"}),
        client.post("/oauth/token", content="a=1&a=2", headers={"Content-Type": "application/x-www-form-urlencoded"}),
    ]

    assert [answer.status_code for answer in found] == [400] * 6
    errors = [answer.json()["error"] for answer in found]
    assert errors[:4] == ["unsupported_grant_type", "invalid_request", "invalid_scope", "invalid_scope"]
    assert errors[4:] == ["invalid_request"] * 2


def test_a_revoked_client_gets_nothing_and_its_tokens_end(sqlite_store: Store) -> None:
    """The next process that looks refuses both."""
    register(sqlite_store, "app", ALL)
    with serving(sqlite_store) as client:
        bearer = smart(client, "app", ALL)
        with sqlite_store.write() as connection:
            revoke_client(connection, "app", datetime.now(UTC))
        refused = ask_token(client, assertion("app"), ALL)
    with serving(sqlite_store) as client:
        old = client.get("/fhir/Patient", headers=bearer)

    assert (refused.status_code, old.status_code) == (401, 401)


def test_scopes_open_types_and_interactions(client: httpx.Client, sqlite_store: Store) -> None:
    """By type and letter, in reads, searches, chains, includes and over all types; what is not opened says so."""
    reports = smart(client, "app", "system/DiagnosticReport.rs")
    searching = smart(client, "app", "system/DiagnosticReport.s")
    found = client.get("/fhir/DiagnosticReport?_include=*&_include=DiagnosticReport:subject", headers=reports).json()
    report = next(iter(ids(found)))

    def status(address: str, headers: Mapping[str, str] = reports) -> int:
        return client.get(f"/fhir/{address}", headers=dict(headers)).status_code

    assert types(found) == {"DiagnosticReport"}
    assert status(report) == status(f"{report}/_history/1") == 200
    assert status(report, searching) == 403
    assert status("DiagnosticReport", searching) == 200
    assert status("Patient") == status("Patient/x") == status("Observation?_count=0") == 403
    assert status("DiagnosticReport?patient.identifier=P-17") == 403
    assert status("Patient?_has:Observation:patient:code=x", smart(client, "app", "system/Patient.rs")) == 403
    assert types(client.get("/fhir/?_type=DiagnosticReport,Patient", headers=reports).json()) == {"DiagnosticReport"}
    assert client.post("/fhir/DiagnosticReport/_search", headers=reports).status_code == 200
    assert client.post("/fhir/Patient/_search", headers=reports).status_code == 403
    patient = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "P-99"}]}
    assert client.post("/fhir/Patient", json=patient, headers=reports).status_code == 403
    assert status("Patient/x/$everything") == status("$export", reports | {"Prefer": "respond-async"}) == 403
    refused = client.get("/fhir/Patient", headers=reports).json()
    assert refused["issue"][0]["diagnostics"] == "no scope of this caller takes Patient.s"
    both = made_token(sqlite_store, "person", "viewer", scopes=["user/Patient.r"])
    assert status("DiagnosticReport", both) == 403


def test_entries_of_a_batch_are_looked_at_one_by_one(client: httpx.Client) -> None:
    """Each as if it were asked alone: the scopes hold for it, and none of them writes."""
    bearer = smart(client, "app", "system/DiagnosticReport.rs")
    asked = [
        {"method": "GET", "url": "DiagnosticReport?_count=1"},
        {"method": "GET", "url": "Patient"},
        {"method": "GET", "url": "Subscription/$status"},
        {"method": "GET", "url": "Patient/x/$everything"},
        {"method": "DELETE", "url": "Subscription/x"},
    ]
    entries: list[dict[str, Any]] = [{"request": each} for each in asked]
    entries.append({"request": {"method": "POST", "url": "Patient"}, "resource": {"resourceType": "Patient"}})
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    answer = client.post("/fhir/", json=bundle, headers=bearer)

    assert answer.status_code == 200, answer.text
    assert [each["response"]["status"][:3] for each in answer.json()["entry"]] == ["200"] + ["403"] * 5


def test_the_capability_statement_tells_of_the_token_endpoint(sqlite_store: Store) -> None:
    """As clients of SMART look for it there."""
    fhir = create_fhir_app(sqlite_store, security=security(token_url=TOKEN_URL, has_cors=True))
    with serving(sqlite_store, fhir=fhir) as client:
        said = client.get("/fhir/metadata").json()["rest"][0]["security"]

    assert said["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"
    assert said["extension"][0]["extension"] == [{"url": "token", "valueUri": TOKEN_URL}]
    assert said["cors"] is True


def test_a_token_of_one_patient_sees_that_patient_alone(store: Store) -> None:
    """In reads, versions, searches, totals, includes, reverse includes, chains and compartments."""
    mine, other = two_patients(store)
    register(store, "app", "patient/*.rs", patient=mine)
    with serving(store) as client:
        bearer = smart(client, "app", "patient/*.rs")
        everybody = made_token(store, "all", "viewer")

        def bundle(address: str, headers: dict[str, str] = bearer) -> dict[str, Any]:
            answer = client.get(f"/fhir/{address}", headers=headers)
            assert answer.status_code == 200, (address, answer.text)
            return dict(answer.json())

        def status(address: str) -> int:
            return client.get(f"/fhir/{address}", headers=bearer).status_code

        known = ids(bundle("?_type=Patient,DiagnosticReport,Observation,ImagingStudy&_count=500", everybody))
        seen = ids(bundle("?_type=Patient,DiagnosticReport,Observation,ImagingStudy&_count=500"))
        hidden = known - seen

        assert f"Patient/{mine}" in seen
        assert f"Patient/{other}" in hidden
        assert len(seen) == len(hidden)
        assert {status(each) for each in seen} == {200}
        assert {status(each) for each in hidden} == {404}
        assert {status(f"{each}/_history/1") for each in hidden} == {404}
        assert {status(f"{each}/_history") for each in hidden} == {404}
        assert {status(f"{each}/_history") for each in seen} == {200}
        for each in ("Patient", "DiagnosticReport", "Observation", "ImagingStudy", "Provenance"):
            assert not ids(bundle(f"{each}?_count=500")) & hidden, each
        assert bundle("Patient?_summary=count")["total"] == 1
        assert bundle(f"DiagnosticReport?subject=Patient/{other}&_total=accurate")["total"] == 0
        assert bundle(f"Patient/{other}/Observation")["total"] == 0
        assert f"Patient/{mine}" in ids(bundle(f"Patient/{mine}/$everything?_count=500"))
        assert status(f"Patient/{other}/$everything") == 404
        assert not ids(bundle("_history?_count=500")) & hidden
        assert not ids(bundle("Device?_revinclude=Observation:device&_revinclude=Media:device")) & hidden
        assert not ids(bundle("DiagnosticReport?_include=DiagnosticReport:subject")) & hidden
        assert status(f"Device?_has:Observation:device:subject=Patient/{other}") == 403
        assert status(f"Provenance?agent:Device._has:Provenance:agent:patient=Patient/{other}") == 403
        assert json.dumps(bundle("?_type=Patient,DiagnosticReport")).find("Stranger") == -1


def test_a_patient_scope_without_a_patient_opens_nothing(sqlite_store: Store) -> None:
    """Whose resources it opens, nobody said."""
    two_patients(sqlite_store)
    bearer = made_token(sqlite_store, "app", scopes=["patient/*.rs"])
    with serving(sqlite_store) as client:
        statuses = [client.get(f"/fhir/{each}", headers=bearer).status_code for each in ("Patient", "?_type=Patient")]

    assert statuses == [403, 403]


def test_keys_at_an_address(sqlite_store: Store) -> None:
    """A client's keys are fetched from where it said, and kept."""
    asked: list[str] = []

    def fetch(address: str) -> Mapping[str, Any]:
        asked.append(address)
        return {"keys": [CLIENT_KEY.as_dict(private=False)]}

    register(sqlite_store, "app", ALL, jwks=None, jwks_url="https://app.example/keys")
    assertions = Assertions(sqlite_store, fetch, lambda: datetime.now(UTC))
    for _ in range(3):
        assert assertions.check(assertion("app"), TOKEN_URL).id == "app"

    assert asked == ["https://app.example/keys"]
    assert GivenKeys(fetch("x")).find("k1") is not None
