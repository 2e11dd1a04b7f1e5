"""The role `web` as the network sees it: TLS, proxies in front, scripts of other sites, slow heads and bodies."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from fhir_facade.app import create_app as create_fhir_app

from gateway.services import Counters
from gateway.store import Store
from gateway.tls import Reloading, TlsFiles, client_context, server_context
from gateway.web import HttpParts, WebRole, create_app
from gateway.web.access.limits import Rates
from gateway.web.auth import Access
from gateway.web.protocol import BoundedHttpProtocol
from gateway.web.role import Front
from tests.access import made_token, serving
from tests.certificates import Authority
from tests.services.process import HANGS_S, free_port, listens, wait_until

APP = "https://app.example"


@contextmanager
def running(store: Store, front: Front, access: Access | None = None) -> Iterator[int]:
    """Run the role; give its port."""
    port = free_port()
    parts = HttpParts(store, create_fhir_app(store), access or Access("token"), Counters(), 0)
    role = WebRole(create_app(parts), bind="127.0.0.1", port=port, closing=parts.closing, front=front)
    stop = threading.Event()
    thread = threading.Thread(target=role.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: listens(port), HANGS_S, "the role listens")
        yield port
    finally:
        stop.set()
        thread.join(timeout=30)


def test_mutual_tls_from_end_to_end(sqlite_store: Store, tmp_path: Path) -> None:
    """A client of our authority is served, told to come by TLS only, and given a cookie for TLS alone; others not."""
    authority = Authority(tmp_path)
    made, friend = authority.issue("server"), authority.issue("EHR")
    files = TlsFiles(made.certificate, made.key, peer_ca=authority.certificate)
    tls = Reloading(partial(server_context, files, "required"), files.paths, 1.0)
    token = made_token(sqlite_store, "reader", "viewer")["Authorization"].partition(" ")[2]
    known = client_context(TlsFiles(friend.certificate, friend.key), peer_ca=authority.certificate)

    with running(sqlite_store, Front(tls)) as port:
        base = f"https://localhost:{port}"
        with httpx.Client(base_url=base, verify=known, timeout=60) as client:
            health = client.get("/healthz")
            signed = client.post("/login", data={"token": token}, headers={"Origin": base})
            worklist = client.get("/worklist").status_code
        stranger = client_context(peer_ca=authority.certificate)
        with httpx.Client(base_url=base, verify=stranger, timeout=60) as client, pytest.raises(httpx.TransportError):
            client.get("/healthz")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/healthz", timeout=60)

    assert health.headers["strict-transport-security"] == "max-age=31536000"
    assert "Secure" in signed.headers["set-cookie"]
    assert (signed.status_code, worklist) == (303, 200)


def test_only_a_named_proxy_speaks_for_others(sqlite_store: Store) -> None:
    """Whom it forwards counts by his own address; anybody else's word is not taken."""
    said = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Authorization": "Bearer hmt_x"}
    access = Access("token", rates=Rates(failures_per_minute=1))

    with running(sqlite_store, Front(trusted_proxies=("127.0.0.0/8",)), access) as port:
        forwarded = [_worklist(port, said) for _ in range(2)]
        another = _worklist(port, said | {"X-Forwarded-For": "203.0.113.10"})
    with running(sqlite_store, Front(), access) as port:
        direct = [_worklist(port, said | {"X-Forwarded-For": f"203.0.113.{last}"}) for last in range(2)]

    assert [answer.status_code for answer in (*forwarded, another)] == [401, 429, 401]
    assert "strict-transport-security" in forwarded[0].headers
    assert [answer.status_code for answer in direct] == [401, 429]
    assert "strict-transport-security" not in direct[0].headers


def _worklist(port: int, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}/worklist", headers=headers, timeout=60)


def test_scripts_of_named_sites_may_call_the_apis(sqlite_store: Store) -> None:
    """After a preflight, with a token and without cookies; no other site, and no page of ours."""
    bearer = made_token(sqlite_store, "app", "integrator")
    asked = {"Origin": APP, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    with serving(sqlite_store, Access("token", cors_origins=(APP,))) as client:
        preflight = client.options("/fhir/Patient", headers=asked)
        foreign = client.options("/fhir/Patient", headers=asked | {"Origin": "https://evil.example"})
        page = client.options("/worklist", headers=asked)
        read = client.get("/dicomweb/studies", headers=bearer | {"Origin": APP})
        posted = client.post("/fhir/Patient/_search", headers=bearer | {"Origin": APP})

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-credentials" not in preflight.headers
    assert "access-control-allow-origin" not in foreign.headers
    assert (foreign.status_code, page.status_code) == (400, 401)
    assert read.headers["access-control-allow-origin"] == APP
    assert (read.status_code, posted.status_code) == (204, 200)
    assert "content-security-policy" in preflight.headers


def test_a_head_that_does_not_end_is_given_up(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a connection that says nothing, or says it one byte at a time; one that asks in time is served."""
    monkeypatch.setattr(BoundedHttpProtocol, "head_s", 0.3)
    with running(sqlite_store, Front(), Access("none")) as port:
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.settimeout(30)
            assert silent.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.settimeout(30)
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
            assert slow.recv(1) == b""
        monkeypatch.setattr(BoundedHttpProtocol, "head_s", 3.0)  # a busy computer takes its time, too
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            assert client.get("/healthz").status_code == 200
            time.sleep(4)
            assert client.get("/healthz").status_code == 200


def test_a_body_that_does_not_end_is_given_up(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody had to prove anything, and after a refusal; a body that comes as fast as bodies do is taken."""
    monkeypatch.setattr(BoundedHttpProtocol, "body_s", 0.3)
    head = "Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\n"
    with running(sqlite_store, Front()) as port:
        for asked in ("POST /login", "POST /fhir/Patient"):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
                slow.sendall(f"{asked} HTTP/1.1\r\n{head}a".encode())
                time.sleep(0.1)
                with contextlib.suppress(ConnectionError):  # it may have ended before, on a busy computer
                    slow.sendall(b"b")  # which ends the wait for a next request
                    _read_to_end(slow)
        monkeypatch.setattr(BoundedHttpProtocol, "body_s", 10.0)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            assert client.post("/login", data={"token": "x" * 4000}).status_code == 401


def _read_to_end(connection: socket.socket) -> None:
    while connection.recv(4096):
        continue
