"""Who may ask.

`none`: the loopback alone, and only under a loopback name: a page of another site that had its own name point to
127.0.0.1 (DNS rebinding) could otherwise read studies through the user's browser.
`token`: `Authorization: Bearer …`, compared by SHA-256 digest in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import ConfigurationError

_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OPEN = frozenset({"/healthz", "/readyz"})
"""Answered without a token; /readyz then names no parts."""
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

    def allows(self, request: Request) -> bool:
        """Say whether this request may see everything."""
        if self.mode == "none":
            return _LOOPBACK.fullmatch(request.headers.get("host", "")) is not None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode()).hexdigest()
        # Every digest is compared: the time taken tells nothing of which one, if any, it is.
        matches = [hmac.compare_digest(given, digest.lower()) for digest in self.token_digests]
        return scheme.lower() == "bearer" and any(matches)


class AccessMiddleware:
    """Lets through what the rule allows, and what is open to all."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        is_allowed = self._access.allows(request)
        scope.setdefault("state", {})["is_allowed"] = is_allowed
        if is_allowed or request.url.path in _OPEN:
            await self._app(scope, receive, send)
        else:
            await self._refusal(request)(scope, receive, send)

    def _refusal(self, request: Request) -> Response:
        if self._access.mode == "none":
            return _answer(request, 421, "security", "without authentication only loopback names are answered")
        answer = _answer(request, 401, "login", "a bearer token is needed")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="hybridmed"'
        return answer


def _answer(request: Request, status: int, code: str, text: str) -> Response:
    if request.url.path == _FHIR or request.url.path.startswith(f"{_FHIR}/"):
        issue = {"severity": "error", "code": code, "diagnostics": text}
        body = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
        return Response(body, status, media_type="application/fhir+json")
    return Response(orjson.dumps({"error": text}), status, media_type="application/json")
