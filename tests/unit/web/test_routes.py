"""Every address of the application stands in the table of roles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import httpx
import pytest
from fhir_facade.app import create_app as create_fhir_app
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from gateway.services import Counters
from gateway.store import open_store
from gateway.web import HttpParts, create_app
from gateway.web.access.claims import ClaimRule
from gateway.web.access.oidc import Provider, Registration
from gateway.web.access.routes import RULES, refusal, rule_for
from gateway.web.actions import Doing
from gateway.web.auth import Access
from gateway.web.caller import LOOPBACK, ROLES, Caller
from tests.upsteps import make_worklist

_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_SAMPLES = {"type": "Patient", "owner": "Patient", "version": "1", "level": "system"}
NOBODY = Caller("nobody", "token")


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Give method and a sample address of each route, all parts being there."""
    folder = tmp_path_factory.mktemp("routes")
    store = open_store(f"sqlite:///{folder / 'x.db'}", folder)
    registration = Registration("https://sso.example", "a", "worklist", claims=ClaimRule())
    with httpx.Client() as calling:
        access = Access(("token", "oidc"), provider=Provider(registration, calling), public_url="https://us.example")
        doing = Doing(verify=None, reprocess=None)  # type: ignore[arg-type] # never called
        fhir = create_fhir_app(store)
        parts = HttpParts(store, fhir, access, Counters(), 0, doing=doing, worklist=make_worklist(store))
        found = list(_flat(create_app(parts).routes, ""))
    store.close()
    return found


def test_every_route_is_in_the_table(routes: list[tuple[str, str]]) -> None:
    """One that was forgotten is closed to all but callers with every role; here it is named."""
    forgotten = [(method, path) for method, path in routes if rule_for(method, path) is None]

    assert len(routes) > 40
    assert forgotten == []


def test_every_line_of_the_table_has_a_route(routes: list[tuple[str, str]]) -> None:
    """A line that no route uses opens what may come to stand there."""
    # `/fhir/{type}` stands in the list with one type alone.
    used = {id(rule_for(method, path)) for method, path in [*routes, ("GET", "/fhir/AuditEvent")]}

    assert [rule.path.pattern for rule in RULES if id(rule) not in used] == []


def test_who_has_no_role_gets_nowhere(routes: list[tuple[str, str]]) -> None:
    """Apart from what is open to all; and the loopback gets everywhere."""
    closed = [(method, path) for method, path in routes if refusal(NOBODY, method, path) is None]

    assert {path for _, path in closed} <= {
        "/healthz",
        "/readyz",
        "/login",
        "/login/oidc",
        "/login/oidc/callback",
        "/logout",
        "/oauth/token",
        "/preferences",
        "/assets/x",
        "/fhir/metadata",
        "/fhir/.well-known/smart-configuration",
    }
    assert [each for each in routes if refusal(LOOPBACK, *each) is not None] == []
    assert refusal(Caller("x", "token", ROLES - {"operator"}), "GET", "/forgotten") == (404, "no such address")


def _flat(routes: Iterable[BaseRoute], before: str) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            inner = route.routes or [Route("/x", _never, methods=["GET"])]
            yield from _flat(inner, before + route.path)
        elif isinstance(route, WebSocketRoute):
            yield "GET", before + _filled(route.path)
        elif isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, before + _filled(route.path)


def _filled(path: str) -> str:
    return _PARAMETER.sub(lambda found: _SAMPLES.get(found[1], "1" if found[2] == "int" else "x"), path)


def _never() -> None:
    raise AssertionError("no route is called here")


def test_the_sample_addresses_are_addresses() -> None:
    """The test's own filling in leaves no parameter."""
    assert _filled("/a/{x}/{n:int}/{rest:path}") == "/a/x/1/x"
