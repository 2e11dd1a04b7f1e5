"""An ASGI application behind a real socket, for the time of a test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.types import ASGIApp

from gateway.web.protocol import BoundedHttpProtocol
from tests.services.process import HANGS_S


@contextmanager
def served(app: ASGIApp) -> Iterator[httpx.Client]:
    """Serve on a free port of the loopback; give a client of it."""
    config = uvicorn.Config(
        app, http=BoundedHttpProtocol, log_config=None, ws="none", lifespan="off", timeout_keep_alive=60
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + HANGS_S
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=HANGS_S) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=HANGS_S)
        listener.close()
