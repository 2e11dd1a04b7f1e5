"""Open pages are told of changes by server-sent events, and hold nothing up."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC

import httpx
import pytest
from fhir_facade.app import create_app as create_fhir_app
from starlette.applications import Starlette
from starlette.routing import Route

from gateway.services import Counters
from gateway.store import Store
from gateway.web import HttpParts, WebRole, create_app
from gateway.web.auth import Access
from gateway.web.live import LiveFeed
from tests.integration.worklist_rows import suspicious
from tests.services.process import HANGS_S, free_port, listens, wait_until
from tests.unit.web.serving import served

BEARER = "correct horse"
OPEN = Access("none")
TOKEN = Access("token", [hashlib.sha256(BEARER.encode()).hexdigest()])
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
CHINESE = {**BROWSER, "Accept-Language": "zh-CN,zh;q=0.9"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'--"

Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def serve(sqlite_store: Store) -> Serve:
    """Give a function that serves the application over a fresh store."""

    def serve(access: Access = OPEN, **values: object) -> AbstractContextManager[httpx.Client]:
        parts = {"store": sqlite_store, "fhir": create_fhir_app(sqlite_store, zone=UTC), "access": access}
        return served(create_app(HttpParts(**parts | {"counters": Counters(), "reserve_bytes": 0} | values)))

    return serve


@pytest.fixture
def client(serve: Serve) -> Iterator[httpx.Client]:
    """Give a client of an application without authentication."""
    with serve() as made:
        made.headers.update(BROWSER)
        yield made


def events(lines: Iterator[str]) -> Iterator[str]:
    """Yield the names of a stream's events."""
    return (line.removeprefix("event: ") for line in lines if line.startswith("event: "))


def test_open_pages_are_told_of_changes(sqlite_store: Store, client: httpx.Client) -> None:
    """A study arrives after the streams have begun, and every open page is told once, soon."""
    with client.stream("GET", "/worklist/events") as one, client.stream("GET", "/worklist/events") as other:
        streams = [events(one.iter_lines()), events(other.iter_lines())]
        assert [next(stream) for stream in streams] == ["hello", "hello"]
        began = time.monotonic()
        suspicious(sqlite_store)

        assert [next(stream) for stream in streams] == ["changed", "changed"]
        assert time.monotonic() - began < 60
        assert one.headers["content-type"].startswith("text/event-stream")
        assert one.headers["cache-control"] == "no-store"


def test_the_number_of_live_pages_is_bounded(sqlite_store: Store) -> None:
    """One too many is refused and told when to come back; a page that closes makes room."""
    feed = LiveFeed(sqlite_store, threading.Event(), most_clients=1)
    with served(Starlette(routes=[Route("/events", feed.stream)])) as client:
        with client.stream("GET", "/events") as stream:
            told = events(stream.iter_lines())  # kept: a stream whose reader is gone is closed
            assert next(told) == "hello"
            refused = client.get("/events")
        statuses = []
        deadline = time.monotonic() + HANGS_S
        while 200 not in statuses and time.monotonic() < deadline:
            with client.stream("GET", "/events") as later:
                statuses.append(later.status_code)
            time.sleep(0.1)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    assert statuses[-1] == 200


def test_open_streams_do_not_hold_up_the_end(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to stop, the role ends though a page is open, long before the time that a drain may take."""
    monkeypatch.setattr("gateway.web.role._DRAIN_S", 600)
    port = free_port()
    parts = HttpParts(sqlite_store, create_fhir_app(sqlite_store), OPEN, Counters(), 0)
    stop = threading.Event()
    role = WebRole(create_app(parts), bind="127.0.0.1", port=port, closing=parts.closing)
    thread = threading.Thread(target=role.run, args=(stop,))
    thread.start()
    wait_until(lambda: listens(port), HANGS_S, "the role listens")
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        client.stream("GET", "/worklist/events") as stream,
    ):
        told = events(stream.iter_lines())
        assert next(told) == "hello"
        stop.set()
        thread.join(timeout=60)
        has_ended = not thread.is_alive()
        rest = list(told)

    assert has_ended
    assert rest == []
