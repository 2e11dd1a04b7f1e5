"""`GET /{type}/{id}` and `GET /{type}/{id}/_history/{version}`: the bytes as they lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.answer import answer, negotiate
from fhir_facade.outcome import GoneError, UnknownResourceError
from fhir_facade.permit import Permit
from fhir_facade.request import resource_id_of, resource_type_of
from fhir_facade.server import FhirServer
from gateway.store.tables import fhir_resource

_VERSION = re.compile(r"[1-9]\d{0,8}")
_THIS = (
    fhir_resource.c.type == sa.bindparam("type"),
    fhir_resource.c.resource_id == sa.bindparam("resource_id"),
)
_COLUMNS = [fhir_resource.c[name] for name in ("version", "last_updated", "body", "is_deleted")]
# Put together once: what a read costs beyond that is the row.
_CURRENT = sa.select(*_COLUMNS).where(*_THIS, fhir_resource.c.is_current)
_VERSION_OF = sa.select(*_COLUMNS).where(*_THIS, fhir_resource.c.version == sa.bindparam("version"))
_DELETED = sa.select(*_COLUMNS).where(*_THIS, fhir_resource.c.is_deleted).limit(1)


@dataclass(frozen=True, slots=True)
class _Reading:
    server: FhirServer

    def read(self, request: Request) -> Response:
        """Answer with If-None-Match and If-Modified-Since."""
        negotiate(request)
        return self._stored(request, _CURRENT)

    def vread(self, request: Request) -> Response:
        """Answer with one version."""
        negotiate(request)
        version = request.path_params["version"]
        if _VERSION.fullmatch(version) is None:
            raise UnknownResourceError("no such version")
        return self._stored(request, _VERSION_OF, version=int(version))

    def _stored(self, request: Request, query: sa.Select[Any], **values: int) -> Response:
        resource_type, resource_id = resource_type_of(request), resource_id_of(request)
        permit = Permit.of(request)
        permit.require(resource_type, "r")
        this = {"type": resource_type, "resource_id": resource_id, **values}
        with self.server.store.read() as connection:
            row = connection.execute(query, this).first()
            if row is None and query is _CURRENT:
                row = connection.execute(_DELETED, this).first()
            is_seen = row is not None and permit.sees(connection, resource_type, resource_id, self.server.clock())
        if row is None or not is_seen:
            raise UnknownResourceError(f"no such {resource_type}")
        if row.is_deleted:
            raise GoneError(f"this {resource_type} was deleted")
        headers = {
            "ETag": f'W/"{row.version}"',
            "Last-Modified": format_datetime(row.last_updated.replace(microsecond=0), usegmt=True),
        }
        if _is_known(request, headers["ETag"], row.last_updated):
            return Response(status_code=304, headers=headers)
        return answer(request, row.body, headers=headers)


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    reading = _Reading(server)
    return [
        Route("/{type}/{id}/_history/{version}", reading.vread, methods=["GET"]),
        Route("/{type}/{id}", reading.read, methods=["GET"]),
    ]


def _is_known(request: Request, etag: str, last_updated: datetime) -> bool:
    """Say whether the client holds this version already (RFC 9110, 13.2.2)."""
    held = request.headers.get("if-none-match")
    if held is not None:
        tags = {part.strip().removeprefix("W/") for part in held.split(",")}
        return "*" in tags or etag.removeprefix("W/") in tags
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        moment = parsedate_to_datetime(since)
    except ValueError:
        return False
    return moment.tzinfo is not None and last_updated.replace(microsecond=0) <= moment
