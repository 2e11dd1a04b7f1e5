"""Three FHIR clients that others wrote, each let loose on a server; and what they asked it for.

`python -m tests.fhir_clients` writes what they ask for anew into `integration/fhir_client_calls.json`, which the tests
replay.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import orjson
from fhir_facade.app import create_app
from fhirclient.client import FHIRClient
from fhirclient.models.diagnosticreport import DiagnosticReport
from fhirclient.models.patient import Patient
from fhirpy import SyncFHIRClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.store import Store, open_store
from gateway.store.schema import upgrade
from tests import fhir_made as made
from tests.services.process import HANGS_S
from tests.unit.fhir import node
from tests.unit.web.serving import served

CALLS = Path(__file__).parent / "integration" / "fhir_client_calls.json"
Json = dict[str, Any]


def fill(store: Store) -> None:
    """Write what the clients look for."""
    made.fill(store, 5)


def with_fhirpy(base: str) -> Json:
    """Search, count, page, include and follow a reference with fhirpy."""
    client = SyncFHIRClient(base)
    reports = client.resources("DiagnosticReport")
    (first,) = reports.search(patient__identifier="P-1").fetch()
    bundle = reports.search(_id="rep-1").include("DiagnosticReport", "result").fetch_raw()
    return {
        "count": reports.search(status="preliminary").count(),
        "paged": [each["id"] for each in reports.sort("date").limit(2).fetch_all()],
        "first": first["id"],
        "subject": first["subject"].to_resource()["name"][0]["family"],
        "included": [each["resource"]["id"] for each in bundle["entry"]],
        "read": client.reference("Patient", "pat-2").to_resource()["id"],
    }


def with_fhirclient(base: str) -> Json:
    """Search, page, include and follow a reference with fhirclient, whose models are strict."""
    client = FHIRClient(settings={"app_id": "test", "api_base": base})
    client.prepare()
    search = DiagnosticReport.where({"_count": "2", "_sort": "date"})
    report = DiagnosticReport.read("rep-1", client.server)
    (along,) = DiagnosticReport.where({"_id": "rep-1"}).include("subject").perform_iter(client.server)
    (counted,) = DiagnosticReport.where({"_summary": "count"}).perform_iter(client.server)
    return {
        "paged": [each.id for each in search.perform_resources_iter(client.server)],
        "subject": report.subject.resolved(Patient).name[0].family,
        "included": [each.resource.id for each in along.entry],
        "count": counted.total,
    }


def with_kit(base: str) -> Json:
    """Do the same and more with fhir-kit-client, on node."""
    node.install()
    command = ["node", "kit_client.mjs", base]
    done = subprocess.run(command, cwd=node.FOLDER, capture_output=True, text=True, timeout=HANGS_S, check=False)
    if done.returncode:
        raise RuntimeError(f"fhir-kit-client failed: {done.stderr[-1000:]}")
    seen: Json = json.loads(done.stdout)
    return seen


CLIENTS: Mapping[str, Callable[[str], Json]] = {
    "fhirpy": with_fhirpy,
    "fhirclient": with_fhirclient,
    "fhir-kit-client": with_kit,
}
_WHOLE = ["rep-1", "rep-2", "rep-3", "rep-4", "rep-5"]
SEEN: Mapping[str, Json] = {
    "fhirpy": {
        "count": 4,
        "paged": _WHOLE,
        "first": "rep-1",
        "subject": "Müller1",
        "included": ["rep-1", "obs-1"],
        "read": "pat-2",
    },
    "fhirclient": {"paged": _WHOLE, "subject": "Müller1", "included": ["rep-1", "pat-1"], "count": 5},
    "fhir-kit-client": {
        "version": "4.0.1",
        "pages": [_WHOLE[:2], _WHOLE[2:4], _WHOLE[4:]],
        "subject": "Müller1",
        "included": ["obs-1"],
        "count": 5,
        "posted": ["rep-2"],
        "history": 1,
        "vread": "rep-1",
        "batch": "200 OK",
    },
}
"""What each client should see."""


def shape(body: bytes) -> Json:
    """Return what a replay compares: type, count and ids of what came back."""
    content = orjson.loads(body) if body else {}
    ids = [
        each.get("resource", {}).get("id", each.get("response", {}).get("status")) for each in content.get("entry", [])
    ]
    found = {"resourceType": content.get("resourceType"), "id": content.get("id"), "total": content.get("total")}
    return {name: value for name, value in (found | {"entries": ids or None}).items() if value is not None}


class Recorder:
    """Keeps what is asked of an application, and the shape of what it answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.calls: list[Json] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and note it."""
        asked, answered, status = bytearray(), bytearray(), 0

        async def receiving() -> Message:
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            answered.extend(message.get("body", b""))
            await send(message)

        plain = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        await self._app({**scope, "headers": plain}, receiving, sending)
        headers = {
            name.decode(): value.decode() for name, value in plain if name in (b"accept", b"content-type", b"prefer")
        }
        address = scope["path"] + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        call = {"method": scope["method"], "address": address, "headers": headers, "status": status}
        self.calls.append(call | ({"body": asked.decode()} if asked else {}) | {"shape": shape(bytes(answered))})


def main() -> None:
    """Record what the clients ask for, and what they get."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/hybridmed.db", Path(folder))
        upgrade(store)
        fill(store)
        calls = {}
        for name, client in CLIENTS.items():
            recorder = Recorder(create_app(store, zone=UTC))
            with served(recorder) as opened:
                client(str(opened.base_url).rstrip("/"))
            calls[name] = recorder.calls
        store.close()
    CALLS.write_text(json.dumps(calls, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
