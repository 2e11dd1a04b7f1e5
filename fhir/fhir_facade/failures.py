"""What went wrong -> OperationOutcome: the exception handlers of the FHIR server."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fhir_facade.answer import error_answer
from fhir_facade.outcome import FhirError, InvalidError, outcome_response
from gateway.errors import GatewayError
from gateway.place import place

log = structlog.get_logger()

_NOT_FOUND = 404
_NOT_ALLOWED = 405


def _told(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, FhirError) else InvalidError()
    return error_answer(request, outcome_response(known.status, str(known), code=known.code))


def _http_error(request: Request, error: Exception) -> Response:
    """Answer what the router refused: 404 for no such address, 405 for no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    if status == _NOT_ALLOWED and request.method == "OPTIONS":
        allowed = f"{(headers or {}).get('Allow', 'GET')}, OPTIONS"
        return Response(status_code=204, headers={"Allow": allowed})
    text = "no such address" if status == _NOT_FOUND else "this address does not take that method"
    return error_answer(request, outcome_response(status, text, headers=headers))


def _away(_request: Request, error: Exception) -> Response:
    status = error.http_status if isinstance(error, GatewayError) else 500
    log.warning("fhir.away", reason=str(error))
    return outcome_response(status, "the database does not answer; try again", headers={"Retry-After": "5"})


def _failed(request: Request, error: Exception) -> Response:
    log.error("fhir.failed", error=type(error).__name__, place=place(error), method=request.method)
    return outcome_response(500, "the server failed; its log says more")


def _gone(_request: Request, _error: Exception) -> Response:
    """Answer a client that has gone before its body was whole: nobody reads it, and nothing failed."""
    return outcome_response(400, "the body ended too early")


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Response]] = {
    FhirError: _told,
    HTTPException: _http_error,
    GatewayError: _away,
    ClientDisconnect: _gone,
    Exception: _failed,
}
