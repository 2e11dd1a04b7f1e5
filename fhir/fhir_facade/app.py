"""FHIR R4 over HTTP: read, vread, search by GET and POST, metadata. Routes only: parse, call, answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import parse_qsl

import sqlalchemy as sa
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fhir_facade.capability import capability_statement
from fhir_facade.criteria import Clock
from fhir_facade.outcome import (
    MEDIA_TYPE,
    FhirError,
    InvalidError,
    MediaTypeError,
    NotAcceptableError,
    TooLongError,
    UnknownResourceError,
    UnknownTypeError,
    outcome_response,
)
from fhir_facade.parameters import PARAMETERS
from fhir_facade.search import run_search, understand
from fhir_facade.searchset import searchset
from gateway.errors import GatewayError
from gateway.place import place
from gateway.store import Store
from gateway.store.tables import fhir_resource

log = structlog.get_logger()

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_VERSION = re.compile(r"[1-9]\d{0,8}")
_JSON = frozenset({"application/fhir+json", "application/json", "text/json", "json"})
_ANY = frozenset({"*/*", "application/*"})
_LARGEST_BODY = 65536
_MOST_FIELDS = 100


@dataclass(frozen=True, slots=True)
class FhirServer:
    """The routes, over one store."""

    store: Store
    zone: tzinfo | None
    since: datetime

    def metadata(self, request: Request) -> Response:
        """`GET /metadata`."""
        _negotiate(request)
        return Response(capability_statement(_base(request), self.since), media_type=MEDIA_TYPE)

    def read(self, request: Request) -> Response:
        """`GET /{type}/{id}`, with If-None-Match and If-Modified-Since."""
        _negotiate(request)
        return self._stored(request, fhir_resource.c.is_current)

    def vread(self, request: Request) -> Response:
        """`GET /{type}/{id}/_history/{version}`."""
        _negotiate(request)
        version = request.path_params["version"]
        if _VERSION.fullmatch(version) is None:
            raise UnknownResourceError("no such version")
        return self._stored(request, fhir_resource.c.version == int(version))

    def search_get(self, request: Request) -> Response:
        """`GET /{type}?…`."""
        return self._search(request, _pairs(request.url.query))

    async def search_post(self, request: Request) -> Response:
        """`POST /{type}/_search`, the parameters in the body, the address or both."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _bounded_body(request)
        if body and media_type != "application/x-www-form-urlencoded":
            raise MediaTypeError("a search is posted as application/x-www-form-urlencoded")
        pairs = [*_pairs(request.url.query), *_pairs(body.decode("utf-8", errors="replace"))]
        return await run_in_threadpool(self._search, request, pairs)

    def _search(self, request: Request, pairs: Sequence[tuple[str, str]]) -> Response:
        _negotiate(request, dict(pairs).get("_format"))
        search = understand(_type(request), pairs, is_strict="handling=strict" in request.headers.get("prefer", ""))
        with self.store.read() as connection:
            page = run_search(connection, search, Clock(datetime.now(UTC), self.zone))
        return Response(searchset(_base(request), search, page), media_type=MEDIA_TYPE)

    def _stored(self, request: Request, which: sa.ColumnElement[bool]) -> Response:
        resource_type, resource_id = _type(request), request.path_params["id"]
        if _ID.fullmatch(resource_id) is None:
            raise UnknownResourceError(f"no such {resource_type}")
        query = sa.select(fhir_resource.c.version, fhir_resource.c.last_updated, fhir_resource.c.body).where(
            fhir_resource.c.type == resource_type, fhir_resource.c.resource_id == resource_id, which
        )
        with self.store.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise UnknownResourceError(f"no such {resource_type}")
        headers = {
            "ETag": f'W/"{row.version}"',
            "Last-Modified": format_datetime(row.last_updated.replace(microsecond=0), usegmt=True),
        }
        if _is_known(request, headers["ETag"], row.last_updated):
            return Response(status_code=304, headers=headers)
        return Response(row.body, media_type=MEDIA_TYPE, headers=headers)


def create_app(store: Store, *, zone: tzinfo | None = None) -> Starlette:
    """Return the FHIR server, to be mounted or served by itself.

    Parameters
    ----------
    store
        Where the resources lie.
    zone
        The site's zone, for dates without offset in searches; None: that of this machine.
    """
    server = FhirServer(store, zone, datetime.now(UTC))
    return Starlette(
        routes=[
            Route("/metadata", server.metadata, methods=["GET"]),
            Route("/{type}/_search", server.search_post, methods=["POST"]),
            Route("/{type}/{id}/_history/{version}", server.vread, methods=["GET"]),
            Route("/{type}/{id}", server.read, methods=["GET"]),
            Route("/{type}", server.search_get, methods=["GET"]),
        ],
        exception_handlers={
            FhirError: _told,
            HTTPException: _http_error,
            GatewayError: _away,
            Exception: _failed,
        },
    )


def _told(_request: Request, error: Exception) -> Response:
    known = error if isinstance(error, FhirError) else InvalidError()
    return outcome_response(known.status, str(known), code=known.code)


def _http_error(_request: Request, error: Exception) -> Response:
    """Answer what the router refused: 404 for no such address, 405 for no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    text = "no such address" if status == 404 else "this server reads and searches only"  # noqa: PLR2004 # HTTP's own number
    return outcome_response(status, text, headers=headers)


def _away(_request: Request, error: Exception) -> Response:
    status = error.http_status if isinstance(error, GatewayError) else 500
    log.warning("fhir.away", reason=str(error))
    return outcome_response(status, "the database does not answer; try again", headers={"Retry-After": "5"})


def _failed(request: Request, error: Exception) -> Response:
    log.error("fhir.failed", error=type(error).__name__, place=place(error), method=request.method)
    return outcome_response(500, "the server failed; its log says more")


def _type(request: Request) -> str:
    resource_type: str = request.path_params["type"]
    if resource_type not in PARAMETERS:
        raise UnknownTypeError(f"this server holds {', '.join(PARAMETERS)}")
    return resource_type


def _base(request: Request) -> str:
    """Return the address under which the client reached this server."""
    return str(request.url.replace(path=request.scope.get("root_path", ""), query="", fragment="")).rstrip("/")


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidError(f"more than {_MOST_FIELDS} parameters") from None


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise TooLongError(f"a search has at most {_LARGEST_BODY} bytes")
    return bytes(body)


def _negotiate(request: Request, asked: str | None = None) -> None:
    """Raise NotAcceptableError where the client takes no JSON; `_format` goes before Accept (R4 http, 3.1.0.1.11)."""
    asked = asked or dict(_pairs(request.url.query)).get("_format")
    if asked:
        # A plus sign that was not escaped arrives as a space.
        formats = [asked.partition(";")[0].strip().lower().replace(" ", "+")]
    else:
        accepted = request.headers.get("accept") or "*/*"
        formats = [part.partition(";")[0].strip().lower() for part in accepted.split(",") if not _is_refused(part)]
    if not any(each in _JSON or each in _ANY for each in formats):
        raise NotAcceptableError(f"this server writes {MEDIA_TYPE}")


def _is_refused(part: str) -> bool:
    return re.search(r";\s*q=0(\.0*)?\s*$", part) is not None


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
