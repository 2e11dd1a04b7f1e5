"""The DICOMweb application: the routes of all services, and how errors are said."""

from __future__ import annotations

import orjson
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.errors import GatewayError
from gateway.place import place
from gateway.store import Store
from gateway.web.dicomweb import qido, workitems
from gateway.web.dicomweb.rejecting import Rejecting
from gateway.web.dicomweb.stow import Stow
from gateway.web.dicomweb.subscribers import Subscribers
from gateway.web.dicomweb.wado import Wado
from gateway.web.intake import StowIntake
from gateway.workitem.worklist import Worklist

log = structlog.get_logger()


def create_app(store: Store, intake: StowIntake | None = None, worklist: Worklist | None = None) -> Starlette:
    """Return the application, to be mounted at `/dicomweb`.

    Parameters
    ----------
    store
        Where studies and results lie.
    intake
        Takes what STOW-RS brings; None: nothing is taken.
    worklist
        Answers UPS-RS; None: there are no workitems.
    """
    routes: list[BaseRoute] = [
        *qido.routes(store),
        *Wado(store).routes(),
        *Rejecting(store).routes(),
        *Stow(intake).routes(),
        *(workitems.routes(worklist) if worklist is not None else ()),
        *(Subscribers(store).routes() if worklist is not None else ()),
    ]
    handlers = {HTTPException: _refused, GatewayError: _told, ClientDisconnect: _gone, Exception: _failed}
    return Starlette(routes=routes, exception_handlers=handlers)


def refusal(status: int, sentence: str) -> Response:
    """Return an answer that says in a sentence what was wrong."""
    return Response(orjson.dumps({"error": sentence}), status, media_type="application/json")


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 # registered for it alone
    answer = refusal(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101 # registered for it alone
    if error.http_status >= 500:  # noqa: PLR2004 # our side
        log.warning("dicomweb.away", reason=str(error))
    answer = refusal(error.http_status, str(error))
    if error.may_pass:
        answer.headers["Retry-After"] = "5"
    return answer


async def _gone(_request: Request, _error: Exception) -> Response:
    """Answer a client that has gone before its body was whole: nobody reads it, and nothing failed."""
    return refusal(400, "the body ended too early")


async def _failed(_request: Request, error: Exception) -> Response:
    log.error("dicomweb.failed", error=type(error).__name__, place=place(error))
    return refusal(500, "the server failed; its log says more")
