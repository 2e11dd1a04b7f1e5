"""Subscribers of workitems are told: over web sockets by an independent client, and at the bottom in the store."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gateway.job import State
from gateway.store import Store, jobs
from gateway.store.tables import workitem_event
from gateway.store.workitem_events import forget_stale_events
from gateway.store.workitem_query import workitem_uid
from gateway.web.auth import Access
from gateway.web.dicomweb.subscribers import Subscribers
from tests.upsteps import (
    FILTERED,
    GLOBAL,
    STUDY,
    UPS_PUSH,
    change,
    code,
    created,
    make_worklist,
    progress,
    serving,
    take_study,
    value,
)
from tests.working import add_job, eventually

CLAIM = "1.2.840.99.1"
STATE_REPORT, CANCEL_REQUESTED, PROGRESS, ASSIGNED = 1, 2, 3, 5


@pytest.fixture
def client(local_store: Store) -> Iterator[httpx.Client]:
    """Give a client of a worklist over a store with one complete study."""
    take_study(local_store)
    with serving(local_store) as made:
        yield made


def subscribed(client: httpx.Client, uid: str, query: str = "") -> str:
    """Subscribe WATCHER; return the address of its web socket."""
    answer = client.post(f"/workitems/{uid}/subscribers/WATCHER{query}")
    assert answer.status_code == 201, answer.text
    address: str = answer.headers["Content-Location"]
    return address


def told(connected: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the next events."""
    return [json.loads(connected.recv(timeout=120)) for _ in range(count)]


def waiting(store: Store) -> int:
    """Return how many events wait."""
    with store.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(workitem_event)) or 0


def states(events: list[dict[str, Any]]) -> list[str | None]:
    """Return the Procedure Step States that events report."""
    return [value(event, "00741000") for event in events]


def test_a_subscriber_is_told_every_state(client: httpx.Client, local_store: Store) -> None:
    """The present state at once, then what a worker makes of the job, as JSON events of the standard."""
    job_id = add_job(local_store, STUDY)
    uid = workitem_uid(job_id)
    with connect(subscribed(client, uid)) as events_in:
        first = told(events_in, 1)[0]
        with local_store.write() as connection:
            claim = jobs.claim(connection, job_id, "worker", datetime.now(UTC), 60)
            assert claim is not None
        with local_store.write() as connection:
            jobs.kill(connection, claim, datetime.now(UTC), "the weights are broken")

        running, dead = told(events_in, 2)

    assert value(first, "00000002") == UPS_PUSH
    assert value(first, "00001000") == uid
    assert value(first, "00001002") == STATE_REPORT
    assert value(first, "00404041") == "READY"
    assert states([first, running, dead]) == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    assert value(dead, "00741238") == "the weights are broken"
    assert [value(event, "00000110") for event in (first, running, dead)] == [1, 2, 3]


def test_events_wait_for_their_subscriber(client: httpx.Client, local_store: Store) -> None:
    """What happens while no socket is open is told when one opens, once."""
    address = subscribed(client, GLOBAL)
    uid = created(client)

    with connect(address) as events_in:
        assert states(told(events_in, 1)) == ["SCHEDULED"]
        client.post(f"/workitems/{uid}/cancelrequest")
        assert states(told(events_in, 2)) == ["IN PROGRESS", "CANCELED"]
        eventually(lambda: waiting(local_store) == 0, "what was told is forgotten")


def test_progress_assignment_and_cancel_requests_are_told(client: httpx.Client) -> None:
    """Each event of the standard reaches the subscriber with its information."""
    with connect(subscribed(client, GLOBAL)) as events_in:
        uid = created(client, **{"00404025": code("STATION-9")})
        client.put(f"/workitems/{uid}/state", json=[change("IN PROGRESS", CLAIM)])
        client.post(f"/workitems/{uid}?{CLAIM}", json=[progress("25")])
        reason = {"00741238": {"vr": "LT", "Value": ["wrong patient"]}}
        asked = client.post(f"/workitems/{uid}/cancelrequest?requester=NURSE", json=[reason])

        events = told(events_in, 5)

    assert asked.status_code == 202
    kinds = [value(event, "00001002") for event in events]
    assert kinds == [STATE_REPORT, ASSIGNED, STATE_REPORT, PROGRESS, CANCEL_REQUESTED]
    assert value(value(events[1], "00404025"), "00080100") == "STATION-9"
    assert value(value(events[3], "00741002"), "00741004") == "25"
    assert (value(events[4], "00741236"), value(events[4], "00741238")) == ("NURSE", "wrong patient")


def test_a_filter_takes_what_matches_when_it_is_made(client: httpx.Client) -> None:
    """A filtered subscription is told of waiting and of later steps that match, and of no other."""
    early = created(client, label="other")
    with connect(subscribed(client, FILTERED, "?ProcedureStepLabel=other")) as events_in:
        created(client)
        late = created(client, label="other")

        events = told(events_in, 3)

    assert [value(event, "00001000") for event in events] == [early, early, late]
    assert states(events) == ["SCHEDULED", "CANCELED", "SCHEDULED"]


def test_subscriptions_end_and_pause(client: httpx.Client, local_store: Store) -> None:
    """An exception takes one step out of a global subscription, a suspension all later ones; DELETE ends all."""
    take_study(local_store, "1.2.4")
    base = f"/workitems/{GLOBAL}/subscribers/WATCHER"
    subscribed(client, GLOBAL)
    quiet, loud = created(client), created(client, study="1.2.4")
    assert client.delete(f"/workitems/{quiet}/subscribers/WATCHER").status_code == 200
    assert client.post(f"{base}/suspend").status_code == 200
    later = created(client, label="other")
    for uid in (quiet, loud, later):
        client.post(f"/workitems/{uid}/cancelrequest")

    with connect(f"{str(client.base_url).replace('http', 'ws', 1)}subscribers/WATCHER") as events_in:
        events = told(events_in, 4)

    expected = [(quiet, "SCHEDULED"), (loud, "SCHEDULED"), (loud, "IN PROGRESS"), (loud, "CANCELED")]
    assert list(zip([value(event, "00001000") for event in events], states(events), strict=True)) == expected
    assert client.delete(base).status_code == 200
    assert client.post(f"{base}/suspend").status_code == 404
    created(client)
    assert waiting(local_store) == 0


def test_a_subscription_that_cannot_be_is_refused(client: httpx.Client) -> None:
    """No such workitem, no AE title, a filter without keys, a single workitem to suspend."""
    uid = created(client)

    assert client.post("/workitems/1.2.3.4/subscribers/WATCHER").status_code == 404
    assert client.post(f"/workitems/{uid}/subscribers/{'X' * 17}").status_code == 400
    assert client.post(f"/workitems/{FILTERED}/subscribers/WATCHER").status_code == 400
    assert client.post(f"/workitems/{uid}/subscribers/WATCHER/suspend").status_code == 400


def handshake(port: int | None, host: str) -> bytes:
    """Ask for a web socket under a name of the server; return the status line."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    lines = ["GET /dicomweb/subscribers/WATCHER HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    request = "\r\n".join([*lines, f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""])
    with socket.create_connection(("127.0.0.1", port or 0), timeout=60) as raw:
        raw.sendall(request.encode())
        return raw.recv(4096).split(b"\r\n", maxsplit=1)[0]


def test_no_other_site_opens_a_socket(client: httpx.Client) -> None:
    """Without authentication a socket opens for programs and our own pages alone, under a loopback name."""
    address = f"{str(client.base_url).replace('http', 'ws', 1)}subscribers/WATCHER"
    own = str(client.base_url).removesuffix("/dicomweb/")

    with connect(address, origin=own):  # type: ignore[arg-type] # a NewType of str
        pass
    with (
        pytest.raises(InvalidStatus) as foreign,
        connect(address, origin="http://evil.example"),  # type: ignore[arg-type] # as above
    ):
        pass

    assert foreign.value.response.status_code == 403
    assert b" 403 " in handshake(client.base_url.port, host="evil.example")
    assert b" 101 " in handshake(client.base_url.port, host="localhost")


def test_a_socket_needs_the_token(local_store: Store) -> None:
    """With tokens, a socket opens for who shows one."""
    access = Access("token", [hashlib.sha256(b"s3cret").hexdigest()])
    with serving(local_store, access) as client:
        address = f"{str(client.base_url).replace('http', 'ws', 1)}subscribers/WATCHER"

        with connect(address, additional_headers={"Authorization": "Bearer s3cret"}):
            pass
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(address, additional_headers={"Authorization": "Bearer wrong"}),
        ):
            pass

    assert refused.value.response.status_code == 403


def test_a_subscriber_that_does_not_read_is_disconnected(store: Store) -> None:
    """Its socket is closed, so that it connects anew; the event still waits."""
    take_study(store)
    make_worklist(store).subscribing.subscribe(GLOBAL, "WATCHER", lock=False, keys={}, by_websocket=True)
    add_job(store, STUDY)
    app = Starlette(routes=Subscribers(store, send_s=0.1).routes())
    scope = {"type": "websocket", "path": "/subscribers/WATCHER", "headers": [], "subprotocols": []}

    async def connected() -> None:
        came: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        came.put_nowait({"type": "websocket.connect"})

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "websocket.send":
                await asyncio.Event().wait()

        await asyncio.wait_for(app(scope, came.get, send), 120)

    asyncio.run(connected())
    assert waiting(store) == 1


def test_every_change_of_a_job_is_an_event(store: Store) -> None:
    """Claim, retry, expiry, death, a second life and the end are told in the transaction that makes them."""
    take_study(store)
    subscribing = make_worklist(store).subscribing
    subscribing.subscribe(GLOBAL, "WATCHER", lock=False, keys={}, by_websocket=True)
    now = datetime.now(UTC)

    job_id = add_job(store, STUDY)
    with store.write() as connection:
        first = jobs.claim(connection, job_id, "w", now, 1)
        assert first is not None
        jobs.release_for_retry(connection, first, now, "again", timedelta(0))
        assert jobs.claim(connection, job_id, "w", now, 1) is not None
        jobs.requeue_expired(connection, now + timedelta(minutes=1), 2)
        jobs.retry_dead(connection, job_id, now)
    newer = add_job(store, STUDY)
    with store.write() as connection:
        jobs.cancel(connection, newer, now)

    query = sa.select(workitem_event.c.job_id, workitem_event.c.content).order_by(workitem_event.c.id)
    with store.read() as connection:
        events = [(row.job_id, value(row.content, "00741000")) for row in connection.execute(query)]
    queued, running, gone = "SCHEDULED", "IN PROGRESS", "CANCELED"
    of_first = [state for each, state in events if each == job_id]
    assert of_first == [queued, running, queued, running, gone, queued, gone]
    assert [state for each, state in events if each == newer] == [queued, gone]


def test_an_undone_change_tells_nothing(store: Store) -> None:
    """A transaction that rolls back leaves no event."""
    take_study(store)
    make_worklist(store).subscribing.subscribe(GLOBAL, "WATCHER", lock=False, keys={}, by_websocket=True)
    job_id = add_job(store, STUDY)

    with pytest.raises(RuntimeError), store.write() as connection:
        jobs.claim(connection, job_id, "w", datetime.now(UTC), 60)
        raise RuntimeError

    with store.read() as connection:
        assert jobs.get_job(connection, job_id).state is State.QUEUED
    assert waiting(store) == 1


def test_nobody_listens_nothing_is_written(store: Store) -> None:
    """Without subscriptions a change of state writes no event."""
    take_study(store)

    add_job(store, STUDY)

    assert waiting(store) == 0


def test_events_that_nobody_fetches_are_forgotten(store: Store) -> None:
    """What is older than the limit goes, what is younger stays."""
    take_study(store)
    make_worklist(store).subscribing.subscribe(GLOBAL, "WATCHER", lock=False, keys={}, by_websocket=True)
    add_job(store, STUDY)
    now = datetime.now(UTC)

    with store.write() as connection:
        assert forget_stale_events(connection, now - timedelta(days=1)) == 0
        assert forget_stale_events(connection, now + timedelta(seconds=1)) == 1
