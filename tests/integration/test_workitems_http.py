"""UPS-RS (PS3.18 chapter 11), written out by hand, over a real socket."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from gateway.job import State
from gateway.store import Store, jobs
from gateway.store.jobs import JobFilter, list_jobs
from gateway.store.results import NewArtefact, commit_results
from tests.dicomweb import parts
from tests.upsteps import CT, STUDY, change, code, created, creation, performed, progress, serving, state_of, take_study
from tests.upsteps import value as value_of
from tests.working import add_job, job_of

CLAIM, OTHER_CLAIM = "1.2.840.99.1", "1.2.840.99.2"


@pytest.fixture
def store(local_store: Store) -> Store:
    """Give a store with one complete study."""
    take_study(local_store)
    return local_store


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of the worklist."""
    with serving(store) as made:
        yield made


def uid_of(job_id: str) -> str:
    """Return the UID of a job's workitem, reckoned as PS3.5 B.2 says."""
    return f"2.25.{uuid.UUID(job_id).int}"


def claimed(client: httpx.Client, uid: str, transaction: str = CLAIM) -> None:
    """Claim a workitem."""
    answer = client.put(f"/workitems/{uid}/state", json=[change("IN PROGRESS", transaction)])
    assert answer.status_code == 200, answer.text


def test_every_job_is_a_workitem(store: Store, client: httpx.Client) -> None:
    """A job made by the dispatcher is read as a SCHEDULED step with its study, bundle and input."""
    uid = uid_of(add_job(store, STUDY))

    answer = client.get(f"/workitems/{uid}")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/dicom+json")
    step = answer.json()[0]
    assert value_of(step, "00741000") == "SCHEDULED"
    assert value_of(step, "00741204") == "thresholding"
    assert value_of(step, "00741200") == "MEDIUM"
    assert value_of(step, "00100010") == {"Alphabetic": "Doe^Jane"}
    item = value_of(step, "00404021")
    assert value_of(value_of(item, "00081199"), "00081155") == f"{STUDY}.1.1"
    retrieve = value_of(value_of(item, "0040E025"), "00081190")
    assert retrieve == f"{str(client.base_url).rstrip('/')}/studies/{STUDY}/series/{STUDY}.1"
    assert "00081195" not in step


def test_a_workitem_is_xml_where_that_is_asked_for(store: Store, client: httpx.Client) -> None:
    """One is a document, those found are parts, each the same as in JSON."""
    uid = uid_of(add_job(store, STUDY))

    one = client.get(f"/workitems/{uid}", headers={"Accept": "application/dicom+xml"})
    found = client.get("/workitems", headers={"Accept": 'multipart/related; type="application/dicom+xml"'})

    assert (one.status_code, found.status_code) == (200, 200)
    assert one.headers["Content-Type"] == "application/dicom+xml"
    ((head, part),) = parts(found)
    assert head["Content-Type"] == "application/dicom+xml"
    for document in (one.content, part):
        root = ElementTree.fromstring(document)  # noqa: S314 # our own
        said = {each.get("keyword"): each[0].text for each in root if each.get("vr") in {"CS", "UI"} and len(each)}
        assert (said["SOPInstanceUID"], said["ProcedureStepState"]) == (uid, "SCHEDULED")


def test_a_done_job_names_its_results(store: Store, client: httpx.Client) -> None:
    """The Output Information Sequence of a COMPLETED step names the objects, and progress is 100."""
    job_id = add_job(store, STUDY)
    now = datetime.now(UTC)
    with store.write() as connection:
        claim = jobs.claim(connection, job_id, "w", now, 60)
        assert claim is not None
        report = NewArtefact("seg", 0, "", "application/dicom", STUDY, "1.2.5", CT, "1.2.5.1", "p", "d" * 64, 1)
        commit_results(
            connection,
            claim,
            now,
            algorithm={"name": "thresholding", "version": "1"},
            summary={},
            reason=None,
            artefacts=[report],
            resources=[],
            deliveries=[],
        )

    step = client.get(f"/workitems/{uid_of(job_id)}").json()[0]

    assert value_of(step, "00741000") == "COMPLETED"
    assert value_of(value_of(step, "00741002"), "00741004") == "100"
    output = value_of(value_of(step, "00741216"), "00404033")
    assert value_of(value_of(output, "00081199"), "00081155") == "1.2.5.1"


def test_create_makes_a_job(store: Store, client: httpx.Client) -> None:
    """POST gives 201 and the address; the job waits with the next revision and says who asked."""
    first = add_job(store, STUDY)

    answer = client.post("/workitems", json=[creation(**{"00741200": {"vr": "CS", "Value": ["HIGH"]}})])

    assert answer.status_code == 201
    assert answer.headers["Location"] == answer.headers["Content-Location"]
    assert "Warning" not in answer.headers
    with store.read() as connection:
        made = list_jobs(connection, JobFilter(states=(State.QUEUED,)))
    assert [(row.revision, row.priority, row.requested_by) for row in made] == [(2, "stat", "workitem")]
    assert job_of(store, first).state is State.CANCELLED
    step = client.get(answer.headers["Location"]).json()[0]
    assert value_of(value_of(step, "00741224"), "00081155") == uid_of(first)


def test_create_keeps_the_clients_uid(client: httpx.Client) -> None:
    """The UID of the query is the workitem's; a second creation with it conflicts."""
    answer = client.post("/workitems?workitem=1.2.3.44", json=[creation()])

    assert answer.headers["Location"].endswith("/workitems/1.2.3.44")
    assert value_of(client.get("/workitems/1.2.3.44").json()[0], "00080018") == "1.2.3.44"
    again = client.post("/workitems?workitem=1.2.3.44", json=[creation()])
    assert again.status_code == 409
    assert "299" in again.headers["Warning"]


def test_a_later_start_is_kept(store: Store, client: httpx.Client) -> None:
    """A step that is scheduled for later is not run before."""
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    uid = created(client, **{"00404005": {"vr": "DT", "Value": [start.strftime("%Y%m%d%H%M%S")]}})

    with store.read() as connection:
        assert jobs.count_claimable(connection, datetime.now(UTC)) == 0
        assert jobs.count_claimable(connection, start) == 1
    assert value_of(client.get(f"/workitems/{uid}").json()[0], "00404005") == start.strftime("%Y%m%d%H%M%S.%f+0000")


REFUSED: list[tuple[Any, int, str]] = [
    (creation(study="9.9.9"), 409, "no study 9.9.9"),
    (creation(label="unheard-of"), 400, "installed: other, thresholding"),
    (creation(**{"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}}), 400, "SCHEDULED"),
    (creation(**{"00741200": {"vr": "CS"}}), 400, "ScheduledProcedureStepPriority is required"),
    (creation(**{"00100020": {"vr": "LO", "Value": ["P-2"]}}), 400, "PatientID is not that of the study"),
    (creation(**{"00404005": {"vr": "DT", "Value": ["tomorrow"]}}), 400, "not a DICOM date and time"),
    ("a text", 400, "JSON object"),
    ({"00404021": {"vr": "SQ", "Value": [{"nonsense": 1}]}}, 400, "eight hexadecimal digits"),
]


def test_create_refuses(client: httpx.Client, store: Store) -> None:
    """What cannot be made is refused with the standard's status and a sentence, and makes nothing."""
    for body, status, said in REFUSED:
        answer = client.post("/workitems", json=[body])
        assert (answer.status_code, said in answer.json()["error"]) == (status, True), said
        assert "Doe" not in answer.text
    with store.read() as connection:
        assert list_jobs(connection) == []


def test_the_bundle_is_found_by_code_and_parameter(store: Store, client: httpx.Client) -> None:
    """A workitem code, or a processing parameter, names the bundle before the label does."""
    parameter = {"0040A040": {"vr": "CS", "Value": ["TEXT"]}, "0040A160": {"vr": "UT", "Value": ["other"]}}

    created(client, label="my step", **{"00404018": code("other")})
    created(client, label="my step", **{"00741210": {"vr": "SQ", "Value": [parameter]}})

    with store.read() as connection:
        assert {row.bundle for row in list_jobs(connection)} == {"other"}


def test_changed_wishes_are_told(client: httpx.Client) -> None:
    """LOW becomes MEDIUM, and the creator hears of it."""
    answer = client.post("/workitems", json=[creation(**{"00741200": {"vr": "CS", "Value": ["LOW"]}})])

    assert answer.status_code == 201
    assert "created with modifications" in answer.headers["Warning"]


def test_an_external_performer_does_the_whole_step(store: Store, client: httpx.Client) -> None:
    """Claim, progress, outputs, completion: the job is done, keeps the references and says who performed it."""
    uid = created(client)
    claimed(client, uid)

    assert client.post(f"/workitems/{uid}?{CLAIM}", json=[progress("40")]).status_code == 200
    assert client.post(f"/workitems/{uid}?transaction={CLAIM}", json=[performed()]).status_code == 200
    half = client.get(f"/workitems/{uid}").json()[0]
    done = client.put(f"/workitems/{uid}/state", json=[change("COMPLETED", CLAIM)])

    assert value_of(value_of(half, "00741002"), "00741004") == "40"
    assert done.status_code == 200
    step = client.get(f"/workitems/{uid}").json()[0]
    assert value_of(step, "00741000") == "COMPLETED"
    output = value_of(value_of(step, "00741216"), "00404033")
    assert value_of(value_of(output, "00081199"), "00081155") == "1.2.9.1.1"
    with store.read() as connection:
        row = list_jobs(connection)[0]
    assert row.state is State.DONE
    assert row.summary["text"] == "performed by an external performer: 1 result object named"
    again = client.put(f"/workitems/{uid}/state", json=[change("COMPLETED", CLAIM)])
    assert again.status_code == 200
    assert "already in the requested state of COMPLETED" in again.headers["Warning"]


def test_a_second_claim_conflicts(client: httpx.Client) -> None:
    """A claimed workitem stays its performer's, whatever others ask."""
    uid = created(client)
    claimed(client, uid)

    second = client.put(f"/workitems/{uid}/state", json=[change("IN PROGRESS", OTHER_CLAIM)])
    foreign = client.post(f"/workitems/{uid}?transaction={OTHER_CLAIM}", json=[progress("1")])
    unnamed = client.post(f"/workitems/{uid}", json=[progress("1")])

    assert (second.status_code, foreign.status_code, unnamed.status_code) == (409, 400, 400)
    assert "already IN PROGRESS" in second.json()["error"]
    assert "Transaction UID is incorrect" in foreign.headers["Warning"]
    assert "Transaction UID is missing" in unnamed.headers["Warning"]


def test_our_workers_job_is_not_to_be_had(store: Store, client: httpx.Client) -> None:
    """What a worker of ours runs can be neither claimed nor written, even by a Transaction UID of an earlier claim."""
    uid = created(client)
    claimed(client, uid)
    with store.write() as connection:
        jobs.requeue_expired(connection, datetime.now(UTC) + timedelta(days=1), 5)
        job_id = list_jobs(connection)[0].id
        assert jobs.claim(connection, job_id, "worker", datetime.now(UTC) + timedelta(days=1), 60) is not None

    claim = client.put(f"/workitems/{uid}/state", json=[change("IN PROGRESS", CLAIM)])
    write = client.post(f"/workitems/{uid}?transaction={CLAIM}", json=[progress("50")])
    end = client.put(f"/workitems/{uid}/state", json=[change("CANCELED", CLAIM)])

    assert (claim.status_code, write.status_code, end.status_code) == (409, 400, 400)
    assert "already IN PROGRESS" in claim.json()["error"]


def test_a_performer_that_fell_silent_loses_its_workitem(store: Store, client: httpx.Client) -> None:
    """When the lease runs out the step is SCHEDULED again, without what the performer had written."""
    uid = created(client)
    claimed(client, uid)
    client.post(f"/workitems/{uid}?{CLAIM}", json=[progress("40")])

    with store.write() as connection:
        jobs.requeue_expired(connection, datetime.now(UTC) + timedelta(days=1), 5)

    step = client.get(f"/workitems/{uid}").json()[0]
    assert value_of(step, "00741000") == "SCHEDULED"
    assert "40" not in str(step["00741002"])


def test_an_update_renews_the_lease(store: Store, client: httpx.Client) -> None:
    """A performer that reports keeps its workitem."""
    uid = created(client)
    claimed(client, uid)
    with store.read() as connection:
        before = list_jobs(connection)[0].lease_expires_at

    client.post(f"/workitems/{uid}?{CLAIM}", json=[progress("40")])

    with store.read() as connection:
        after = list_jobs(connection)[0].lease_expires_at
    assert before is not None
    assert after is not None
    assert after > before


def test_completion_needs_the_final_state(client: httpx.Client) -> None:
    """A performed procedure without station, code, times or outputs cannot be COMPLETED."""
    uid = created(client)
    claimed(client, uid)

    for missing in ("00404028", "00404019", "00404050", "00404051", "00404033"):
        written = performed()
        del written["00741216"]["Value"][0][missing]
        client.post(f"/workitems/{uid}?{CLAIM}", json=[written])
        answer = client.put(f"/workitems/{uid}/state", json=[change("COMPLETED", CLAIM)])
        assert answer.status_code == 409, missing
        assert "to be COMPLETED the workitem needs" in answer.json()["error"]
    assert state_of(client, uid) == "IN PROGRESS"


def test_only_the_steps_of_the_standard_are_taken(client: httpx.Client) -> None:
    """Out of SCHEDULED only by a claim, back to it never, and no state that does not exist."""
    uid = created(client)
    put = f"/workitems/{uid}/state"

    assert client.put(put, json=[change("COMPLETED", CLAIM)]).status_code == 409
    assert client.put(put, json=[change("SCHEDULED", CLAIM)]).status_code == 400
    assert client.put(put, json=[change("PAUSED", CLAIM)]).status_code == 400
    assert client.put(put, json=[change("IN PROGRESS", None)]).status_code == 400
    assert client.post(f"/workitems/{uid}", json=[performed()]).status_code == 409
    assert client.put("/workitems/1.2.3.4.5/state", json=[change("IN PROGRESS", CLAIM)]).status_code == 404


def test_a_performer_cancels(store: Store, client: httpx.Client) -> None:
    """CANCELED by the performer ends the job, with when and why."""
    uid = created(client)
    claimed(client, uid)

    answer = client.put(f"/workitems/{uid}/state", json=[change("CANCELED", CLAIM)])

    assert answer.status_code == 200
    progress_item = value_of(client.get(f"/workitems/{uid}").json()[0], "00741002")
    assert value_of(progress_item, "00741238") == "cancelled by its performer"
    assert value_of(value_of(progress_item, "0074100E"), "00080100") == "110513"
    with store.read() as connection:
        assert list_jobs(connection)[0].state is State.CANCELLED


def test_cancel_is_requested(store: Store, client: httpx.Client) -> None:
    """What waits is cancelled, again is a warning, what our worker runs is cancelled, what is done conflicts."""
    waiting = created(client)
    running = created(client, label="other")
    with store.write() as connection:
        other = next(row for row in list_jobs(connection) if row.bundle == "other")
        assert jobs.claim(connection, other.id, "w", datetime.now(UTC), 60) is not None

    first = client.post(f"/workitems/{waiting}/cancelrequest")
    again = client.post(f"/workitems/{waiting}/cancelrequest", json=[{}])
    ours = client.post(f"/workitems/{running}/cancelrequest")

    assert (first.status_code, again.status_code, ours.status_code) == (202, 202, 202)
    assert "already in the requested state of CANCELED" in again.headers["Warning"]
    assert state_of(client, waiting) == state_of(client, running) == "CANCELED"
    done = created(client)
    claimed(client, done)
    unheard = client.post(f"/workitems/{done}/cancelrequest")
    assert unheard.status_code == 409
    assert "cannot be contacted" in unheard.headers["Warning"]
    client.post(f"/workitems/{done}?{CLAIM}", json=[performed()])
    client.put(f"/workitems/{done}/state", json=[change("COMPLETED", CLAIM)])
    late = client.post(f"/workitems/{done}/cancelrequest")
    assert late.status_code == 409
    assert "already COMPLETED" in late.headers["Warning"]


def test_what_has_ended_is_not_updated(client: httpx.Client) -> None:
    """A CANCELED workitem takes no update and no claim."""
    uid = created(client)
    client.post(f"/workitems/{uid}/cancelrequest")

    update = client.post(f"/workitems/{uid}", json=[{"00741204": {"vr": "LO", "Value": ["x"]}}])
    claim = client.put(f"/workitems/{uid}/state", json=[change("IN PROGRESS", CLAIM)])

    assert (update.status_code, claim.status_code) == (400, 400)


def test_a_waiting_workitem_is_rescheduled(store: Store, client: httpx.Client) -> None:
    """Label, priority and start of what waits can be changed without a claim; patient data cannot."""
    uid = created(client)

    raised = client.post(f"/workitems/{uid}", json=[{"00741200": {"vr": "CS", "Value": ["HIGH"]}}])
    named = client.post(f"/workitems/{uid}", json=[{"00741204": {"vr": "LO", "Value": ["urgent one"]}}])
    patient = client.post(f"/workitems/{uid}", json=[{"00100020": {"vr": "LO", "Value": ["P-9"]}}])

    assert (raised.status_code, named.status_code, patient.status_code) == (200, 200, 400)
    step = client.get(f"/workitems/{uid}").json()[0]
    assert (value_of(step, "00741200"), value_of(step, "00741204")) == ("HIGH", "urgent one")
    with store.read() as connection:
        assert list_jobs(connection)[0].priority == "stat"


def test_bodies_are_bounded(client: httpx.Client) -> None:
    """Large, deep and foreign bodies are refused."""
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"00404021": {"vr": "SQ", "Value": [deep]}}

    assert client.post("/workitems", content=b" " * (2 << 20)).status_code == 413
    assert client.post("/workitems", json=[deep]).status_code == 400
    xml = client.post("/workitems", content=b"<x/>", headers={"Content-Type": "application/dicom+xml"})
    assert xml.status_code == 415
    assert client.post("/workitems", content=b"{").status_code == 400
    assert client.get("/workitems/1.2.3.4").status_code == 404
