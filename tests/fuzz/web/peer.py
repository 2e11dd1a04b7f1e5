"""A hand-made client: writes any bytes, and says what came back."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
from dataclasses import dataclass

_ANSWER_LIMIT = 1 << 24
_PATIENCE_S = 0.3
_CLIENT_ERROR = 400
_WITHOUT_BODY = {"HEAD"}


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    outcome: str
    """'status 200' and so on, 'closed' where the connection ended without an answer, 'hang'."""
    status: int = 0
    has_reason: bool = True
    """Whether a refusal says anything."""


def ask(port: int, method: str, data: bytes, limit_s: float, *, is_sound: bool = True) -> Answer:
    """Write bytes; return what came of them.

    Parameters
    ----------
    port
        Of the server, on the loopback interface.
    method
        Of the request, for HEAD is answered without a body.
    data
        What is written.
    limit_s
        After which a server that says nothing hangs.
    is_sound
        Whether an answer is owed. If not we end our side after a while: to wait for the rest of a broken request is
        no fault.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=limit_s) as peer:
        try:
            with contextlib.suppress(ConnectionError):
                peer.sendall(data)
            if not is_sound and not select.select([peer], [], [], _PATIENCE_S)[0]:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_WR)
            return _read(peer, method)
        except TimeoutError:
            return Answer("hang")
        except (ConnectionError, http.client.HTTPException, ValueError):
            return Answer("closed")


def get(path: str) -> bytes:
    """Return a plain request for a path."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode()


def _read(peer: socket.socket, method: str) -> Answer:
    response = http.client.HTTPResponse(peer, method=method)
    try:
        response.begin()
        is_stream = response.getheader("content-type", "").startswith("text/event-stream")
        body = b"" if is_stream else response.read(_ANSWER_LIMIT)
        is_refusal = response.status >= _CLIENT_ERROR and method not in _WITHOUT_BODY
        return Answer(f"status {response.status}", response.status, bool(body) or not is_refusal)
    finally:
        response.close()
