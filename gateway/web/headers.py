"""Headers that every answer carries, and a count of what was answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.services import Counters

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_UNLESS_SAID = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
}
"""Answers hold patient data: no shared cache keeps them, and a browser asks before it shows one again. Only the
viewer's files, which are the same for all, say otherwise, and its pages need a policy of their own."""


def _raw(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower().encode(), value.encode()) for name, value in headers.items())


_RAW_OVER_TLS = ((b"strict-transport-security", b"max-age=31536000"),)
"""A browser that came by TLS once comes by nothing else for a year (RFC 6797)."""
_RAW_ALWAYS, _RAW_UNLESS_SAID = _raw(_ALWAYS), _raw(_UNLESS_SAID)
_ALWAYS_NAMES = frozenset(name for name, _ in _RAW_ALWAYS)


class HeadersMiddleware:
    """Adds the headers and counts answers by status."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        is_over_tls = scope.get("scheme") == "https"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = _completed(message.get("headers", ()))
                message = {**message, "headers": [*headers, *_RAW_OVER_TLS] if is_over_tls else headers}
                self._counters.add(f'hybridmed_http_responses_total{{status="{message["status"]}"}}')
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _completed(said: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer with those of all answers; made of bytes, since every answer passes here."""
    kept = [pair for pair in said if pair[0].lower() not in _ALWAYS_NAMES]
    names = {name.lower() for name, _ in kept}
    return [*kept, *_RAW_ALWAYS, *(pair for pair in _RAW_UNLESS_SAID if pair[0] not in names)]
