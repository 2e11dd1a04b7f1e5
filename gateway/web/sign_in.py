"""`/login`, `/logout`: a browser shows a token once, or goes to the provider, and is known by a cookie from then on."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.web.rendering import Renderer
from gateway.web.session import LIFETIME, Sessions, read_form

_FORM_LIMIT = 1 << 14
_HOUR_S = 3600
_SEE_OTHER = 303


class SignIn:
    """The routes.

    Parameters
    ----------
    renderer
        Templates.
    sessions
        Signed-in browsers; None: nobody has to sign in.
    takes_tokens
        Whether a token signs in.
    has_provider
        Whether the OpenID Connect provider does (`access/browser.py`).
    """

    def __init__(
        self,
        renderer: Renderer,
        sessions: Sessions | None,
        *,
        takes_tokens: bool = True,
        has_provider: bool = False,
    ) -> None:
        self._renderer = renderer
        self._sessions = sessions
        self._takes_tokens = takes_tokens
        self._has_provider = has_provider

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/login", self.show, methods=["GET"]),
            Route("/login", self.sign_in, methods=["POST"]),
            Route("/logout", self.sign_out, methods=["POST"]),
        ]

    def show(self, request: Request) -> Response:
        """`/login?next=`: asks for a token; who needs none is led on."""
        onward = own_address(request.query_params.get("next", ""))
        if self._sessions is None or getattr(request.state, "is_allowed", False):
            return RedirectResponse(onward, _SEE_OTHER)
        return self.page(request, onward, 200)

    async def sign_in(self, request: Request) -> Response:
        """`POST /login`: token -> cookie, and on to where the browser wanted to go."""
        fields = await read_form(request, _FORM_LIMIT)
        onward = own_address(fields.get("next", ""))
        answer = RedirectResponse(onward, _SEE_OTHER)
        if self._sessions is None:
            return answer
        if await run_in_threadpool(self._sessions.sign_in, request, fields.get("token", ""), answer):
            return answer
        request.state.note_failure(request)
        return self.page(request, onward, 401, is_wrong=True)

    async def sign_out(self, request: Request) -> Response:
        """`POST /logout`: the session is over, in the database too."""
        await read_form(request, _FORM_LIMIT)
        answer = RedirectResponse("/login" if self._sessions else "/worklist", _SEE_OTHER)
        if self._sessions is not None:
            await run_in_threadpool(self._sessions.sign_out, request, answer)
        return answer

    def page(
        self, request: Request, onward: str, status: int, *, is_wrong: bool = False, problem: str = ""
    ) -> Response:
        """Return the sign-in page, with a sentence where something did not work."""
        values = {
            "onward": onward,
            "is_wrong": is_wrong,
            "problem": problem,
            "hours": int(LIFETIME.total_seconds()) // _HOUR_S,
            "takes_tokens": self._takes_tokens,
            "has_provider": self._has_provider,
        }
        return self._renderer.page(request, "login.html", values, status=status)


def own_address(text: str) -> str:
    """Return an address of this site as it stands, the worklist for any other: no page leads away unseen."""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if is_ours else "/worklist"
