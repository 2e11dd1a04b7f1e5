"""The HTTP server itself: bounds of a request, headers of every answer."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from datetime import UTC

import httpx
from fhir_facade.app import create_app as create_fhir_app
from starlette.types import Receive, Scope, Send

from gateway.services import Counters
from gateway.store import Store
from gateway.web import HttpParts, WebRole, create_app
from gateway.web.auth import Access
from gateway.web.protocol import LONGEST_HEAD
from tests.services.process import HANGS_S, free_port, listens, wait_until
from tests.unit.web.serving import served


def application(store: Store) -> HttpParts:
    """Return what an application without authentication is made of."""
    return HttpParts(store, create_fhir_app(store, zone=UTC), Access("none"), Counters(), 0)


async def _failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("nobody foresaw it")


def test_an_answer_to_what_nobody_foresaw_carries_the_headers_too(local_store: Store) -> None:
    """It is counted as well, and tells nothing of the error."""
    parts = replace(application(local_store), fhir=_failing)
    with served(create_app(parts)) as client:
        # A connection for each: the server closes one on which an exception came up to it.
        addresses = [client.base_url.join(path) for path in ("/fhir/Patient", "/healthz", "/nowhere")]
        answers = [httpx.get(address, timeout=60) for address in addresses]

    assert [answer.status_code for answer in answers] == [500, 200, 404]
    for name in ("X-Content-Type-Options", "X-Frame-Options", "Content-Security-Policy", "Cache-Control"):
        assert len({answer.headers[name] for answer in answers}) == 1
    assert "foresaw" not in answers[0].text
    assert parts.counters.snapshot()['hybridmed_http_responses_total{status="500"}'] == 1


def test_an_address_may_hold_a_nul(store: Store) -> None:
    """No text of PostgreSQL holds one: what is named so is not there, or not a name."""
    addresses = ("studies/%00", "viewer/studies/1.2%00", "worklist?q=%00&finding=a%00", "dicomweb/studies/1%00/series")
    with served(create_app(application(store))) as client:
        statuses = [client.get(f"/{address}").status_code for address in addresses]

    assert statuses == [404, 404, 200, 400]


def test_a_head_without_end_is_refused(local_store: Store) -> None:
    """A request whose headers go on and on is answered 400, and the connection closed; a body may be long.

    Trailers behind the body that go on and on end the connection too: many of them, and one.
    """
    stop = threading.Event()
    port = free_port()
    role = WebRole(create_app(application(local_store)), bind="127.0.0.1", port=port)
    thread = threading.Thread(target=role.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: listens(port), HANGS_S, "the role listens")
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base, timeout=60) as client:
            client.get("/healthz")
            long_body = client.post("/dicomweb/studies", content=b"x" * (LONGEST_HEAD * 4))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
            answer = _flood(connection)
        ends = [_is_cut(port, trailer) for trailer in (b"a: b\r\n" * 700, b"x" * 4096)]
    finally:
        stop.set()
        thread.join(30)

    assert long_body.status_code in (400, 403, 404, 405, 415, 503)
    assert answer.startswith(b"HTTP/1.1 400")
    assert ends == [True, True]


def _is_cut(port: int, trailer: bytes) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: ")
        try:
            for _ in range(1024):
                connection.sendall(trailer)
        except OSError:
            return True
    return False


def _flood(connection: socket.socket) -> bytes:
    for _ in range(256):
        try:
            connection.sendall(b"x" * 4096)
        except OSError:
            break
    try:
        return connection.recv(4096)
    except ConnectionResetError:
        return b"HTTP/1.1 400 (reset behind it)"
