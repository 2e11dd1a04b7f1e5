"""The HTTP application: FHIR mounted, health, metrics, pages; and the layers around them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from gateway.errors import GatewayError
from gateway.services import Counters
from gateway.store import Store
from gateway.web.access.cors import ApiCors
from gateway.web.access.guard import build_guard
from gateway.web.actions import Actions, Doing
from gateway.web.audit import AuditMiddleware
from gateway.web.auth import Access, AccessMiddleware
from gateway.web.dicomweb import create_app as create_dicomweb_app
from gateway.web.dicomweb.answers import KeptAnswers
from gateway.web.headers import HeadersMiddleware
from gateway.web.intake import StowIntake
from gateway.web.live import LiveFeed
from gateway.web.metrics import render_metrics
from gateway.web.pages import Pages
from gateway.web.problems import Problems
from gateway.web.readiness import ReadinessCheck
from gateway.web.rendering import Renderer, Site
from gateway.web.viewer import Viewer
from gateway.workitem.worklist import Worklist


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
    viewer_dir: Path | None = None
    """Where the viewer is installed; None: `viewer` in the data folder."""
    site: Site = field(default_factory=Site)
    """What the pages say of this installation."""
    doing: Doing | None = None
    """What a person may do to studies; None: this server shows and changes nothing."""
    worklist: Worklist | None = None
    """Answers UPS-RS at /dicomweb/workitems; None: there are no workitems."""
    intake: StowIntake | None = None
    """Takes what STOW-RS brings, where it is open; None: this server takes no instances."""
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the server stops: streams of events end then."""


def create_app(parts: HttpParts) -> FastAPI:
    """Return the application."""
    renderer = Renderer(parts.site)
    problems = Problems(renderer)
    guard = build_guard(parts.store, parts.access, renderer)
    pages = Pages(parts.store, renderer, LiveFeed(parts.store, parts.closing))
    app = _Application(
        parts.counters,
        title="HybridMed Gateway",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            HTTPException: problems.refused,
            GatewayError: problems.away,
            ClientDisconnect: problems.gone,
            Exception: problems.failed,
        },
        routes=[*pages.routes(), *guard.routes],
    )
    if parts.doing is not None:
        app.routes.extend(Actions(parts.store, parts.doing, pages.study_answer).routes())
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
    def metrics(request: Request) -> Response:
        """Give counters, histograms and gauges to Prometheus, with exemplars where OpenMetrics is asked for."""
        content, media_type = render_metrics(parts.store, request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": media_type})

    app.routes.extend(Viewer(parts.store, parts.viewer_dir or parts.store.data_dir / "viewer").routes())
    app.mount("/fhir", parts.fhir)
    app.mount("/dicomweb", create_dicomweb_app(parts.store, worklist=parts.worklist, intake=parts.intake))
    app.add_middleware(KeptAnswers, store=parts.store)  # within the check of access
    app.add_middleware(AccessMiddleware, callers=guard.callers, limits=guard.limits, is_open=parts.access.is_open)
    if parts.access.cors_origins:
        app.add_middleware(ApiCors, origins=parts.access.cors_origins)  # a preflight shows no token
    app.add_middleware(AuditMiddleware, ae_title=parts.site.ae_title)  # around the check: refusals are told too
    return app


class _Application(FastAPI):
    """Carries the headers of all answers around everything, the answer to an exception that nobody foresaw included."""

    def __init__(self, counters: Counters, **options: Any) -> None:
        super().__init__(**options)
        self._counters = counters

    def build_middleware_stack(self) -> ASGIApp:
        """Return all layers."""
        return HeadersMiddleware(super().build_middleware_stack(), self._counters)


def _json(content: object, status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
