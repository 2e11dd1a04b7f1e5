"""A small HTTP server that is told: it keeps what arrives and answers as it is bid."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_UNCHANGED = 304


@dataclass(frozen=True)
class Told:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as JSON."""
        content: dict[str, Any] = json.loads(self.body)
        return content


@dataclass
class Receiver:
    """What arrived, and what is answered."""

    url: str = ""
    told: list[Told] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Answers to the next requests; then 200."""
    location: str = ""
    """Where a redirect leads."""
    extra: dict[str, str] = field(default_factory=dict)
    """Further headers of each answer."""
    body: bytes = b""
    """Of each answer."""

    def take(self) -> list[Told]:
        """Return what arrived since the last call."""
        arrived, self.told = self.told, []
        return arrived


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Serve on a free port of the loopback."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        """Keeps and answers."""

        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.told.append(Told(self.command, self.path, headers, body))
            status = kept.statuses.pop(0) if kept.statuses else 200
            body = b"" if status == _UNCHANGED else kept.body
            self.send_response(status)
            for name, value in kept.extra.items():
                self.send_header(name, value)
            if kept.location:
                self.send_header("Location", kept.location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked may have heard enough
                self.wfile.write(body)

        do_POST = do_PUT = do_GET = _take

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
