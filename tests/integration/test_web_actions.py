"""What a person does from a study's page, over a real socket and both databases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir_facade.app import create_app as create_fhir_app

from gateway.config import Destination
from gateway.dispatcher import Router
from gateway.job import Priority, State
from gateway.reprocess import Reprocessed, Request, reprocess
from gateway.routing import BundleOffer
from gateway.services import Counters
from gateway.store import Store, deliveries, jobs
from gateway.store.studies import StudyFilter, get_study
from gateway.web import HttpParts, create_app
from gateway.web.actions import Doing
from gateway.web.auth import Access
from tests.unit.report.outcomes import write_xray
from tests.unit.web.serving import served
from tests.verifying import BUNDLE, FIELDS, OUTCOME, resources, take_in_all, verifier, work

PACS = Destination(name="PACS", address="PACS@127.0.0.1:104")
PAGE = {"Accept": "text/html", "Accept-Language": "en"}
OWN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """Give a database; what the actions call is tested on both kinds."""
    return sqlite_store


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of the application."""

    def reprocess_one(uid: str, bundle: str | None, priority: Priority) -> Reprocessed:
        router = Router(store, (), [BundleOffer(BUNDLE, lambda *_: True)], ["PACS"])
        asked = Request(StudyFilter(uids=(uid,)), bundle, priority)
        (made,) = reprocess(store, router, asked, datetime.now(UTC))[1]
        return made

    parts = HttpParts(
        store=store,
        fhir=create_fhir_app(store, zone=UTC),
        access=Access("none"),
        counters=Counters(),
        reserve_bytes=0,
        doing=Doing(verifier(store).verify, reprocess_one),
    )
    with served(create_app(parts)) as made:
        yield made


@pytest.fixture
def study_uid(store: Store, tmp_path: Path) -> str:
    """Give a study of one made X-ray."""
    folder = tmp_path / "source"
    folder.mkdir()
    return take_in_all(store, write_xray(folder))


@pytest.fixture
def job_id(store: Store, study_uid: str) -> str:
    """Give the first revision of its results."""
    return work(store, study_uid, OUTCOME, [PACS])


def _jobs(store: Store, *states: State) -> Sequence[jobs.JobRow]:
    with store.read() as connection:
        return jobs.list_jobs(connection, jobs.JobFilter(states=states))


def test_a_form_verifies_and_leads_back(client: httpx.Client, store: Store, study_uid: str, job_id: str) -> None:
    """303 to the page, which says so; the report read back over FHIR is final, and its history holds both."""
    form = {**FIELDS, "job_id": job_id, "action": "accept", "comment": "Fine"}

    answer = client.post(f"/studies/{study_uid}/verify", data=form, headers=PAGE | OWN)

    assert answer.status_code == 303
    assert answer.headers["location"] == f"/studies/{study_uid}?done=accept"
    page = client.get(answer.headers["location"], headers=PAGE)
    assert "the report is final" in page.text
    assert "Curie" in page.text
    report: Any = resources(store, "DiagnosticReport")[0]
    read = client.get(f"/fhir/DiagnosticReport/{report['id']}").json()
    assert (read["status"], read["resultsInterpreter"][0]["display"]) == ("final", "Marie Curie")
    found = client.get("/fhir/DiagnosticReport?status=final").json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == [report["id"]]
    earlier = client.get(f"/fhir/DiagnosticReport/{report['id']}/_history/1").json()
    assert (earlier["status"], "resultsInterpreter" in earlier) == ("preliminary", False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"observer": ""}, (422, "observer is missing")),
        ({"action": "approve"}, (422, "action is one of")),
        ({"class:0:fine": "<script>alert(1)</script>", "action": "correct"}, (422, "expected one of bacterial, viral")),
        ({"job_id": "nothing"}, (404, "nothing")),
    ],
)
def test_what_does_not_fit_is_told_on_the_page(
    client: httpx.Client, store: Store, job_id: str, change: dict[str, str], expected: tuple[int, str]
) -> None:
    """The page comes back with the sentence, the form as it was filled, and no markup of the sender's."""
    form = {**FIELDS, "job_id": job_id, "action": "accept", "comment": "Typed with care"} | change

    study_uid = _jobs(store)[0].study_instance_uid
    answer = client.post(f"/studies/{study_uid}/verify", data=form, headers=PAGE | OWN)

    assert answer.status_code == expected[0]
    assert expected[1] in answer.text
    assert "Typed with care" in answer.text
    assert "<script>alert" not in answer.text


def test_the_slower_of_two_is_told_who_was_faster(client: httpx.Client, study_uid: str, job_id: str) -> None:
    """409 with name and time; the same form again is no conflict."""
    form = {**FIELDS, "job_id": job_id, "action": "accept"}
    assert client.post(f"/studies/{study_uid}/verify", data=form, headers=PAGE | OWN).status_code == 303

    other = client.post(f"/studies/{study_uid}/verify", data=form | {"observer": "Joliot Irène"}, headers=PAGE | OWN)
    again = client.post(f"/studies/{study_uid}/verify", data=form, headers=PAGE | OWN)

    assert other.status_code == 409
    assert "Marie Curie accepted this result on" in other.text
    assert again.status_code == 303


def test_another_site_cannot_verify(client: httpx.Client, store: Store, study_uid: str, job_id: str) -> None:
    """Neither by a form nor by JSON."""
    fields = {**FIELDS, "job_id": job_id, "action": "accept"}
    address, foreign = f"/studies/{study_uid}/verify", {"Sec-Fetch-Site": "cross-site"}

    assert client.post(address, data=fields, headers=foreign).status_code == 403
    assert client.post(address, json=fields, headers=foreign).status_code == 403
    assert len(_jobs(store)) == 1


def test_a_program_sends_json_and_gets_json(client: httpx.Client, store: Store, study_uid: str, job_id: str) -> None:
    """The same fields; errors have their status and a sentence."""
    fields = {**FIELDS, "job_id": job_id, "action": "correct", "class:0:fine": "viral"}
    address = f"/studies/{study_uid}/verify"

    refused = client.post(address, json=fields | {"action": "accept"})
    made = client.post(address, json=fields)
    again = client.post(address, json=fields)

    assert (refused.status_code, list(refused.json())) == (422, ["error"])
    assert made.json() == {"job_id": _jobs(store)[0].id, "is_new": True}
    assert again.json() == {"job_id": _jobs(store)[0].id, "is_new": False}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"job_id": 1}', 400),
        (b'{"job_id": "\\u0000"}', 400),
        (b'{"comment": "' + b"x" * (1 << 18) + b'"}', 413),
    ],
)
def test_a_body_that_is_none_is_refused(client: httpx.Client, study_uid: str, body: bytes, status: int) -> None:
    """Whatever comes from outside is bounded."""
    headers = {"Content-Type": "application/json"}

    assert client.post(f"/studies/{study_uid}/verify", content=body, headers=headers).status_code == status
    assert client.post("/studies/%00/verify", content=b"{}", headers=headers).status_code == 404


def test_a_job_of_another_study_is_refused(client: httpx.Client, store: Store, study_uid: str, job_id: str) -> None:
    """The address names the study whose page it is."""
    fields = {**FIELDS, "job_id": job_id, "action": "accept"}

    assert client.post("/studies/1.2.3/verify", json=fields).status_code == 422
    assert len(_jobs(store)) == 1


def test_a_study_is_processed_anew(client: httpx.Client, store: Store, study_uid: str, job_id: str) -> None:
    """As by the command; a bundle that is not installed is a sentence."""
    address = f"/studies/{study_uid}/reprocess"

    unknown = client.post(address, data={"bundle": "x-ray-of-tomorrow"}, headers=PAGE | OWN)
    made = client.post(address, data={"stat": "1"}, headers=PAGE | OWN)

    assert (unknown.status_code, "no bundle x-ray-of-tomorrow" in unknown.text) == (404, True)
    assert made.headers["location"].endswith("?done=reprocess")
    (queued,) = _jobs(store, State.QUEUED)
    assert (queued.revision, queued.priority, queued.requested_by) == (2, "stat", "reprocess")


def test_a_study_is_raised_to_stat(client: httpx.Client, store: Store, study_uid: str) -> None:
    """The study stands first from then on."""
    answer = client.post(f"/studies/{study_uid}/stat", headers=PAGE | OWN)

    assert answer.headers["location"].endswith("?done=stat")
    with store.read() as connection:
        assert get_study(connection, study_uid).priority == "stat"
    assert client.post("/studies/1.2.3/stat").status_code == 404


def test_results_are_sent_again(client: httpx.Client, store: Store, study_uid: str, job_id: str) -> None:
    """What was delivered waits again; while nothing was, a sentence says why not."""
    address = f"/studies/{study_uid}/resend"
    early = client.post(address, headers=PAGE | OWN)
    now = datetime.now(UTC)
    with store.write() as connection:
        claimed = deliveries.claim(connection, "PACS", now, 30)
        assert claimed is not None
        deliveries.finish(connection, claimed, now)

    made = client.post(address, data={"destination": "PACS"}, headers=PAGE | OWN)

    assert (early.status_code, "what waits is sent by itself" in early.text) == (409, True)
    assert made.headers["location"].endswith("?done=resend")
    with store.read() as connection:
        assert [row.state for row in deliveries.list_deliveries(connection)] == ["waiting"]
