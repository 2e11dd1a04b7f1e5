"""Who may ask, and what: every request passes here before anything looks at it.

`none`: the loopback alone, and only under a loopback name. `token`: tokens made by command, or named in the settings by
their digests. `oidc`: access tokens of an OpenID Connect provider. With `token` and `oidc` browsers sign in and are
known by a cookie. How a caller is told is in `access/callers.py`, which roles an address takes in `access/routes.py`.
What changes something has to come from our own pages, or from a program (`session.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import orjson
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.errors import ConfigurationError, CredentialError, ServiceAwayError
from gateway.web.access.callers import Callers
from gateway.web.access.limits import Limits, Rates, address_of
from gateway.web.access.oidc import Provider
from gateway.web.access.routes import is_open, refusal
from gateway.web.caller import Caller
from gateway.web.rendering import wants_page
from gateway.web.session import require_same_origin

log = structlog.get_logger()

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PROBES = frozenset({"/healthz", "/readyz"})
_SHOWN_IN_BODY = frozenset({"/login", "/oauth/token"})
"""Where a token or a key is shown otherwise than in the header."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_FHIR = "/fhir"


@dataclass(frozen=True, slots=True)
class Access:
    """The rule.

    Parameters
    ----------
    mode
        As in the setting `auth`: `none`, or one or both of `token` and `oidc`.
    token_digests
        SHA-256 of each token of the settings, in hexadecimal.
    provider
        Of OpenID Connect.
    public_url
        How callers reach us; empty: unknown, and nothing is offered that needs it.
    rates
        How often they may ask.
    shared_memory
        Descriptor of the memory in which the web processes of this host count together; None: there is but one.
    cors_origins
        Sites whose scripts may call /fhir and /dicomweb.
    """

    mode: str | Sequence[str]
    token_digests: Sequence[str] = ()
    provider: Provider | None = None
    public_url: str = ""
    rates: Rates = field(default_factory=Rates)
    shared_memory: int | None = None
    cors_origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        if any(_DIGEST.fullmatch(digest.lower()) is None for digest in self.token_digests):
            raise ConfigurationError("HYBRIDMED_TOKENS takes SHA-256 digests: 64 hexadecimal digits each")
        if "oidc" in self.modes and self.provider is None:
            raise ConfigurationError("auth = oidc needs HYBRIDMED_OIDC__ISSUER, and what goes with it")

    @property
    def modes(self) -> frozenset[str]:
        """The ways in."""
        return frozenset([self.mode] if isinstance(self.mode, str) else self.mode)

    @property
    def is_open(self) -> bool:
        """Whether nobody has to say who they are."""
        return self.modes == {"none"}


class AccessMiddleware:
    """Lets through what the rule allows, and what is open to all.

    Parameters
    ----------
    callers
        Tells who asks.
    limits
        How often they may; None: as often as they like.
    is_open
        Nobody has to say who they are.
    """

    def __init__(self, app: ASGIApp, callers: Callers, limits: Limits | None, *, is_open: bool) -> None:
        self._app = app
        self._callers = callers
        self._limits = limits
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] == "websocket":
            admits = await self._admits_socket(WebSocket(scope, receive, send))
            await (self._app if admits else _refuse_socket)(scope, receive, send)
        elif scope["type"] == "http":
            answer = await self._judge(Request(scope))
            await (self._app if answer is None else answer)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _admits_socket(self, socket: WebSocket) -> bool:
        """Say whether a web socket may open: as for requests and, since browsers let any site open one, from no other.

        Whoever shows a bearer token is no browser. A session's cookie opens none: our pages use none.
        """
        if self._wait_s(socket) > 0:
            return False
        try:
            caller = await self._callers.of(socket)
        except CredentialError:
            self._note_failure(socket)
            return False
        except ServiceAwayError:
            return False
        if caller is None or caller.kind == "session" or refusal(caller, "GET", socket.scope["path"]) is not None:
            return False
        socket.state.caller = caller
        origin = socket.headers.get("origin")
        host = socket.headers.get("host", "").lower()
        return not self._is_open or origin is None or urlsplit(origin).netloc.lower() == host

    async def _judge(self, request: Request) -> Response | None:
        """Return the refusal; None where the request may pass. The request's state then says as whose."""
        request.state.caller = None
        request.state.note_failure = self._note_failure
        wait_s = self._wait_s(request)
        if wait_s > 0:
            return _too_often(request, wait_s)
        try:
            caller = await self._callers.of(request)
        except CredentialError as error:
            self._note_failure(request)
            # `request.url` is put together with what the client says in Host: the path alone decides.
            if not is_open(request.method, request.scope["path"]):
                return self._unknown(request, str(error), is_wrong=True)
            caller = None
        except ServiceAwayError as error:
            log.warning("access.away", reason=str(error))
            text = "what knows the token does not answer; try again"
            return _answer(request, 503, "transient", text, {"Retry-After": "5"})
        return self._admit(request, caller)

    def _admit(self, request: Request, caller: Caller | None) -> Response | None:
        request.state.caller = caller
        request.state.is_allowed = caller is not None
        request.state.is_session = caller is not None and caller.kind == "session"
        request.state.is_bearer = caller is not None and caller.kind not in {"session", "loopback"}
        path = request.scope["path"]
        if caller is None:
            # A page of another site that a name of its own leads to the loopback gets nothing, open or not.
            if not is_open(request.method, path) or (self._is_open and path not in _PROBES):
                return self._unknown(request, "a bearer token is needed", is_wrong=False)
        else:
            name = f"{caller.kind} {caller.name}"
            wait_s = self._limits.caller_wait_s(name) if self._limits is not None else 0.0
            if wait_s > 0:
                return _too_often(request, wait_s)
            refused = refusal(caller, request.method, path)
            if refused is not None:
                return _answer(request, refused[0], "forbidden" if refused[0] == 403 else "not-found", refused[1])  # noqa: PLR2004 # HTTP's own number
        if request.method not in _READING:
            try:
                require_same_origin(request)
            except HTTPException as error:
                return _answer(request, error.status_code, "forbidden", error.detail)
        return None

    def _wait_s(self, request: HTTPConnection) -> float:
        if self._limits is None or request.scope["path"] in _PROBES:
            return 0.0
        address = address_of(request)
        # A token that was good a while ago is looked at all the same: others may share the address.
        is_guess = "authorization" in request.headers and not self._callers.knew(request)
        is_guess = is_guess or (request.scope.get("method") == "POST" and request.scope["path"] in _SHOWN_IN_BODY)
        return (self._limits.failure_wait_s(address) if is_guess else 0.0) or self._limits.address_wait_s(address)

    def _note_failure(self, request: HTTPConnection) -> None:
        if self._limits is not None:
            self._limits.note_failure(address_of(request))

    def _unknown(self, request: Request, text: str, *, is_wrong: bool) -> Response:
        if self._is_open:
            return _answer(request, 421, "security", "without authentication only loopback names are answered")
        if request.method == "GET" and wants_page(request) and not is_wrong:
            onward = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?{urlencode({'next': onward})}", status_code=303)
        # RFC 6750, 3.1: who showed none is told no error.
        why = f', error="invalid_token", error_description="{text}"' if is_wrong else ""
        return _answer(request, 401, "login", text, {"WWW-Authenticate": f'Bearer realm="hybridmed"{why}'})


async def _refuse_socket(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403


def _too_often(request: Request, wait_s: float) -> Response:
    seconds = max(1, math.ceil(wait_s))
    text = f"too many requests; try again in {seconds} s"
    return _answer(request, 429, "throttled", text, {"Retry-After": str(seconds)})


def _answer(request: Request, status: int, code: str, text: str, headers: dict[str, str] | None = None) -> Response:
    path = request.scope["path"]
    if path == _FHIR or path.startswith(f"{_FHIR}/"):
        issue = {"severity": "error", "code": code, "diagnostics": text}
        body = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
        return Response(body, status, headers, media_type="application/fhir+json")
    return Response(orjson.dumps({"error": text}), status, headers, media_type="application/json")
