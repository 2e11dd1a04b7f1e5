"""What a request is about, as the audit trail tells it; what shows nothing of a patient is not told."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.audit.event import AuditEvent
from gateway.web.audit import AuditMiddleware, understand

CASES = [
    ("GET", "/fhir/Patient", 200, "query", "search"),
    ("POST", "/fhir/Patient/_search", 200, "query", "search"),
    ("GET", "/fhir/DiagnosticReport/1/_history/2", 200, "patient-record", "resource"),
    ("PUT", "/fhir/Patient/1", 200, "patient-record", "resource"),
    ("GET", "/fhir/AuditEvent", 200, "audit-log-used", "audit-log"),
    ("GET", "/fhir/$export", 202, "export", "resource"),
    ("GET", "/dicomweb/studies", 200, "query", "search"),
    ("GET", "/dicomweb/studies/1.2/series/3/instances/4", 200, "instances-transferred", "study"),
    ("GET", "/dicomweb/studies/1.2/metadata", 200, "instances-accessed", "study"),
    ("DELETE", "/dicomweb/studies/1.2", 204, "instances-accessed", "study"),
    ("POST", "/dicomweb/workitems", 201, "procedure-record", "resource"),
    ("GET", "/studies/1.2", 200, "instances-accessed", "study"),
    ("POST", "/studies/1.2/verify", 303, "procedure-record", "study"),
    ("GET", "/worklist", 200, "query", "search"),
    ("GET", "/somewhere/else", 200, "instances-accessed", "resource"),
    ("GET", "/metrics", 401, "security-alert", "resource"),
    ("GET", "/fhir/Patient/1", 403, "security-alert", "resource"),
    ("POST", "/login", 303, "user-authentication", None),
    ("GET", "/login/oidc/callback", 303, "user-authentication", None),
    ("POST", "/oauth/token", 200, "user-authentication", None),
]


@pytest.mark.parametrize(("method", "path", "status", "kind", "entity"), CASES)
def test_what_is_told(method: str, path: str, status: int, kind: str, entity: str | None) -> None:
    """Kind of event, and what it was about first."""
    asked = understand(method, path, "", status)

    assert asked is not None
    assert asked.kind.value == kind
    assert (asked.entities[0].kind if asked.entities else None) == entity


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/assets/x.css", "/login", "/fhir/metadata"])
def test_what_is_not_told(path: str) -> None:
    """Probes, the look of pages, the form to sign in, what the server can."""
    assert understand("GET", path, "", 200) is None


def test_a_retrieval_names_its_study() -> None:
    """By its UID; a place that is no UID is no study."""
    asked = understand("GET", "/dicomweb/studies/1.2/series/3", "", 200)
    assert asked is not None
    assert asked.entities[0].id == "1.2"
    strange = understand("GET", "/studies/Doe^Jane", "", 404)
    assert strange is not None
    assert strange.entities == ()


class Asking:
    """Requests one after the other, by a clock that stands still, and what is recorded of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.recorded: list[AuditEvent] = []
        monkeypatch.setattr("gateway.web.audit.record", self.recorded.append)
        self._middleware = AuditMiddleware(_answer, "HYBRIDMED", clock=lambda: self.now)

    def ask(self, query: str) -> None:
        """Search for patients."""
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/fhir/Patient",
            "query_string": query.encode(),
            "client": ("127.0.0.1", 1),
        }
        asyncio.run(self._middleware(scope, _receive, _send))


async def _answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _receive() -> Message:
    return {"type": "http.request"}


async def _send(_message: Message) -> None:
    return None


def test_what_is_asked_again_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same search within a minute is one event, another search another."""
    asking = Asking(monkeypatch)

    for query, at in (("name=a", 0), ("name=a", 59), ("name=b", 59), ("name=a", 60), ("name=a", 61)):
        asking.now = at
        asking.ask(query)

    assert [event.entities[0].query for event in asking.recorded] == ["name=a", "name=b", "name=a"]


def test_long_queries_do_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 searches of 16,000 characters less than a tenth is kept."""
    asking = Asking(monkeypatch)
    asking.ask("warm-up")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(500):
            asking.ask(f"name={number:016000}")
            asking.recorded.clear()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept - before < 500 * 1600
