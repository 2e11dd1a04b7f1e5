"""The HTTP application: FHIR mounted, health, metrics, pages; and the layers around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson
import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from gateway.errors import GatewayError
from gateway.place import place
from gateway.services import Counters
from gateway.store import Store
from gateway.web.auth import Access, AccessMiddleware
from gateway.web.headers import HeadersMiddleware
from gateway.web.metrics import CONTENT_TYPE, render_metrics
from gateway.web.pages import Pages
from gateway.web.readiness import ReadinessCheck

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HttpParts:
    """What the application is built from."""

    store: Store
    fhir: ASGIApp
    """`fhir_facade.app.create_app(store)`; mounted at /fhir."""
    access: Access
    counters: Counters
    """Of this process."""
    reserve_bytes: int
    """Free space under which no instance is accepted."""
    broker_check: Callable[[], str] | None = None
    """Connects to the broker and says what it found, GatewayError where it is away; None: embedded."""


def create_app(parts: HttpParts) -> FastAPI:
    """Return the application. It reads; nothing is changed through it."""
    app = FastAPI(
        title="HybridMed Gateway",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _refused, GatewayError: _away, Exception: _failed},
        routes=Pages(parts.store).routes(),
    )
    readiness = ReadinessCheck(parts.store, parts.reserve_bytes, parts.broker_check)

    @app.get("/healthz")
    def healthz() -> Response:
        """Say that the process lives."""
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    def readyz(request: Request) -> Response:
        """Say whether the gateway can receive and process: 200, or 503; 'degraded' is 200 with the reasons."""
        look = readiness.look()
        shown = look.as_json() if request.state.is_allowed else {"state": look.state}
        return _json(shown, 503 if look.state == "down" else 200)

    @app.get("/metrics")
    def metrics() -> Response:
        """Give counters and gauges to Prometheus."""
        return Response(render_metrics(parts.store), headers={"Content-Type": CONTENT_TYPE})

    app.mount("/fhir", parts.fhir)
    app.add_middleware(AccessMiddleware, access=parts.access)
    app.add_middleware(HeadersMiddleware, counters=parts.counters)
    return app


def _json(content: object, status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _refused(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _json({"error": str(getattr(error, "detail", "refused"))}, status)


async def _away(_request: Request, error: Exception) -> Response:
    log.warning("web.away", reason=str(error))
    status = error.http_status if isinstance(error, GatewayError) else 500
    return _json({"error": "the database does not answer; try again"}, status)


async def _failed(_request: Request, error: Exception) -> Response:
    log.error("web.failed", error=type(error).__name__, place=place(error))
    return _json({"error": "the server failed; its log says more"}, 500)
