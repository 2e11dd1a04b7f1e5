"""Who may ask.

`none`: the loopback alone, and only under a loopback name: a page of another site that had its own name point to
127.0.0.1 (DNS rebinding) could otherwise read studies through the user's browser.
`token`: `Authorization: Bearer …`, compared by SHA-256 digest in constant time; or the cookie of a browser that
signed in with a token. What changes something has to come from our own pages, or from a program (`session.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode, urlsplit

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.errors import ConfigurationError, ServiceAwayError
from gateway.web.rendering import wants_page
from gateway.web.session import Sessions, require_same_origin

_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OPEN = frozenset({"/healthz", "/readyz", "/login", "/preferences"})
"""Answered without a token; /readyz then names no parts."""
_PROBES = frozenset({"/healthz", "/readyz"})
_OPEN_FOLDER = "/assets/"
"""What the sign-in page looks like; the same for all."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_FHIR = "/fhir"


@dataclass(frozen=True, slots=True)
class Access:
    """The rule.

    Parameters
    ----------
    mode
        As in the settings.
    token_digests
        SHA-256 of each token, in hexadecimal.
    """

    mode: Literal["none", "token"]
    token_digests: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.mode == "token" and not self.token_digests:
            raise ConfigurationError("auth = token needs HYBRIDMED_TOKENS: the SHA-256 digests of the tokens")
        if any(_DIGEST.fullmatch(digest.lower()) is None for digest in self.token_digests):
            raise ConfigurationError("HYBRIDMED_TOKENS takes SHA-256 digests: 64 hexadecimal digits each")

    def allows(self, request: HTTPConnection) -> bool:
        """Say whether this request may see everything."""
        if self.mode == "none":
            return _LOOPBACK.fullmatch(request.headers.get("host", "")) is not None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode()).hexdigest()
        # Every digest is compared: the time taken tells nothing of which one, if any, it is.
        matches = [hmac.compare_digest(given, digest.lower()) for digest in self.token_digests]
        return scheme.lower() == "bearer" and any(matches)


class AccessMiddleware:
    """Lets through what the rule allows, and what is open to all.

    Parameters
    ----------
    sessions
        Signed-in browsers; None: nobody signs in.
    """

    def __init__(self, app: ASGIApp, access: Access, sessions: Sessions | None = None) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] == "websocket":
            await (self._app if await self._admits_socket(WebSocket(scope, receive, send)) else _refuse_socket)(
                scope, receive, send
            )
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        answer = await self._judge(request)
        await (self._app if answer is None else answer)(scope, receive, send)

    async def _admits_socket(self, socket: WebSocket) -> bool:
        """Say whether a web socket may open: as for requests and, since browsers let any site open one, from no other.

        Whoever shows a bearer token is no browser. A session's cookie opens none: our pages use none.
        """
        if not self._access.allows(socket):
            return False
        origin = socket.headers.get("origin")
        host = socket.headers.get("host", "").lower()
        return self._access.mode == "token" or origin is None or urlsplit(origin).netloc.lower() == host

    async def _judge(self, request: Request) -> Response | None:
        """Return the refusal; None where the request may pass. The request's state then says as whose."""
        is_allowed = self._access.allows(request)
        request.state.is_bearer = is_allowed and self._access.mode == "token"
        request.state.is_session = False
        if not is_allowed and self._sessions is not None:
            try:
                request.state.is_session = is_allowed = await run_in_threadpool(self._sessions.is_open, request)
            except ServiceAwayError:
                return _answer(request, 503, "transient", "the database does not answer; try again")
        request.state.is_allowed = is_allowed
        path = request.scope["path"]  # `request.url` is put together with what the client says in Host
        is_open = path in _OPEN or path.startswith(_OPEN_FOLDER)
        # A page of another site that a name of its own leads to the loopback gets nothing, open or not.
        if not is_allowed and not (is_open and (self._sessions is not None or path in _PROBES)):
            return self._refusal(request)
        if request.method not in _READING:
            try:
                require_same_origin(request)
            except HTTPException as error:
                return _answer(request, error.status_code, "forbidden", error.detail)
        return None

    def _refusal(self, request: Request) -> Response:
        if self._access.mode == "none":
            return _answer(request, 421, "security", "without authentication only loopback names are answered")
        if request.method == "GET" and wants_page(request) and self._sessions is not None:
            onward = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?{urlencode({'next': onward})}", status_code=303)
        answer = _answer(request, 401, "login", "a bearer token is needed")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="hybridmed"'
        return answer


async def _refuse_socket(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403


def _answer(request: Request, status: int, code: str, text: str) -> Response:
    path = request.scope["path"]
    if path == _FHIR or path.startswith(f"{_FHIR}/"):
        issue = {"severity": "error", "code": code, "diagnostics": text}
        body = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
        return Response(body, status, media_type="application/fhir+json")
    return Response(orjson.dumps({"error": text}), status, media_type="application/json")
