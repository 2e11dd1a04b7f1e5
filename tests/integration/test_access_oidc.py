"""OpenID Connect against a real provider: programs by access token, browsers by signing in there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from gateway.store import Store
from gateway.web.access.claims import ClaimRule, caller_of_claims, refuse_id_token
from gateway.web.access.oidc import Provider, Registration
from gateway.web.auth import Access
from tests.access import PUBLIC, made_token, serving
from tests.oidc import AUDIENCE, CLIENT, RunningProvider, running_provider

CALLBACK = f"{PUBLIC}/login/oidc/callback"
BROWSER = {"Accept": "text/html"}
ROLES = {"marie": ["radiology"], "nobody": [], "program": ["integrator"]}

Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    """Give a provider that all tests of this module share."""
    with running_provider(CALLBACK, ROLES) as running:
        yield running


@pytest.fixture
def registration(provider: RunningProvider) -> Registration:
    """Give what a gateway agreed on with it."""
    return Registration(
        issuer=provider.issuer,
        audience=AUDIENCE,
        client_id=CLIENT,
        client_secret=provider.secret,
        claims=ClaimRule(role_map={"radiology": "verifier"}),
    )


@pytest.fixture
def serve(sqlite_store: Store) -> Iterator[Serve]:
    """Give a function that serves a gateway that knows the provider."""
    with httpx.Client() as calling:

        def serve(registration: Registration, *modes: str) -> AbstractContextManager[httpx.Client]:
            known = Provider(registration, calling)
            return serving(sqlite_store, Access(modes or ("oidc",), provider=known, public_url=PUBLIC))

        yield serve


def come_back(
    client: httpx.Client, provider: RunningProvider, person: str, onward: str = "/worklist"
) -> httpx.Response:
    """Sign in by the provider, as a browser does."""
    begun = client.get("/login/oidc", params={"next": onward}, headers=BROWSER)
    assert begun.status_code == 303, begun.text
    back = provider.sign_in(begun.headers["location"], person, CALLBACK)
    return client.get(f"{urlsplit(back).path}?{urlsplit(back).query}", headers=BROWSER)


def test_a_program_brings_its_access_token(
    serve: Serve, provider: RunningProvider, registration: Registration, sqlite_store: Store
) -> None:
    """Taken for its role; not changed, not for another audience or issuer; tokens of ours hold beside it."""
    token = provider.access_token()
    head, claims, signature = token.split(".")
    ours = made_token(sqlite_store, "reader", "viewer")
    with serve(registration, "token", "oidc") as client:

        def status(shown: str, path: str = "/metrics") -> int:
            return client.get(path, headers={"Authorization": f"Bearer {shown}"}).status_code

        assert status(token) == 200
        assert status(token, "/worklist") == 403
        assert status(f"{head}.{claims}.{signature[:-8]}AAAAAAAA") == 401
        assert client.get("/worklist", headers=ours).status_code == 200
    with serve(replace(registration, audience="another")) as client:
        assert client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 401
        assert client.get("/worklist", headers=ours).status_code == 401


def test_a_person_signs_in_and_out(serve: Serve, provider: RunningProvider, registration: Registration) -> None:
    """By code, PKCE, state and nonce; known by name and role from then on, until signing out."""
    with serve(registration) as client:
        sent = client.get("/worklist", headers=BROWSER)
        form = client.get(sent.headers["location"], headers=BROWSER).text
        begun = parse_qs(urlsplit(client.get("/login/oidc", headers=BROWSER).headers["location"]).query)
        client.cookies.clear()
        arrived = come_back(client, provider, "marie", "/worklist?q=1")
        worklist = client.get("/worklist", headers=BROWSER)
        as_verifier = client.post("/studies/1.2/reprocess", headers={"Sec-Fetch-Site": "same-origin"})
        form_token = worklist.text.split('name="form_token" value="')[1].split('"')[0]
        out = client.post("/logout", data={"form_token": form_token}, headers={"Sec-Fetch-Site": "same-origin"})
        after = client.get("/worklist").status_code

    assert "/login/oidc?next=%2Fworklist" in form
    assert 'name="token"' not in form
    assert begun["code_challenge_method"] == ["S256"]
    assert {"state", "nonce", "code_challenge"} <= set(begun)
    assert arrived.status_code == 200
    assert 'content="0; url=/worklist?q=1"' in arrived.text
    cookie = next(each for each in arrived.headers.get_list("set-cookie") if each.startswith("hybridmed_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert worklist.status_code == 200
    assert as_verifier.json()["error"] == "this needs the role operator; this caller has verifier"
    assert (out.status_code, after) == (303, 401)


def test_a_sign_in_that_was_not_begun_here(serve: Serve, provider: RunningProvider, registration: Registration) -> None:
    """Another state, another browser, another issuer, a code twice, a made-up code, a refusal: no session."""
    with serve(registration) as client:

        def back(**changed: str) -> httpx.Response:
            begun = client.get("/login/oidc", headers=BROWSER)
            led = provider.sign_in(begun.headers["location"], "marie", CALLBACK)
            query = {name: values[0] for name, values in parse_qs(urlsplit(led).query).items()} | changed
            return client.get(f"/login/oidc/callback?{urlencode(query)}", headers=BROWSER)

        answers = [
            back(state="x"),
            back(iss="https://evil.example"),
            back(code="made-up"),
            client.get("/login/oidc/callback?state=&code=x", headers=BROWSER),
            client.get("/login/oidc/callback?state=x&error=access_denied", headers=BROWSER),
            come_back(client, provider, "nobody"),
        ]
        sessions = [each for answer in answers for each in answer.headers.get_list("set-cookie") if "session" in each]
        begun = client.get("/login/oidc", headers=BROWSER)
        led = urlsplit(provider.sign_in(begun.headers["location"], "marie", CALLBACK))
        client.cookies.clear()
        stolen = client.get(f"{led.path}?{led.query}", headers=BROWSER)
        closed = client.get("/worklist").status_code

    assert [answer.status_code for answer in answers] == [400, 400, 403, 400, 400, 403]
    assert "no role here" in answers[-1].text
    assert sessions == []
    assert (stolen.status_code, closed) == (400, 401)


def test_a_provider_that_is_away_or_another(serve: Serve, registration: Registration) -> None:
    """A sentence and 503; nobody is let in, and what is open stays so."""
    with serve(replace(registration, issuer="http://127.0.0.1:9")) as client:
        begun = client.get("/login/oidc", headers=BROWSER)
        program = client.get("/metrics", headers={"Authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.e30.AA"})
        healthy = client.get("/healthz").status_code
    with serve(replace(registration, issuer=registration.issuer.replace("127.0.0.1", "localhost"))) as client:
        impostor = client.get("/login/oidc", headers=BROWSER)

    assert (begun.status_code, healthy, impostor.status_code) == (503, 200, 503)
    assert program.status_code in {401, 503}


def test_claims_tell_who_and_what() -> None:
    """Nested roles, groups that are mapped, scopes and patients; unknown roles give none, an ID token opens nothing."""
    rule = ClaimRule("realm_access.roles", {"pacs": "operator"}, "email")
    claims = {"sub": "s", "email": "a@b", "realm_access": {"roles": ["pacs", "viewer", "king", 7]}}

    found = caller_of_claims(claims | {"scope": "openid patient/*.rs", "patient": "p1"}, rule, "oidc")

    assert (found.name, found.roles) == ("a@b", {"operator", "viewer"})
    assert (found.scopes, found.patient, found.person) == ({"patient/*.rs"}, "p1", None)
    assert caller_of_claims({"sub": "s", "realm_access": "x"}, rule, "oidc").roles == frozenset()
    assert caller_of_claims({"sub": "s", "family_name": "C", "given_name": "M"}, rule, "oidc").person == "C^M"
    for marked in ({"nonce": "n"}, {"at_hash": "h"}, {"typ": "ID"}):
        with pytest.raises(Exception, match="ID token"):
            refuse_id_token(claims | marked)


def test_no_secret_shows(registration: Registration) -> None:
    """Not in a print of what holds it."""
    assert registration.client_secret not in repr(registration)
