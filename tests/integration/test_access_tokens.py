"""Tokens made by command, and the roles that they have."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from fhir_facade.audit_event import AuditEventRenderer
from typer.testing import CliRunner

from gateway.audit.chain import ChainKey
from gateway.audit.dicom_xml import AuditSource
from gateway.audit.keeper import AuditKeeper
from gateway.audit.lines import append
from gateway.cli.app import app
from gateway.errors import ConflictError, NotFoundError
from gateway.store import Store
from gateway.store.access import Grant, add_token, find_grant, list_tokens, new_token, revoke_token, token_digest
from gateway.store.sessions import SessionRow, add_session
from gateway.store.tables import access_token
from gateway.web.access.limits import Rates
from gateway.web.auth import Access
from gateway.web.session import COOKIE
from tests.access import made_token, serving, two_patients, types
from tests.auditing import every_act
from tests.unit.fhir import cases

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings_of_store(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Let the commands find the store."""
    monkeypatch.setenv("HYBRIDMED_CONFIG", os.devnull)
    monkeypatch.setenv("HYBRIDMED_DATA_DIR", str(sqlite_store.data_dir))
    return sqlite_store


def grant(name: str = "reader", *, until: datetime = NOW + timedelta(days=1)) -> Grant:
    """Return what a token allows."""
    return Grant("token", name, ["viewer"], None, None, until)


def test_a_token_is_found_by_its_digest_until_it_is_over(store: Store) -> None:
    """Not before, not after, not once revoked; a name is given again only then."""
    token = new_token("token")
    digest = token_digest(token)
    with store.write() as connection:
        add_token(connection, token, grant(), NOW)
    with store.read() as connection:
        found = find_grant(connection, digest, NOW)
        assert (found and found.name, found and list(found.roles)) == ("reader", ["viewer"])
        assert find_grant(connection, digest, NOW + timedelta(days=1)) is None
        assert find_grant(connection, token_digest(new_token("token")), NOW) is None
        kept = connection.execute(sa.select(access_token)).one()
    assert token not in str(kept)
    with pytest.raises(ConflictError), store.write() as connection:
        add_token(connection, new_token("token"), grant(), NOW)
    with store.write() as connection:
        revoke_token(connection, "reader", NOW)
    with store.write() as connection:
        assert find_grant(connection, digest, NOW) is None
        add_token(connection, new_token("token"), grant(), NOW)
    with pytest.raises(NotFoundError), store.write() as connection:
        revoke_token(connection, "nobody", NOW)


def test_what_each_role_may(store: Store) -> None:
    """Each may what is its own, and is told in a sentence what is not; whoever is nobody may nothing."""
    doing = {
        role: made_token(store, f"{role} token", role) for role in ("viewer", "verifier", "operator", "integrator")
    }
    asked = {
        ("GET", "/worklist"): {"viewer", "verifier", "operator"},
        ("GET", "/metrics"): {"operator", "integrator"},
        ("GET", "/fhir/Patient"): {"viewer", "verifier", "operator", "integrator"},
        ("GET", "/fhir/AuditEvent"): {"operator", "integrator"},
        ("GET", "/dicomweb/studies"): {"viewer", "verifier", "operator", "integrator"},
        ("POST", "/dicomweb/studies"): {"integrator"},
        ("DELETE", "/dicomweb/studies/1.2"): {"operator"},
        ("POST", "/fhir/Subscription"): {"integrator"},
    }
    with serving(store) as client:
        for (method, path), roles in asked.items():
            for role, bearer in doing.items():
                answer = client.request(method, path, headers=bearer)
                assert (answer.status_code == 403) == (role not in roles), (method, path, role, answer.status_code)
            assert client.request(method, path).status_code == 401
        outcome = client.post("/fhir/Subscription", headers=doing["viewer"]).json()
        page = client.post("/studies/1.2/verify", headers=doing["viewer"]).json()
        nowhere = [client.get("/nowhere", headers=bearer).status_code for bearer in doing.values()]
        open_to_all = [client.get(path).status_code for path in ("/fhir/metadata", "/healthz", "/login")]

    assert outcome["issue"][0]["code"] == "forbidden"
    assert outcome["issue"][0]["diagnostics"] == "this needs the role integrator; this caller has viewer"
    assert page["error"] == "this needs the role verifier; this caller has viewer"
    assert nowhere == [404] * 4
    assert open_to_all == [200, 200, 200]


def test_the_audit_trail_reaches_no_viewer(sqlite_store: Store) -> None:
    """Neither by a search of all types nor by histories, includes, operations, compartments, `_has` and batches."""
    mine, _ = two_patients(sqlite_store)
    with sqlite_store.write() as connection:
        append(connection, every_act(), ChainKey())
    AuditKeeper(sqlite_store, ChainKey(), AuditEventRenderer(cases.RENDERER.ids, AuditSource("HM", "H"), UTC)).turn()
    shown = ["?_count=500", "_history?_count=500", f"Patient/{mine}/$everything?_count=500", f"Patient/{mine}/*"]
    shown += [
        "Patient?_revinclude=AuditEvent:patient",
        "Patient?_revinclude=AuditEvent:*",
        "Device?_revinclude=AuditEvent:*",
    ]
    refused = ["AuditEvent", "?_type=AuditEvent", f"Patient/{mine}/AuditEvent"]
    refused += ["Patient?_has:AuditEvent:patient:date=gt2000", "AuditEvent/_history"]
    with serving(sqlite_store) as client:
        viewer, operator = (made_token(sqlite_store, role, role) for role in ("viewer", "operator"))
        assert "AuditEvent" in types(client.get("/fhir/_history?_count=500", headers=operator).json())
        for each in shown:
            answer = client.get(f"/fhir/{each}", headers=viewer)
            assert answer.status_code == 200, each
            assert "AuditEvent" not in types(answer.json()), each
        statuses = {each: client.get(f"/fhir/{each}", headers=viewer).status_code for each in refused}
        assert statuses == dict.fromkeys(refused, 403)
        assert client.post("/fhir/", json={}, headers=viewer).status_code == 403


def test_last_use_is_noted_once_in_a_while(store: Store) -> None:
    """The first use is written down, the next ones not each."""
    bearer = made_token(store, "reader", "viewer")
    with serving(store) as client:
        client.get("/worklist", headers=bearer)
        with store.read() as connection:
            first = list_tokens(connection)[0].last_used_at
        client.get("/worklist", headers=bearer)
        with store.read() as connection:
            second = list_tokens(connection)[0].last_used_at

    assert first is not None
    assert first == second


def test_a_revoked_token_and_its_sessions_end(sqlite_store: Store) -> None:
    """For a process that looks anew, at once."""
    bearer = made_token(sqlite_store, "Curie Marie", "viewer")
    token = bearer["Authorization"].partition(" ")[2]
    with serving(sqlite_store) as client:
        client.post("/login", data={"token": token})
        assert client.get("/worklist").status_code == 200
        with sqlite_store.write() as connection:
            revoke_token(connection, "Curie Marie", datetime.now(UTC))
        session = client.get("/worklist").status_code
    with serving(sqlite_store) as client:
        again = client.get("/worklist", headers=bearer)

    assert (session, again.status_code) == (401, 401)
    assert 'error="invalid_token"' in again.headers["www-authenticate"]


def test_sessions_of_persons_end_with_the_trust_in_their_provider(sqlite_store: Store) -> None:
    """A gateway that takes tokens alone knows nobody whom a provider named before."""
    number, now = "n" * 43, datetime.now(UTC)
    row = SessionRow(person={"name": "ada", "person": None, "roles": ["viewer"]})
    with sqlite_store.write() as connection:
        add_session(connection, token_digest(number), row, now, now + timedelta(hours=1))
    cookie = {"Cookie": f"{COOKIE}={number}"}
    with serving(sqlite_store) as client:
        assert client.get("/fhir/Patient", headers=cookie).status_code == 401


def test_guessing_is_slowed_down(sqlite_store: Store) -> None:
    """After some wrong tokens the address waits, even with a right one that is new; the others there go on."""
    bearer, neighbour = (made_token(sqlite_store, name, "viewer") for name in ("reader", "neighbour"))
    access = Access("token", rates=Rates(failures_per_minute=3))
    with serving(sqlite_store, access) as client:
        before = client.get("/worklist", headers=neighbour).status_code
        wrong = [client.get("/worklist", headers={"Authorization": "Bearer hmt_x"}).status_code for _ in range(2)]
        form = client.post("/login", data={"token": "guess"})
        late = client.get("/fhir/Patient", headers=bearer)
        others = [client.get("/healthz").status_code, client.get("/worklist", headers=neighbour).status_code]

    assert wrong == [401, 401]
    assert form.status_code == 401
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) > 1
    assert late.json()["issue"][0]["code"] == "throttled"
    assert [before, *others] == [200, 200, 200]


def test_a_busy_caller_is_slowed_down_and_no_other(sqlite_store: Store) -> None:
    """Beyond its burst a caller gets 429 with the time to wait."""
    busy, calm = made_token(sqlite_store, "busy", "viewer"), made_token(sqlite_store, "calm", "viewer")
    with serving(sqlite_store, Access("token", rates=Rates(requests_per_s=0.001, burst=5))) as client:
        answers = [client.get("/fhir/Patient", headers=busy).status_code for _ in range(7)]
        other = client.get("/fhir/Patient", headers=calm).status_code

    assert answers == [200] * 5 + [429] * 2
    assert other == 200


def test_the_commands(settings_of_store: Store) -> None:
    """A token is printed once and works; the list shows it without the token; revoked, it is over."""
    run = CliRunner()
    made = run.invoke(app, ["tokens", "create", "--name", "Curie Marie", "--role", "verifier", "--expires", "12h"])
    token = made.stdout.splitlines()[0]
    listed = run.invoke(app, ["tokens", "list", "--json"]).stdout
    with serving(settings_of_store) as client:
        worked = client.get("/worklist", headers={"Authorization": f"Bearer {token}"}).status_code
    revoked = run.invoke(app, ["tokens", "revoke", "Curie Marie"])
    after = run.invoke(app, ["tokens", "list"]).stdout

    assert token.startswith("hmt_")
    assert made.output.count(token) == 1
    assert '"Curie Marie"' in listed
    assert token not in listed
    assert token_digest(token) not in listed
    assert (worked, revoked.exit_code) == (200, 0)
    assert "revoked" in after


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "a"],
        ["--name", "a", "--role", "king"],
        ["--name", "a\nb", "--role", "viewer"],
        ["--name", "a", "--role", "viewer", "--expires", "soon"],
        ["--name", "a", "--role", "viewer", "--expires", "0d"],
        ["--name", "a", "--scope", "everything"],
        ["--name", "a", "--scope", "patient/*.rs"],
        ["--name", "a", "--role", "viewer", "--patient", "1"],
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(settings_of_store: Store, arguments: list[str]) -> None:
    """Exit code 2, and nothing is kept."""
    ended = CliRunner().invoke(app, ["tokens", "create", *arguments])

    assert ended.exit_code == 2
    with settings_of_store.read() as connection:
        assert list_tokens(connection) == []


def test_keys_of_a_client_are_looked_at_when_it_registers(settings_of_store: Store, tmp_path: Path) -> None:
    """A private key, plain HTTP and no key at all are refused with a sentence."""
    private = tmp_path / "keys.json"
    private.write_text('{"keys": [{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "d": "AA"}]}')
    scope = ["--scope", "system/*.rs"]

    for arguments in (["--jwks", str(private)], ["--jwks-url", "http://keys.example"], []):
        ended = CliRunner().invoke(app, ["clients", "register", "app", *scope, *arguments])
        assert ended.exit_code != 0
    assert "No clients" in CliRunner().invoke(app, ["clients", "list"]).stdout


def test_none_means_this_machine_alone(sqlite_store: Store) -> None:
    """Without authentication a request under another name is refused, whatever it shows."""
    bearer = made_token(sqlite_store, "reader", "viewer")
    with serving(sqlite_store, Access("none")) as client:
        answers = [client.get("/worklist", headers=each) for each in ({}, {"Host": "evil.example"} | bearer)]

    assert [answer.status_code for answer in answers] == [200, 421]
    assert isinstance(client, httpx.Client)
