"""Bulk export as research pipelines use it: whose it is, what is gone since the last one, what is refused."""

from __future__ import annotations

import json
import time
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx
from fhir_facade.app import create_app

from gateway.store import Store
from gateway.store.results import delete_resource
from tests import fhir_made as made
from tests.access import made_token, serving
from tests.unit.fhir.node import complaints
from tests.unit.web.serving import served

ASYNC = {"Prefer": "respond-async"}


def ended(client: httpx.Client, state: str, **headers: str) -> httpx.Response:
    """Wait for an export and return its manifest."""
    for _ in range(3000):
        response = client.get(state, headers=headers)
        if response.status_code != 202:
            return response
        time.sleep(0.01)
    raise AssertionError("the export does not end")


def test_an_export_is_seen_by_whoever_asked_for_it(store: Store) -> None:
    """Another program with the same rights finds no state, no file and nothing to cancel, from whichever process."""
    made.fill(store, 2)
    mine = made_token(store, "research", "integrator")
    theirs = made_token(store, "portal", "integrator")
    with serving(store) as first, serving(store) as second:
        state = first.get("/fhir/$export?_type=Patient", headers=mine | ASYNC).headers["content-location"]
        path = httpx.URL(state).path
        manifest = ended(second, path, **mine)
        file = httpx.URL(manifest.json()["output"][0]["url"]).path
        refused = [
            second.request(method, address, headers=theirs).status_code
            for method, address in (("GET", path), ("GET", file), ("DELETE", path))
        ]
        lines = second.get(file, headers=mine).text.splitlines()
        gone = first.delete(path, headers=mine).status_code

    assert refused == [404, 404, 404]
    assert len(lines) == 2
    assert gone == 202


def test_what_is_gone_since_the_last_export_is_listed(store: Store, tmp_path: Path) -> None:
    """As Bundles that would delete it, of the types that are exported; what came again is not among it."""
    made.fill(store, 3)
    with store.write() as connection:
        for name in ("rep-1", "rep-2"):
            assert delete_resource(connection, "DiagnosticReport", name, made.later(2))
        assert delete_resource(connection, "Observation", "obs-1", made.later(2))
    made.write(store, [made.report(2)], made.later(3))
    with served(create_app(store, zone=UTC)) as client:

        def exported(query: str) -> dict[str, Any]:
            state = client.get(f"/Patient/$export?{query}", headers=ASYNC).headers["content-location"]
            answer: dict[str, Any] = ended(client, state).json()
            return answer

        recent = exported("_type=DiagnosticReport&_since=2026-03-02T14:00:00Z")
        (listed,) = recent["deleted"]
        bundles = [json.loads(line) for line in client.get(listed["url"]).text.splitlines()]
        later, whole = exported("_since=2026-03-02T16:30:00Z"), exported("_type=DiagnosticReport")

    assert (listed["type"], listed["count"]) == ("Bundle", 1)
    (bundle,) = bundles
    assert bundle["type"] == "transaction"
    assert [each["request"] for each in bundle["entry"]] == [{"method": "DELETE", "url": "DiagnosticReport/rep-1"}]
    assert "deleted" not in later
    assert "deleted" not in whole
    assert complaints(bundles, tmp_path) == []


def test_groups_are_refused_clearly(store: Store) -> None:
    """No Group is held: the answer, and the CapabilityStatement, say what to do instead."""
    with served(create_app(store, zone=UTC)) as client:
        answer = client.get("/Group/all/$export", headers=ASYNC)
        documentation = client.get("/metadata").json()["rest"][0]["documentation"]

    assert answer.status_code == 400
    assert answer.json()["issue"][0]["code"] == "not-supported"
    assert "/Patient/$export" in answer.json()["issue"][0]["diagnostics"]
    assert "No Group" in documentation
