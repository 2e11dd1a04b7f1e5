"""Subscriptions over real HTTP: R4's rest-hook and the R5 backport, told by the loop of the role `deliver`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from fhir_facade.subscriptions.matcher import Matcher

from gateway.store.access import Grant, add_token, new_token, revoke_token
from gateway.store.results import FhirVersion, write_resources
from gateway.store.tables import fhir_subscription
from tests.subscribing import JSON, TOPIC, Hooked, hooked, parameters, subscription, topical
from tests.unit.fhir import cases
from tests.unit.fhir.node import complaints

__all__ = ["hooked"]


def test_r4_tells_what_meets_the_criteria_with_the_resource_or_without(hooked: Hooked) -> None:
    """An empty POST, or a PUT of the version below the endpoint; other resources and criteria tell nobody."""
    empty = hooked.subscribe(header=["Authorization: Bearer not-for-logs"])
    full = hooked.subscribe(payload="application/fhir+json")
    hooked.subscribe(criteria="DiagnosticReport?status=final")
    hooked.tell()
    cases.commit(hooked.store, cases.finished(cases.pneumonia()))
    hooked.tell()
    post, put = sorted(hooked.endpoint.take(), key=lambda told: told.method)
    report = hooked.http.get("/DiagnosticReport").json()["entry"][0]["resource"]

    assert [hooked.read(each["id"])["status"] for each in (empty, full)] == ["active", "active"]
    assert (post.method, post.path, post.body) == ("POST", "/hook", b"")
    assert post.headers["authorization"] == "Bearer not-for-logs"
    assert empty["channel"]["header"] == ["Authorization: withheld"]
    assert (put.method, put.path) == ("PUT", f"/hook/DiagnosticReport/{report['id']}")
    assert put.json() == report


def test_the_backport_shakes_hands_numbers_events_and_keeps_alive(hooked: Hooked, tmp_path: Path) -> None:
    """Handshake, then events from 1 without gaps, two in one notification; a heartbeat after the silence; all valid."""
    made = topical(
        hooked.endpoint.url, "full-resource", "DiagnosticReport?modality=DX", heartbeat_period=60, max_count=2
    )
    created = hooked.http.post("/Subscription", json=made, headers=JSON).json()
    hooked.tell()
    (handshake,) = hooked.endpoint.take()
    for number in range(3):
        uid = f"{cases.STUDY_UID}.{number}"
        of_study = cases.study(study_instance_uid=uid)
        cases.commit(hooked.store, cases.finished(cases.pneumonia(), study=of_study, bundle=f"cxr-{number}"))
    hooked.tell()
    notified = [told.json() for told in hooked.endpoint.take()]
    hooked.wait(seconds=61)
    hooked.tell()
    (heartbeat,) = hooked.endpoint.take()
    ours = [handshake.json(), *notified, heartbeat.json(), hooked.read(created["id"])]

    assert created["status"] == "requested"
    assert hooked.read(created["id"])["status"] == "active"
    assert parameters(handshake.json()) == {
        "subscription": {"reference": f"{str(hooked.http.base_url).rstrip('/')}/Subscription/{created['id']}"},
        "topic": TOPIC,
        "status": "requested",
        "type": "handshake",
        "events-since-subscription-start": "0",
        "notification-event": [],
    }
    assert [[each["event-number"] for each in parameters(bundle)["notification-event"]] for bundle in notified] == [
        ["1", "2"],
        ["3"],
    ]
    assert parameters(notified[1])["events-since-subscription-start"] == "3"
    assert [entry["resource"]["resourceType"] for entry in notified[0]["entry"]] == [
        "Parameters",
        "DiagnosticReport",
        "DiagnosticReport",
    ]
    assert parameters(heartbeat.json())["type"] == "heartbeat"
    assert parameters(heartbeat.json())["events-since-subscription-start"] == "3"
    assert complaints(ours, tmp_path) == []


def test_id_only_and_events_asked_for_again(hooked: Hooked) -> None:
    """No resource is sent; `$events` tells the same events again, never more content; `$status` counts them."""
    created = hooked.http.post("/Subscription", json=topical(hooked.endpoint.url, "id-only"), headers=JSON).json()
    hooked.tell()
    cases.commit(hooked.store, cases.finished(cases.pneumonia()))
    hooked.tell()
    cases.commit(hooked.store, cases.finished(cases.pneumonia(with_fine=False), revision=2))
    hooked.tell()
    _, first, second = (told.json() for told in hooked.endpoint.take())
    address = f"/Subscription/{created['id']}"
    again = hooked.http.get(f"{address}/$events", params={"eventsSinceNumber": "2", "content": "full-resource"}).json()
    status = hooked.http.get(f"{address}/$status").json()
    of_all = hooked.http.get("/Subscription/$status", params={"status": "active"}).json()
    focus = parameters(second)["notification-event"][0]["focus"]

    assert [entry["request"]["method"] for entry in (first["entry"][1], second["entry"][1])] == ["POST", "PUT"]
    assert "resource" not in second["entry"][1]
    assert hooked.http.get(focus["reference"]).json()["meta"]["versionId"] == "2"
    assert parameters(again)["type"] == "query-event"
    assert again["entry"][1] == second["entry"][1]
    assert len(again["entry"]) == 2
    assert parameters(status)["events-since-subscription-start"] == "2"
    assert of_all["total"] == 1


def test_what_fails_is_tried_again_then_off_and_can_be_opened_again(hooked: Hooked) -> None:
    """Back-off between tries, the reason in the resource; off after three; a PUT opens it, with numbers that go on."""
    created = hooked.subscribe(payload="application/fhir+json")
    hooked.tell()
    cases.commit(hooked.store, cases.finished(cases.pneumonia()))
    hooked.endpoint.statuses = [503, 302, 404]
    hooked.endpoint.location = f"{hooked.endpoint.url}/elsewhere"
    hooked.tell()
    in_error = hooked.read(created["id"])
    hooked.tell()
    hooked.wait(seconds=11)
    hooked.tell()
    hooked.wait(seconds=21)
    hooked.tell()
    off = hooked.read(created["id"])
    paths = {told.path for told in hooked.endpoint.take()}
    kept = {name: value for name, value in off.items() if name not in {"error", "meta"}}
    reopened = hooked.http.put(f"/Subscription/{created['id']}", json=kept | {"status": "requested"}, headers=JSON)
    hooked.tell()

    assert (in_error["status"], in_error["error"]) == ("error", "the endpoint answered 503")
    assert (off["status"], off["error"]) == ("off", "the endpoint answered 404; 3 failures in a row")
    assert len(paths) == 1
    assert reopened.status_code == 200
    assert hooked.read(created["id"])["status"] == "active"
    assert [told.method for told in hooked.endpoint.take()] == ["PUT"]
    assert hooked.counters.snapshot()['hybridmed_fhir_notifications_total{outcome="failed"}'] == 3


def test_a_transaction_that_commits_late_is_told(hooked: Hooked) -> None:
    """A version whose row was numbered before another's, and committed after that one was told, is told too."""
    if hooked.store.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer: what is numbered first is committed first")
    created = hooked.http.post("/Subscription", json=topical(hooked.endpoint.url, "id-only"), headers=JSON).json()
    hooked.tell()
    hooked.endpoint.take()
    with hooked.store.write() as late:
        write_resources(late, [report("late")], hooked.now, job_id=None)
        with hooked.store.write() as early:
            write_resources(early, [report("early")], hooked.now, job_id=None)
        hooked.tell()
        before = [parameters(told.json())["notification-event"] for told in hooked.endpoint.take()]
    hooked.tell()
    after = [parameters(told.json())["notification-event"] for told in hooked.endpoint.take()]

    assert [(each["event-number"], each["focus"]["reference"][-5:]) for (each,) in before] == [("1", "early")]
    assert [(each["event-number"], each["focus"]["reference"][-5:]) for (each,) in after] == [("2", "/late")]
    assert hooked.read(created["id"])["status"] == "active"


def test_of_several_processes_one_tells(hooked: Hooked) -> None:
    """Notifiers that look at the same moment: each event is told once, and in order."""
    created = hooked.http.post("/Subscription", json=topical(hooked.endpoint.url, "id-only"), headers=JSON).json()
    hooked.tell()
    hooked.endpoint.take()
    with hooked.store.write() as connection:
        write_resources(connection, [report(f"r{number}") for number in range(5)], hooked.now, job_id=None)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: Matcher(hooked.store, UTC, lambda: hooked.now).match_some(), range(4)))
        list(pool.map(lambda _: hooked.notifier().tell(created["id"]), range(4)))
    told = [parameters(each.json())["notification-event"] for each in hooked.endpoint.take()]

    assert [each["event-number"] for (each,) in told] == ["1", "2", "3", "4", "5"]


def report(resource_id: str) -> FhirVersion:
    """Return a report that says next to nothing."""
    body = b'{"resourceType":"DiagnosticReport","id":"%b","status":"final","code":{"text":"x"}}' % resource_id.encode()
    return FhirVersion("DiagnosticReport", resource_id, None, body)


def test_whoever_lost_access_is_told_no_more(hooked: Hooked) -> None:
    """Once its owner's token is revoked a subscription is off, with the reason, before another event leaves."""
    created = hooked.subscribe()
    owner = {"name": "ehr", "kind": "token", "scopes": None, "patient": None}
    grant = Grant("token", "ehr", ["viewer"], None, None, hooked.now + timedelta(days=1))
    with hooked.store.write() as connection:
        add_token(connection, new_token("token"), grant, hooked.now)
        connection.execute(sa.update(fhir_subscription).values(owner=owner))
    hooked.tell()
    active = hooked.read(created["id"])["status"]
    with hooked.store.write() as connection:
        revoke_token(connection, "ehr", hooked.now)
    cases.commit(hooked.store, cases.finished(cases.pneumonia()))
    hooked.tell()

    assert active == "active"
    assert hooked.read(created["id"])["status"] == "off"
    assert hooked.read(created["id"])["error"] == "the access of its owner was revoked"
    assert hooked.endpoint.take() == []


def test_what_a_client_may_not_ask_for(hooked: Hooked) -> None:
    """Endpoints elsewhere, other channels, criteria that are not understood, ids of its own: each with its reason."""
    url = hooked.endpoint.url
    refused = {
        "endpoint": {**subscription("http://192.0.2.1")},
        "user": {**subscription("http://a:b@127.0.0.1")},
        "channel": subscription(url, type="email"),
        "criteria": subscription(url, "DiagnosticReport?nonsense=1"),
        "type": subscription(url, "Claim?status=active"),
        "form": subscription(url, "DiagnosticReport?_sort=date"),
        "payload": subscription(url, payload="application/fhir+xml"),
        "header": subscription(url, header=["Host: elsewhere"]),
        "line": subscription(url, header=["A: b\r\nC: d"]),
        "content": topical(url, "everything"),
        "end": {**subscription(url), "end": "2020-01-01T00:00:00Z"},
        "unknown": {**subscription(url), "nonsense": 1},
    }
    answers = {name: hooked.http.post("/Subscription", json=each, headers=JSON) for name, each in refused.items()}
    created = hooked.subscribe()
    stale = hooked.http.put(
        f"/Subscription/{created['id']}", json=created | {"status": "off"}, headers={**JSON, "If-Match": 'W/"9"'}
    )
    own_id = hooked.http.put("/Subscription/mine", json=created | {"id": "mine"}, headers=JSON)
    hooked.subscribe()
    hooked.subscribe()
    too_many = hooked.http.post("/Subscription", json=subscription(url), headers=JSON)
    gone = hooked.http.delete(f"/Subscription/{created['id']}")

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(refused, 422)
    assert all(answer.json()["resourceType"] == "OperationOutcome" for answer in answers.values())
    assert (stale.status_code, own_id.status_code, too_many.status_code) == (412, 405, 400)
    assert gone.status_code == 204
    assert hooked.http.get(f"/Subscription/{created['id']}").status_code in {404, 410}
    assert hooked.endpoint.take() == []
