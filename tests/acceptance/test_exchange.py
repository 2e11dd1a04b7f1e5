"""A gateway as it is served, beside the servers of others: it asks, pushes, and tells subscribers and HL7 receivers."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from gateway.config import Destination
from gateway.store import open_store
from gateway.store.tables import study
from tests import verifying
from tests.acceptance.gateway_process import GatewayProcess
from tests.acceptance.made_results import write_results
from tests.certificates import Authority
from tests.exchange import fhir_server, mllp_listener, search
from tests.hooks import receiver
from tests.services.process import HANGS_S, wait_until
from tests.unit.report.outcomes import write_xray

pytestmark = pytest.mark.acceptance

ISSUER = "1.2.40"
FHIR = {"Content-Type": "application/fhir+json"}


def test_a_served_gateway_exchanges_with_a_hospital(make_embedded: Any, tmp_path: Path) -> None:
    """All loops of one installation, by its settings alone; SIGTERM ends them in good order."""
    authority = Authority(tmp_path / "authority")
    identity = authority.issue("his")
    secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secured.load_cert_chain(identity.certificate, identity.key)
    with fhir_server() as hospital, mllp_listener(secured) as his, receiver() as endpoint:
        server = str(hospital.base_url).rstrip("/")
        addresses = {"EHR": f"fhir+{server}", "HIS": f"mllps://localhost:{his.port}"}
        toml = settings(server, addresses, authority)
        gateway: GatewayProcess = make_embedded(toml=toml, roles="deliver,web")
        gateway.start()
        fhir = httpx.Client(base_url=f"{gateway.url}/fhir", timeout=120, trust_env=False)
        channel = {"type": "rest-hook", "endpoint": f"{endpoint.url}/hook", "payload": FHIR["Content-Type"]}
        wanted = {"resourceType": "Subscription", "status": "requested", "reason": "x", "channel": channel}
        created = fhir.post("/Subscription", json=wanted | {"criteria": "DiagnosticReport"}, headers=FHIR).json()
        address = f"/Subscription/{created['id']}"
        wait_until(lambda: fhir.get(address).json()["status"] == "active", HANGS_S, "an active subscription")

        uid = take_in(gateway.data_dir, tmp_path)
        destinations = [Destination(name=name, address=each) for name, each in addresses.items()]
        write_results(gateway.data_dir, uid, verifying.OUTCOME, verifying.BUNDLE, destinations)
        known = {"identifier": [{"system": f"urn:oid:{ISSUER}", "value": "T-1"}], "telecom": [{"value": "555-1"}]}
        wait_until(lambda: bool(search(hospital, "DiagnosticReport")), HANGS_S, "a report in the hospital")
        (theirs,) = search(hospital, "Patient")
        hospital.put(f"/Patient/{theirs['id']}", json=theirs | known)
        wait_until(
            lambda: "telecom" in fhir.get("/Patient").json()["entry"][0]["resource"], HANGS_S, "what they say of him"
        )
        ended = {each["destination"]: each["state"] for each in gateway.wait_for_deliveries()}
        wait_until(lambda: bool(endpoint.told), HANGS_S, "a notification")
        status = gateway.stop()
        fhir.close()

    assert ended == {"EHR": "done", "HIS": "done"}
    assert {told.method for told in endpoint.told} == {"PUT"}
    assert all(told.path.startswith("/hook/DiagnosticReport/") for told in endpoint.told)
    (message,) = his.received
    assert str(message.segment("PID")[3]).startswith("T-1")
    assert status == 0, gateway.log_tail()


def settings(server: str, addresses: dict[str, str], authority: Authority) -> str:
    """Return the settings of the installation."""
    sections = [f'[destinations.{name}]\naddress = "{address}"\n' for name, address in addresses.items()]
    exchange = f'[exchange]\npoll_server = "{server}"\npoll_minutes = 0.02\n'
    return "\n".join([*sections, exchange, f'[tls]\npeer_ca = "{authority.certificate}"\n'])


def take_in(data_dir: Path, folder: Path) -> str:
    """Put an X-ray into the data of the gateway, as if it had arrived; return its study."""
    (folder / "xray").mkdir()
    (data_dir / "instances").mkdir(exist_ok=True)
    store = open_store(f"sqlite:///{data_dir / 'hybridmed.db'}", data_dir)
    try:
        uid = verifying.take_in_all(store, write_xray(folder / "xray"))
        with store.write() as connection:
            connection.execute(sa.update(study).values(patient_id_issuer=ISSUER))
    finally:
        store.close()
    return uid
