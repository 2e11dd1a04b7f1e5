"""Reports to a FHIR server and to an HL7 v2 receiver: deliveries like all others, taken by other people's programs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial

import httpx
import pytest
from hl7apy.parser import parse_message

from gateway.config import Destination
from gateway.delivery import Deliverer, Sending, open_sender
from gateway.exchange.deidentified import KeyedPseudonyms
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.deliveries import DeliveryRow, create_deliveries, list_deliveries, resend
from tests.delivering import LIMITS
from tests.exchange import Listener, fhir_server, mllp_listener, search
from tests.hooks import receiver
from tests.services.process import HANGS_S, free_port, wait_until
from tests.unit.fhir import cases

KEY = KeyedPseudonyms(b"k" * 32)


@pytest.fixture(scope="module")
def hospital() -> Iterator[httpx.Client]:
    """Give a FHIR server of other people, one for all tests of this module."""
    with fhir_server() as server:
        yield server


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give an HL7 v2 receiver of other people."""
    with mllp_listener() as started:
        yield started


def deliver(
    store: Store, *destinations: Destination, until: Sequence[str] = ("done",), timeout_s: float = 60.0
) -> dict[str, DeliveryRow]:
    """Run the deliverer until each delivery has ended; return them, in one of these states."""

    def rows() -> dict[str, DeliveryRow]:
        with store.read() as connection:
            return {row.destination: row for row in reversed(list_deliveries(connection))}

    deliverer = Deliverer(
        store=store,
        heartbeat=Heartbeat(store, "deliver", Counters()),
        destinations=destinations,
        open_sender=partial(open_sender, sending=Sending("HYBRIDMED", timeout_s, pseudonyms=KEY)),
        limits=LIMITS,
    )
    stop = threading.Event()
    thread = threading.Thread(target=deliverer.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: all(row.state != "waiting" for row in rows().values()), HANGS_S, "deliveries end")
    finally:
        stop.set()
        thread.join()
    ended = rows()
    assert [row.reason for row in ended.values() if row.state not in until] == []
    return ended


def commit(store: Store, *names: str, revision: int = 1) -> str:
    """Make a job that found pneumonia, due to these destinations; return its id."""
    done = cases.finished(cases.pneumonia(), revision=revision, study=cases.study(patient_id_issuer="1.2.40"))
    cases.commit(store, done)
    with store.write() as connection:
        create_deliveries(connection, done.job.job_id, names, done.now)
    return done.job.job_id


def test_a_report_is_taken_whole_and_twice_makes_one(store: Store, hospital: httpx.Client) -> None:
    """What an independent server holds then: one report with all it refers to, the hospital's own patient kept."""
    own = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.40", "value": "P-17"}], "active": True}
    known = search(hospital, "Patient?identifier=urn:oid:1.2.40|P-17") or [hospital.post("/Patient", json=own).json()]
    destination = Destination(name="EHR", address=f"fhir+{str(hospital.base_url).rstrip('/')}")
    job_id = commit(store, "EHR")
    first = deliver(store, destination)["EHR"]
    with store.write() as connection:
        resend(connection, [job_id], cases.NOW)
    again = deliver(store, destination)["EHR"]
    subject = f"Patient/{known[0]['id']}"
    (report,) = [each for each in search(hospital, "DiagnosticReport") if each["subject"]["reference"] == subject]
    told = {each["id"] for each in search(hospital, "Observation") if each["subject"]["reference"] == subject}

    assert (first.state, again.state) == ("done", "done")
    assert len(search(hospital, "Patient?identifier=urn:oid:1.2.40|P-17")) == 1
    assert {each["reference"] for each in report["result"]} == {f"Observation/{each}" for each in told}
    assert len(search(hospital, f"ImagingStudy?identifier=urn:dicom:uid|urn:oid:{cases.STUDY_UID}")) == 1
    assert "presentedForm" not in report


def test_what_a_server_refuses_or_cannot_take_now(store: Store) -> None:
    """A refusal counts and ends on the failed list with a code and no text of the server; one that is away waits."""
    said = b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invariant","diagnostics":"Anna"}]}'
    with receiver() as refusing:
        refusing.body = said
        refusing.statuses = [503, *[422] * 10]
        destination = Destination(name="EHR", address=refusing.url, kind="fhir")
        commit(store, "EHR")
        row = deliver(store, destination, until=("failed",))["EHR"]
        attempts = [told.headers["content-type"] for told in refusing.take()]

    assert (row.attempts, row.reason) == (3, "refused with HTTP 422 (invariant)")
    assert attempts == ["application/fhir+json"] * 4


def test_without_the_patient(store: Store, hospital: httpx.Client) -> None:
    """Where the rule says so, no name, number, date or UID of the patient leaves; twice makes one all the same."""
    destination = Destination(
        name="RESEARCH", address=str(hospital.base_url).rstrip("/"), kind="fhir", deidentify="basic"
    )
    job_id = commit(store, "RESEARCH")
    deliver(store, destination)
    with store.write() as connection:
        resend(connection, [job_id], cases.NOW)
    deliver(store, destination)
    pseudonym = KEY.patient("urn:oid:1.2.40", "P-17")
    (patient,) = search(hospital, f"Patient?identifier=urn:hybridmed:pseudonym|{pseudonym}")
    reports = [
        each
        for each in search(hospital, "DiagnosticReport")
        if each["subject"]["reference"] == f"Patient/{patient['id']}"
    ]
    told = [each for each in search(hospital, "Observation") if each["subject"] == reports[0]["subject"]]
    text = repr([patient, *reports, *told])

    assert len(reports) == 1
    assert patient["birthDate"] == "1970"
    assert [
        secret for secret in ("ller", "P-17", "ACC-1", "House", cases.STUDY_UID, "2026-03-0") if secret in text
    ] == []
    assert any("valueQuantity" in each for each in told)


def test_an_hl7_message_as_two_libraries_read_it(store: Store, listener: Listener) -> None:
    """Received over another package's MLLP, valid for a third; codes, units, status; the same control id each time."""
    destination = Destination(name="HIS", address=f"mllp://127.0.0.1:{listener.port}", receiver="HIS|WARD")
    listener.answers = ["", "AE"]
    commit(store, "HIS")
    row = deliver(store, destination, timeout_s=10.0)["HIS"]
    message = listener.received[-1]
    strict = parse_message(str(message), find_groups=True)
    values = {str(each[3][0][0]): each for each in message.segments("OBX")}
    volume, pneumonia = values["118565006"], values["233604007"]

    assert row.state == "done"
    assert len({str(each["MSH"][0][10]) for each in listener.received}) == 1
    assert len(listener.received) == 3
    assert strict.validate()
    assert [str(message["MSH"][0][number]) for number in (5, 6, 9, 12, 18)] == [
        "HIS",
        "WARD",
        "ORU^R01^ORU_R01",
        "2.5.1",
        "UNICODE UTF-8",
    ]
    assert str(message["PID"][0][5]).startswith("Müller^Anna^Maria")
    assert str(message["OBR"][0][4]).startswith("30745-4^")
    assert (str(message["OBR"][0][18]), str(message["OBR"][0][25])) == ("ACC-1", "P")
    assert (str(volume[2]), str(volume[5]), str(volume[6][0][0]), str(volume[11])) == ("NM", "1234.5", "mL", "P")
    assert str(pneumonia[5]).startswith("233604007^Pneumonia^SCT")


def test_what_a_receiver_refuses_and_one_that_is_away(store: Store, listener: Listener) -> None:
    """AR three times ends on the failed list; where nobody listens the delivery waits without counting."""
    listener.answers = ["AR"] * 5
    there = Destination(name="HIS", address=f"mllp://127.0.0.1:{listener.port}")
    commit(store, "HIS")
    row = deliver(store, there, until=("failed",))["HIS"]
    away = open_sender(Destination(name="HIS", address=f"mllp://127.0.0.1:{free_port()}"), Sending("HYBRIDMED", 1.0))

    assert (row.attempts, row.reason) == (3, "refused with AR")
    assert away is not None
