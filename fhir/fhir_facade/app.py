"""The FHIR server as an ASGI application."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from fhir_facade.failures import HANDLERS
from fhir_facade.resource import Json
from fhir_facade.routes import all_routes
from fhir_facade.scope_guard import ScopeGuard
from fhir_facade.server import NOTHING_EXCHANGED, ExchangeRules, FhirServer
from gateway.store import Store

_SMALLEST_COMPRESSED = 1024
"""Bytes."""
_COMPRESSION = 4
"""Of 9: JSON shrinks little more beyond it, and the time doubles."""


def create_app(
    store: Store,
    *,
    zone: tzinfo | None = None,
    exchange: ExchangeRules = NOTHING_EXCHANGED,
    security: Json | None = None,
) -> Starlette:
    """Return the FHIR server, to be mounted or served by itself.

    Parameters
    ----------
    store
        Where the resources lie.
    zone
        The site's zone, for dates without offset in searches; None: that of this machine.
    exchange
        What others may have this server do.
    security
        How callers prove who they are, for the CapabilityStatement (`security.py`); None: nobody has to.
    """
    server = FhirServer(store, zone, datetime.now(UTC), exchange, security)
    gzip = Middleware(GZipMiddleware, minimum_size=_SMALLEST_COMPRESSED, compresslevel=_COMPRESSION)
    layers = [gzip, Middleware(ScopeGuard)]
    return Starlette(routes=all_routes(server), exception_handlers=dict(HANDLERS), middleware=layers)
