"""HTTP on a connection: uvicorn's httptools protocol, with a bound on the head of a request."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 1 << 16
"""Bytes of request line and headers that have not ended yet; the parser itself would collect without end."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses with 400 a request whose head does not end in time."""

    _head_bytes = 0
    _is_in_head = True

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        """Begin the request: what follows is its body."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request: what follows is the head of the next one."""
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_complete()
