"""What the tests of workitems stand on: a worklist over a store, and what clients of it write by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from fhir_facade.app import create_app as create_fhir_app

from gateway.dispatcher import Router
from gateway.person_name import folded
from gateway.routing import BundleOffer
from gateway.services import Counters
from gateway.store import Store
from gateway.web import HttpParts, WebRole, create_app
from gateway.web.auth import Access
from gateway.workitem.service import Workitems
from gateway.workitem.subscribing import Subscribing
from gateway.workitem.worklist import Worklist
from tests.services.process import HANGS_S, free_port
from tests.stores import add_instance, add_series, add_study
from tests.working import eventually, running

STUDY, SERIES, IMAGE = "1.2.3", "1.2.3.1", "1.2.3.1.1"
UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
LEASE_S = 600.0


def take_study(store: Store, uid: str = STUDY, **values: Any) -> None:
    """Insert a complete study of one CT image."""
    known = {"patient_id": "P-1", "patient_name": "Doe^Jane", "accession_number": "A-1", "study_id": "S-1"}
    values = known | values
    with store.write() as connection:
        add_study(connection, uid, **values, patient_name_folded=folded(values["patient_name"]))
        add_series(connection, uid, f"{uid}.1")
        add_instance(connection, uid, f"{uid}.1", f"{uid}.1.1")


def make_worklist(store: Store, reachable: Sequence[str] = (), lease_s: float = LEASE_S) -> Worklist:
    """Return a worklist with the bundles `thresholding` and `other`."""
    offers = [BundleOffer(name, lambda *_: True) for name in ("thresholding", "other")]
    router = Router(store, (), offers, ["PACS"])
    return Worklist(Workitems(store, router, lease_s), Subscribing(store, reachable), "HYBRIDMED")


@contextmanager
def serving(store: Store, access: Access | None = None, reachable: Sequence[str] = ()) -> Iterator[httpx.Client]:
    """Serve the whole application as the role `web` does; give a client of its DICOMweb."""
    port = free_port()
    parts = HttpParts(
        store=store,
        fhir=create_fhir_app(store, zone=UTC),
        access=access or Access("none"),
        counters=Counters(),
        reserve_bytes=0,
        worklist=make_worklist(store, reachable),
    )
    role = WebRole(create_app(parts), bind="127.0.0.1", port=port, closing=parts.closing)
    headers = {"Content-Type": "application/dicom+json", "Accept": "application/dicom+json"}
    address = f"http://127.0.0.1:{port}/dicomweb"
    with running(role), httpx.Client(base_url=address, headers=headers, timeout=HANGS_S) as client:
        eventually(lambda: _answers(port), "the server listens")
        yield client


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def creation(study: str = STUDY, label: str = "thresholding", **more: Any) -> dict[str, Any]:
    """Return a new workitem as a client writes it; `more` by tag."""
    start = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    content: dict[str, Any] = {
        "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
        "00741200": {"vr": "CS", "Value": ["MEDIUM"]},
        "00741204": {"vr": "LO", "Value": [label]},
        "00404005": {"vr": "DT", "Value": [start]},
        "00404041": {"vr": "CS", "Value": ["READY"]},
        "00404021": {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": [study]}}]},
    }
    return content | more


def change(state: str, transaction: str | None) -> dict[str, Any]:
    """Return a change of state."""
    content: dict[str, Any] = {"00741000": {"vr": "CS", "Value": [state]}}
    return content | ({"00081195": {"vr": "UI", "Value": [transaction]}} if transaction else {})


def code(value: str) -> dict[str, Any]:
    """Return a code sequence with one item."""
    item = {
        "00080100": {"vr": "SH", "Value": [value]},
        "00080102": {"vr": "SH", "Value": ["99TEST"]},
        "00080104": {"vr": "LO", "Value": [value]},
    }
    return {"vr": "SQ", "Value": [item]}


def performed(result: str = "1.2.9.1.1") -> dict[str, Any]:
    """Return what a performer must have written before it completes: station, code, times, one output."""
    output = {
        "0040E020": {"vr": "CS", "Value": ["DICOM"]},
        "0020000D": {"vr": "UI", "Value": [STUDY]},
        "0020000E": {"vr": "UI", "Value": ["1.2.9.1"]},
        "00081199": {
            "vr": "SQ",
            "Value": [{"00081150": {"vr": "UI", "Value": [CT]}, "00081155": {"vr": "UI", "Value": [result]}}],
        },
    }
    item = {
        "00404028": code("STATION"),
        "00404019": code("thresholding"),
        "00404050": {"vr": "DT", "Value": ["20260302120000"]},
        "00404051": {"vr": "DT", "Value": ["20260302120500"]},
        "00404033": {"vr": "SQ", "Value": [output]},
    }
    return {"00741216": {"vr": "SQ", "Value": [item]}}


def progress(percent: str) -> dict[str, Any]:
    """Return a performer's progress."""
    return {"00741002": {"vr": "SQ", "Value": [{"00741004": {"vr": "DS", "Value": [percent]}}]}}


def value(content: Mapping[str, Any], tag: str) -> Any:
    """Return the first value of an attribute, None where it is empty or absent."""
    return content.get(tag, {}).get("Value", [None])[0]


def state_of(client: httpx.Client, uid: str) -> str:
    """Return a workitem's Procedure Step State."""
    state: str = value(client.get(f"/workitems/{uid}").json()[0], "00741000")
    return state


def created(client: httpx.Client, **more: Any) -> str:
    """Create a workitem; return its UID."""
    answer = client.post("/workitems", json=[creation(**more)])
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"].rsplit("/", 1)[1]
