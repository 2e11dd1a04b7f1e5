"""What the program does, asked of its own parts as they are wired with the defaults: for the pages made from it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fhir_facade.app import create_app as create_fhir_app
from starlette.applications import Starlette

from gateway.config import Settings
from gateway.services import Counters, Heartbeat
from gateway.store import Store, open_store
from gateway.web.dicomweb.app import create_app as create_dicomweb_app
from gateway.wiring import receive
from gateway.wiring.access import build_security
from gateway.wiring.exchange import build_exchange_rules
from gateway.wiring.web import build_intake
from gateway.wiring.workitems import build_worklist

FHIR_ADDRESS = "https://gateway.example/fhir"
"""Stands in the page for the address of the installation."""
WEB_SOCKET = "WebSocket"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found."""

    scp: Mapping[str, Sequence[str]]
    """SOP Class UID -> transfer syntaxes that the receiver negotiates."""
    web: Mapping[str, Sequence[str]]
    """Resource of DICOMweb, below `/dicomweb` -> methods, or `WebSocket`."""
    capability: Mapping[str, Any]
    """The CapabilityStatement, as GET /metadata answers it where callers show tokens."""


def gather() -> Facts:
    """Wire receiver, DICOMweb and FHIR over an empty store, and ask them."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), auth=("token",))
        store = open_store(settings.sqlalchemy_url, settings.data_dir)
        try:
            return Facts(_scp(settings, store), _web(settings, store), _capability(settings, store))
        finally:
            store.close()


def _scp(settings: Settings, store: Store) -> dict[str, Sequence[str]]:
    receiver = receive.build(settings, store, Heartbeat(store, "receive", Counters()))
    return {uid: sorted(map(str, syntaxes)) for uid, syntaxes in receiver._supported.items()}


def _web(settings: Settings, store: Store) -> Mapping[str, Sequence[str]]:
    intake = build_intake(settings, store, Heartbeat(store, "web", Counters()))
    app = create_dicomweb_app(store, intake, build_worklist(settings, store))
    found: dict[str, list[str]] = {}
    for route in app.routes:
        methods = sorted((getattr(route, "methods", None) or {WEB_SOCKET}) - {"HEAD"})
        found.setdefault(route.path, []).extend(methods)  # type: ignore[attr-defined] # no mounts in this application
    return found


def _capability(settings: Settings, store: Store) -> Mapping[str, Any]:
    app = create_fhir_app(store, exchange=build_exchange_rules(settings), security=build_security(settings))
    answer: Mapping[str, Any] = asyncio.run(_get(app, "/metadata"))
    return answer


async def _get(app: Starlette, path: str) -> Any:
    mounted = httpx.ASGITransport(app=app, root_path="/fhir")
    async with httpx.AsyncClient(transport=mounted, base_url=FHIR_ADDRESS.removesuffix("/fhir")) as client:
        answer = await client.get("/fhir" + path)
        answer.raise_for_status()
        return answer.json()
