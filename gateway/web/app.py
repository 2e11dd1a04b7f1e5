"""The HTTP application: FHIR mounted, health, metrics, pages; and the layers around them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from gateway.errors import GatewayError
from gateway.services import Counters
from gateway.store import Store
from gateway.web.actions import Actions, Doing
from gateway.web.auth import Access, AccessMiddleware
from gateway.web.dicomweb import create_app as create_dicomweb_app
from gateway.web.dicomweb.answers import KeptAnswers
from gateway.web.headers import HeadersMiddleware
from gateway.web.intake import StowIntake
from gateway.web.live import LiveFeed
from gateway.web.metrics import CONTENT_TYPE, render_metrics
from gateway.web.pages import Pages
from gateway.web.problems import Problems
from gateway.web.readiness import ReadinessCheck
from gateway.web.rendering import Renderer, Site
from gateway.web.session import Sessions
from gateway.web.sign_in import SignIn
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
    sessions = Sessions(parts.store, parts.access.token_digests) if parts.access.mode == "token" else None
    pages = Pages(parts.store, renderer, LiveFeed(parts.store, parts.closing))
    app = FastAPI(
        title="HybridMed Gateway",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            HTTPException: problems.refused,
            GatewayError: problems.away,
            Exception: problems.failed,
        },
        routes=[*pages.routes(), *SignIn(renderer, sessions).routes()],
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
    def metrics() -> Response:
        """Give counters and gauges to Prometheus."""
        return Response(render_metrics(parts.store), headers={"Content-Type": CONTENT_TYPE})

    app.routes.extend(Viewer(parts.store, parts.viewer_dir or parts.store.data_dir / "viewer").routes())
    app.mount("/fhir", parts.fhir)
    app.mount("/dicomweb", create_dicomweb_app(parts.store, worklist=parts.worklist, intake=parts.intake))
    app.add_middleware(KeptAnswers, store=parts.store)  # within the check of access
    app.add_middleware(AccessMiddleware, access=parts.access, sessions=sessions)
    app.add_middleware(HeadersMiddleware, counters=parts.counters)
    return app


def _json(content: object, status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
