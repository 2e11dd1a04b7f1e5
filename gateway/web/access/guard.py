"""The parts that look after access, built for one application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from starlette.routing import BaseRoute

from gateway.store import Store
from gateway.tls import client_context
from gateway.web.access.assertion import Assertions
from gateway.web.access.browser import ProviderSignIn
from gateway.web.access.callers import Callers
from gateway.web.access.keys import fetch_json
from gateway.web.access.limits import Limits
from gateway.web.access.smart import SmartService
from gateway.web.access.tokens import TokenBook
from gateway.web.auth import Access
from gateway.web.rendering import Renderer
from gateway.web.session import Sessions
from gateway.web.sign_in import SignIn


@dataclass(frozen=True, slots=True)
class Guard:
    """What knows callers."""

    callers: Callers
    limits: Limits | None
    """None: on the loopback without authentication, everybody is one's own."""
    routes: Sequence[BaseRoute] = ()
    """Where persons sign in and programs get tokens."""


def build_guard(store: Store, access: Access, renderer: Renderer) -> Guard:
    """Return the parts."""
    if access.is_open:
        callers = Callers(is_open=True, tokens=None, sessions=None, provider=None, now=_now)
        return Guard(callers, None, SignIn(renderer, None).routes())
    takes_tokens = "token" in access.modes
    tokens = TokenBook(store, access.token_digests if takes_tokens else (), _now, takes_tokens=takes_tokens)
    provider = access.provider if "oidc" in access.modes else None
    sessions = Sessions(store, tokens if takes_tokens else None, _now, takes_persons=provider is not None)
    has_provider = provider is not None and bool(provider.registration.client_id and access.public_url)
    sign_in = SignIn(renderer, sessions, takes_tokens=takes_tokens, has_provider=has_provider)
    routes = sign_in.routes()
    if provider is not None and has_provider:
        routes.extend(ProviderSignIn(renderer, sign_in, sessions, provider, access.public_url).routes())
    if access.public_url:
        service = SmartService(store, Assertions(store, _fetch, _now), access.public_url, _now)
        routes.extend(service.routes())
    callers = Callers(is_open=False, tokens=tokens, sessions=sessions, provider=provider, now=_now)
    return Guard(callers, Limits(access.rates, access.shared_memory), routes)


def _now() -> datetime:
    return datetime.now(UTC)


def _fetch(address: str) -> Mapping[str, Any]:
    """Return a client's key set; asked for once an hour at most, so that no connection is kept for it."""
    with httpx.Client(verify=client_context()) as client:
        return fetch_json(address, client)
