"""What a request is about, as the audit trail tells it; what shows nothing of a patient is not told."""

from __future__ import annotations

import pytest

from gateway.web.audit import understand

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
