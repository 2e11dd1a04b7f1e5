"""The role 'web'."""

from __future__ import annotations

from functools import partial

from fhir_facade.app import create_app as create_fhir_app

from gateway.config import Settings
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.web.app import HttpParts, create_app
from gateway.web.auth import Access
from gateway.web.role import WebRole
from gateway.wiring.queue import check_broker

_MIB = 1 << 20


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> WebRole:
    """Return the HTTP server with FHIR mounted."""
    parts = HttpParts(
        store=store,
        fhir=create_fhir_app(store),
        access=Access(mode=settings.auth, token_digests=settings.tokens),
        counters=heartbeat.counters,
        reserve_bytes=settings.reserve_mib * _MIB,
        broker_check=partial(check_broker, settings) if settings.broker_url else None,
    )
    return WebRole(create_app(parts), bind=settings.bind, port=settings.http_port)
