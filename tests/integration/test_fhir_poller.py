"""Updates of patients and studies pulled from a hospital's FHIR server, real and scripted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
import sqlalchemy as sa
from fhir_facade.demographics import Patients
from fhir_facade.identity import installation_ids
from fhir_facade.polled import Polled
from fhir_facade.render import FhirRenderer

from gateway.exchange.client import HttpClient
from gateway.exchange.poller import Poller, PollLimits
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.demographics import issue_of_study
from gateway.store.tables import fhir_poll, fhir_resource, study
from tests.exchange import fhir_server
from tests.hooks import Receiver, receiver
from tests.unit.fhir import cases

LIMITS = PollLimits(
    every=timedelta(minutes=5),
    overlap=timedelta(minutes=2),
    first=timedelta(days=1),
    page=2,
    pages=3,
    retry_first=timedelta(seconds=10),
    retry_limit=timedelta(minutes=10),
)


@dataclass
class Asking:
    """A store that holds one patient, and what asks about it; the clock is the test's."""

    store: Store
    counters: Counters = field(default_factory=Counters)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def ask(self, server: str, *types: str) -> None:
        """Ask once for each type, as the loop does, by a poller made anew."""
        patients = Patients(installation_ids(self.store.data_dir))
        poller = Poller(
            store=self.store,
            heartbeat=Heartbeat(self.store, "deliver", self.counters),
            server=server,
            client=HttpClient(60.0, 1 << 20),
            headers={"Authorization": "Bearer not-for-logs"},
            types=types,
            take=Polled(patients, server),
            limits=LIMITS,
            now=lambda: self.now,
        )
        for resource_type in types or ("Patient",):
            poller.ask(resource_type)

    def patient(self) -> dict[str, Any]:
        """Return the patient as it stands."""
        with self.store.read() as connection:
            query = sa.select(fhir_resource.c.body).where(fhir_resource.c.type == "Patient", fhir_resource.c.is_current)
            content: dict[str, Any] = orjson.loads(connection.execute(query).scalar_one())
            return content

    def mark(self, resource_type: str = "Patient") -> Any:
        """Return how far was asked."""
        with self.store.read() as connection:
            return connection.execute(sa.select(fhir_poll).where(fhir_poll.c.type == resource_type)).one()


@pytest.fixture
def asking(store: Store) -> Asking:
    """Give a store with the images of one patient."""
    given = cases.study(patient_id_issuer="1.2.40")
    renderer = FhirRenderer(installation_ids(store.data_dir), zone=UTC)
    cases.commit(store, cases.finished(cases.pneumonia(), study=given), renderer)
    columns = (
        "patient_id",
        "patient_id_issuer",
        "patient_name",
        "patient_birth_date",
        "patient_sex",
        "accession_number",
    )
    with store.write() as connection:
        connection.execute(sa.update(study).values({name: getattr(given, name) for name in columns}))
    return Asking(store)


@pytest.fixture
def scripted() -> Iterator[Receiver]:
    """Give a server that answers as it is bid."""
    with receiver() as server:
        yield server


def person(value: str = "P-17", **elements: Any) -> dict[str, Any]:
    """Return a Patient of the hospital."""
    identifier = [{"system": "urn:oid:1.2.40", "value": value}]
    name = [{"family": "Müller", "given": ["Anna"]}]
    return {"resourceType": "Patient", "id": f"h-{value}", "identifier": identifier, "name": name, **elements}


def page(*resources: dict[str, Any], following: str = "") -> bytes:
    """Return a page of a search."""
    links = [{"relation": "next", "url": following}] if following else []
    entries = [{"resource": each, "search": {"mode": "match"}} for each in resources]
    return orjson.dumps({"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries})


def test_updates_of_a_real_server_are_taken_and_what_differs_is_flagged(asking: Asking) -> None:
    """An address comes over; another birth date and accession number are flagged; strangers are not taken."""
    images = {
        "resourceType": "ImagingStudy",
        "status": "available",
        "subject": {"reference": "Patient/h-P-17"},
        "identifier": [
            {"system": "urn:dicom:uid", "value": f"urn:oid:{cases.STUDY_UID}"},
            {"type": {"coding": [{"code": "ACSN"}]}, "value": "ACC-OTHER"},
        ],
    }
    contact = {"telecom": [{"system": "phone", "value": "1"}], "managingOrganization": {"reference": "Organization/7"}}
    with fhir_server() as hospital:
        server = str(hospital.base_url).rstrip("/")
        hospital.post("/Patient", json=person(birthDate="1971-01-01", **contact))
        hospital.post("/Patient", json=person("STRANGER"))
        asking.ask(server)
        first = asking.patient()
        hospital.post("/ImagingStudy", json=images)
        asking.ask(server, "ImagingStudy")
        asked = hospital.get("/_requests").json()
    with asking.store.read() as connection:
        issue = issue_of_study(connection, cases.STUDY_UID)

    assert first["telecom"] == contact["telecom"]
    assert first["managingOrganization"] == {"reference": f"{server}/Organization/7"}
    assert first["meta"]["tag"][0]["code"] == "mismatch"
    assert issue is not None
    assert (issue.elements, issue.source) == (["accession", "birthDate"], server)
    assert asking.counters.snapshot()['hybridmed_fhir_polled_total{type="Patient",outcome="unknown"}'] == 1
    assert any(each.startswith("GET /Patient?_lastUpdated=gt") for each in asked)


def test_a_patient_is_known_by_any_identifier(asking: Asking, scripted: Receiver) -> None:
    """A number of another authority may stand before the one that the images carry."""
    national = {"system": "urn:oid:1.2.99", "value": "N-1"}
    known = person(active=True)
    scripted.body = page(known | {"identifier": [national, *known["identifier"]]})
    asking.ask(scripted.url)

    assert asking.patient()["active"] is True
    assert asking.patient()["identifier"][0] == national


def test_pages_are_followed_resumed_and_asked_again_with_an_overlap(asking: Asking, scripted: Receiver) -> None:
    """After an error in the middle the same page is asked again, by another process; then from the first clock on."""
    scripted.body = page(person(active=True), following=f"{scripted.url}/page/2")
    asking.ask(scripted.url)
    after_three = asking.mark().next_link
    scripted.statuses = [500]
    asking.ask(scripted.url)
    failed = asking.mark()
    asking.ask(scripted.url)
    asking.now += timedelta(seconds=11)
    scripted.body = page(person(gender="female"))
    asking.ask(scripted.url)
    done = asking.mark()
    paths = [told.path for told in scripted.take()]
    asking.now += timedelta(minutes=5, seconds=1)
    asking.ask(scripted.url)
    (again,) = scripted.take()
    since = datetime.fromisoformat(parse_qs(urlsplit(again.path).query)["_lastUpdated"][0].removeprefix("gt"))

    assert after_three == f"{scripted.url}/page/2"
    assert (failed.failures, failed.reason, failed.next_link) == (1, "HTTP 500", after_three)
    assert [path.partition("?")[0] for path in paths] == ["/Patient", "/page/2", "/page/2", "/page/2", "/page/2"]
    assert (done.failures, done.next_link) == (0, None)
    assert asking.patient()["gender"] == "female"
    assert abs(since - (done.since - LIMITS.overlap)) < timedelta(seconds=1)
    assert again.headers["authorization"] == "Bearer not-for-logs"


def test_what_has_not_changed_is_asked_with_its_etag(asking: Asking, scripted: Receiver) -> None:
    """A round that finds nothing asks the same again, with the ETag, and takes 304 for an answer."""
    scripted.body, scripted.extra = page(), {"ETag": 'W/"7"'}
    for status in (200, 200, 304):
        scripted.statuses = [status]
        asking.ask(scripted.url)
        asking.now += timedelta(minutes=6)
    first, second, third = scripted.take()

    assert second.path != first.path
    assert third.path == second.path
    assert third.headers["if-none-match"] == 'W/"7"'


def test_a_server_that_leads_elsewhere_or_speaks_nonsense(asking: Asking, scripted: Receiver) -> None:
    """The token goes to no other server; what is no Bundle, and what is too large, is an error that is tried again."""
    reasons = []
    for body in (page(person(), following="http://192.0.2.1/next"), b"<html>", b"x" * (2 << 20)):
        scripted.body = body
        asking.ask(scripted.url)
        reasons.append(asking.mark().reason)
        asking.now += timedelta(hours=1)

    assert reasons == [
        "the next page would be another server's",
        "the answer is no Bundle",
        "the answer has more than 1048576 bytes",
    ]
