"""`/login/oidc`: browsers sign in by the OpenID Connect provider (authorization code flow with PKCE, state and nonce).

What has to be remembered until the browser comes back stays with the browser, in a cookie that no script reads and
that only these addresses get: nothing is kept for those who never come back.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import asdict
from typing import Final

import orjson
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.errors import CredentialError, ServiceAwayError
from gateway.web.access.oidc import Pending, Provider
from gateway.web.rendering import Renderer
from gateway.web.session import Sessions, is_secure
from gateway.web.sign_in import SignIn, own_address

log = structlog.get_logger()

BEGIN_PATH: Final = "/login/oidc"
CALLBACK_PATH: Final = "/login/oidc/callback"
_COOKIE: Final = "hybridmed_sign_in"
_LONGEST_COOKIE = 4000
_TIME_S: Final = 600
"""How long a person may take with the provider."""
_SEE_OTHER = 303


class ProviderSignIn:
    """The routes.

    Parameters
    ----------
    renderer
        Templates.
    sign_in
        Shows the sign-in page, where something did not work.
    sessions
        Signed-in browsers.
    provider
        Vouches for persons.
    public_url
        How browsers reach us; the provider knows our address under it.
    """

    def __init__(
        self, renderer: Renderer, sign_in: SignIn, sessions: Sessions, provider: Provider, public_url: str
    ) -> None:
        self._renderer = renderer
        self._sign_in = sign_in
        self._sessions = sessions
        self._provider = provider
        self._redirect_uri = public_url + CALLBACK_PATH

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route(BEGIN_PATH, self.begin, methods=["GET"]),
            Route(CALLBACK_PATH, self.callback, methods=["GET"]),
        ]

    def begin(self, request: Request) -> Response:
        """`/login/oidc?next=`: leads to the provider."""
        onward = own_address(request.query_params.get("next", ""))
        try:
            address, pending = self._provider.begin(self._redirect_uri, onward)
        except (CredentialError, ServiceAwayError) as error:
            return self._failed(request, error, 503)
        answer = RedirectResponse(address, _SEE_OTHER)
        value = base64.urlsafe_b64encode(orjson.dumps(asdict(pending))).decode()
        # Lax: the provider's page leads back here, and a strict cookie would stay behind.
        answer.set_cookie(
            _COOKIE,
            value,
            max_age=_TIME_S,
            path=BEGIN_PATH,
            httponly=True,
            samesite="lax",
            secure=is_secure(request),
        )
        return answer

    async def callback(self, request: Request) -> Response:
        """`/login/oidc/callback?code=&state=`: the provider vouches for somebody, or does not."""
        pending = _read_cookie(request)
        given = request.query_params
        issuer = given.get("iss", self._provider.registration.issuer)
        is_ours = pending is not None and hmac.compare_digest(given.get("state", "").encode(), pending.state.encode())
        if pending is None or not is_ours or issuer != self._provider.registration.issuer:
            request.state.note_failure(request)
            return self._failed(request, CredentialError("the sign-in was not begun here, or took too long"), 400)
        if "code" not in given:
            return self._failed(request, CredentialError("the provider signed nobody in"), 403)
        try:
            return await run_in_threadpool(self._open, request, given["code"], pending)
        except CredentialError as error:
            request.state.note_failure(request)
            return self._failed(request, error, 403)
        except ServiceAwayError as error:
            return self._failed(request, error, 503)

    def _open(self, request: Request, code: str, pending: Pending) -> Response:
        caller = self._provider.finish(code, pending, self._redirect_uri)
        if not caller.roles:
            raise CredentialError("your account has no role here: ask whoever runs the provider")
        # A page, and no redirect: the browser came from another site, and would leave our strict cookie out of the
        # next request of that chain.
        answer = self._renderer.page(request, "onward.html", {"onward": own_address(pending.onward)})
        self._sessions.sign_in_person(request, caller, self._provider.registration.session, answer)
        answer.delete_cookie(_COOKIE, path=BEGIN_PATH, httponly=True, samesite="lax", secure=is_secure(request))
        return answer

    def _failed(self, request: Request, error: Exception, status: int) -> Response:
        log.info("access.sign_in_failed", reason=str(error))
        answer = self._sign_in.page(request, "/worklist", status, problem=str(error))
        answer.delete_cookie(_COOKIE, path=BEGIN_PATH, httponly=True, samesite="lax", secure=is_secure(request))
        return answer


def _read_cookie(request: Request) -> Pending | None:
    value = request.cookies.get(_COOKIE, "")
    if not value or len(value) > _LONGEST_COOKIE:
        return None
    try:
        content = orjson.loads(base64.urlsafe_b64decode(value))
        pending = Pending(**content)
    except (binascii.Error, ValueError, TypeError):
        return None
    return pending if all(isinstance(part, str) and part for part in asdict(pending).values()) else None
