"""HTTP on a connection: uvicorn's httptools protocol, with a bound on what it collects besides the body."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 1 << 16
"""Bytes of request line and headers that have not ended yet, and of what stands behind the body's last byte in its
request (trailers); the parser itself would collect without end."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses with 400 a request whose head does not end in time; ends a connection whose trailers do not."""

    _head_bytes = 0
    _is_in_head = True

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._head_bytes += len(data)
        super().data_received(data)
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
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Begin the request: what follows is its body."""
        self._is_in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request: what follows is the head of the next one."""
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_complete()
