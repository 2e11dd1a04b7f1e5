"""The role `deliver` as it is wired: it tells subscribers, pushes reports, asks a server, and stops when told."""

from __future__ import annotations

import threading
from datetime import UTC
from pathlib import Path

import pytest
from fhir_facade.app import create_app

from gateway.config import load_settings
from gateway.store import Store
from gateway.store.deliveries import create_deliveries, list_deliveries
from gateway.wiring import build_role
from gateway.wiring.exchange import build_exchange_rules
from tests.hooks import receiver
from tests.services.process import HANGS_S, wait_until
from tests.unit.fhir import cases
from tests.unit.web.serving import served

JSON = {"Content-Type": "application/fhir+json"}


def test_the_role_does_it_all_and_stops(sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings alone make it so: an event, a push that is refused, and a question with the secret that is set."""
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(tmp_path / "absent.toml"))
    with receiver() as endpoint, receiver() as hospital:
        hospital.body = b'{"resourceType":"Bundle","type":"searchset"}'
        settings = load_settings(
            data_dir=tmp_path,
            retry_s=0.1,
            max_attempts=1,
            destinations=f"EHR=fhir+{hospital.url}/r4",
            exchange={"poll_server": hospital.url, "poll_authorization": "Bearer x", "hooks": f"{endpoint.url}/hooks"},
        )
        role, stop = build_role("deliver", settings), threading.Event()
        thread = threading.Thread(target=role.run, args=(stop,))
        thread.start()
        try:
            with served(create_app(sqlite_store, zone=UTC, exchange=build_exchange_rules(settings))) as http:
                wanted = {"type": "rest-hook", "endpoint": f"{endpoint.url}/hooks/a", "payload": JSON["Content-Type"]}
                subscription = {"resourceType": "Subscription", "status": "requested", "reason": "x"}
                subscription |= {"criteria": "DiagnosticReport", "channel": wanted}
                created = http.post("/Subscription", json=subscription, headers=JSON)
                elsewhere = wanted | {"endpoint": f"{endpoint.url}/other"}
                refused = http.post("/Subscription", json=subscription | {"channel": elsewhere}, headers=JSON)
                address = f"/Subscription/{created.json()['id']}"
                wait_until(
                    lambda: http.get(address).json()["status"] == "active", HANGS_S, "the subscription is active"
                )
                done = cases.finished(cases.pneumonia())
                cases.commit(sqlite_store, done)
                with sqlite_store.write() as connection:
                    create_deliveries(connection, done.job.job_id, ["EHR"], done.now)
                wait_until(lambda: bool(endpoint.told), HANGS_S, "the endpoint is told")
                wait_until(
                    lambda: {each.method for each in hospital.told} == {"GET", "POST"}, HANGS_S, "both have come"
                )
        finally:
            stop.set()
            thread.join(HANGS_S)
        told, asked = endpoint.take(), {each.method: each for each in hospital.take()}
    with sqlite_store.read() as connection:
        (delivery,) = list_deliveries(connection)

    assert not thread.is_alive()
    assert refused.status_code == 422
    assert told[0].path.startswith("/hooks/a/DiagnosticReport/")
    assert asked["GET"].headers["authorization"] == "Bearer x"
    assert asked["POST"].path == "/r4"
    assert (delivery.state, delivery.reason) == ("failed", "the answer is not that to a transaction")
