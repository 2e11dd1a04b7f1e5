"""What went wrong, told as the asker can use it: a page to a browser, JSON to a program."""

from __future__ import annotations

from typing import Final

import orjson
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError, ServiceAwayError
from gateway.place import place
from gateway.web.rendering import Renderer, wants_page

log = structlog.get_logger()

_EXPLAINED: Final = (400, 403, 404, 405, 409, 413, 500, 503)
"""Statuses that the texts `error.…` know."""
_RETRY_S = "10"


class Problems:
    """The exception handlers.

    Parameters
    ----------
    renderer
        Templates.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    async def refused(self, request: Request, error: Exception) -> Response:
        """Answer an HTTPException: the request is not one that is served."""
        if not isinstance(error, HTTPException):
            return self.answer(request, 500, "refused")
        answer = self.answer(request, error.status_code, str(error.detail))
        for name, value in (error.headers or {}).items():
            answer.headers[name] = value
        return answer

    async def away(self, request: Request, error: Exception) -> Response:
        """Answer an error of the gateway; where a part is away, the reason goes to the log alone."""
        if isinstance(error, GatewayError) and not isinstance(error, ServiceAwayError):
            return self.answer(request, error.http_status, str(error))
        log.warning("web.away", reason=str(error))
        return self.answer(request, 503, "the database does not answer; try again")

    async def gone(self, request: Request, _error: Exception) -> Response:
        """Answer a client that has gone before its body was whole: nobody reads it, and nothing failed."""
        return self.answer(request, 400, "the body ended too early")

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer what nobody foresaw."""
        log.error("web.failed", error=type(error).__name__, place=place(error))
        return self.answer(request, 500, "the server failed; its log says more")

    def answer(self, request: Request, status: int, detail: str) -> Response:
        """Return a page or JSON that says what went wrong."""
        if not wants_page(request):
            return Response(orjson.dumps({"error": detail}), status, media_type="application/json")
        values = {"status": status, "detail": detail, "key": status if status in _EXPLAINED else 500}
        answer = self._renderer.page(request, "error.html", values, status=status)
        if status == ServiceAwayError.http_status:
            answer.headers["Refresh"] = _RETRY_S
        return answer
