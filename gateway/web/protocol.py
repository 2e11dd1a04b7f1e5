"""HTTP on a connection: uvicorn's httptools protocol with a bound on what it collects besides bodies, and a `Wire`."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.web.wire import EXTENSION, Wire

LONGEST_HEAD = 1 << 16
"""Bytes of request line and headers that have not ended yet, and of what stands behind the body's last byte in its
request (trailers); the parser itself would collect without end."""
_FEWEST = 1 << 14
"""Bytes that a body brings in each stretch of its time; the rest of it may be less."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses with 400 a request whose head is too long; ends a connection whose head, body or trailers do not end."""

    head_s = 30.0
    """Time for a request's head once it has begun, and for the first one from the connection on."""
    body_s = 30.0
    """Time in which a body that has begun brings its next `_FEWEST` bytes, also one that nobody reads any more."""
    _head_bytes = _body_bytes = 0
    _is_in_head = True
    _head_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the base class
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._end_wait()
        self._end_body_wait()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_s, self.transport.close)

    def _end_wait(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _await_body(self) -> None:
        self._body_bytes = 0
        self._body_timer = self.loop.call_later(self.body_s, self._look_at_body)

    def _end_body_wait(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _look_at_body(self) -> None:
        cycle = self.cycle
        is_asked_for = cycle is None or cycle.response_complete or not cycle.waiting_for_100_continue
        # What we do not read, or did not ask for yet, is not the client's to bring.
        if self._body_bytes < _FEWEST and is_asked_for and not self.flow.read_paused:
            self.transport.close()
        else:
            self._await_body()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._is_in_head:
            self._await_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._is_in_head and self._body_timer is None and not self.transport.is_closing():
            self._await_body()
        if self._head_bytes <= LONGEST_HEAD or self.transport.is_closing():
            return
        if self._is_in_head:
            self.send_400_response("The head of the request is too long.")
        else:
            self.transport.close()  # the answer may be on its way already

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is not wanted (RFC 9110 6.5.1)."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take some of the body, which may be long."""
        self._head_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Begin the request: what follows is its body."""
        self._is_in_head = False
        self._head_bytes = 0
        self._end_wait()
        super().on_headers_complete()
        if self.scheme == "http" and self.cycle is not None and self.cycle.scope is self.scope:
            # Before its first step: the request was only put on the loop.
            self.scope["extensions"] = {EXTENSION: Wire(self.transport, self.flow, self.cycle)}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        """End the request: what follows is the head of the next one."""
        self._is_in_head = True
        self._head_bytes = 0
        self._end_body_wait()
        super().on_message_complete()
