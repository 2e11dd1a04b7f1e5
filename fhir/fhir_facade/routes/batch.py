"""`POST /` with a Bundle of type batch or transaction: each entry is asked of this server like a request of its own.

A batch may write what single requests may write, each entry by itself. A transaction either reads, or writes Patient
and ServiceRequest in one transaction of the database (`together.py`): of an answer that mixes both, nobody could say
whether what was read stood before or after what was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Scope

from fhir_facade.answer import answer, negotiate
from fhir_facade.outcome import MEDIA_TYPE, FhirError, InvalidError, MediaTypeError, TooCostlyError
from fhir_facade.request import base_address, bounded_body, media_type_of
from fhir_facade.resource import Json, dump, parse
from fhir_facade.routes.together import written_together
from fhir_facade.searchset import joined
from fhir_facade.server import FhirServer

_LARGEST_BODY = 4 << 20
_LARGEST_ANSWER = 64 << 20
_MOST_ENTRIES = 100
_READING = frozenset({"GET", "HEAD"})
_METHODS = _READING | {"POST", "PUT", "PATCH", "DELETE"}
_CONDITIONS = {
    "ifNoneMatch": "if-none-match",
    "ifModifiedSince": "if-modified-since",
    "ifMatch": "if-match",
    "ifNoneExist": "if-none-exist",
}
_PASSED_ON = frozenset({b"host", b"authorization", b"cookie", b"origin", b"prefer", b"x-forwarded-proto"})
_MEDIA_TYPES = frozenset({MEDIA_TYPE, "application/json"})


class FailedEntryError(FhirError):
    """An entry of a transaction failed, and with it the whole."""

    code = "processing"

    def __init__(self, at: int, status: int) -> None:
        super().__init__(f"entry {at} of the transaction failed with status {status}: nothing is answered")
        self.status = status  # type: ignore[misc] # that of the entry


@dataclass(slots=True)
class _Answer:
    """What came back for one entry."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    async def send(self, message: Message) -> None:
        """Take a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
            if len(self.body) > _LARGEST_ANSWER:  # before a file of an export is in memory as a whole
                raise _too_large()

    def entry(self) -> bytes:
        """Return the entry of the response."""
        response = {
            "status": f"{self.status} {HTTPStatus(self.status).phrase}",
            "location": self.headers.get("location"),
            "etag": self.headers.get("etag"),
        }
        known = {name: value for name, value in response.items() if value}
        if not self.body or not self.headers.get("content-type", "").startswith(MEDIA_TYPE):
            return b'{"response":%b}' % orjson.dumps(known)
        if self.status >= HTTPStatus.BAD_REQUEST:
            return b'{"response":%b,"outcome":%b}}' % (orjson.dumps(known)[:-1], bytes(self.body))
        return b'{"resource":%b,"response":%b}' % (bytes(self.body), orjson.dumps(known))


def _too_large() -> TooCostlyError:
    return TooCostlyError("the answers together are too large: ask for fewer at a time")


async def _batch(server: FhirServer, request: Request) -> Response:
    negotiate(request)
    bundle = await _bundle(request)
    is_transaction = bundle["type"] == "transaction"
    entries = [_request_of(each, base_address(request)) for each in bundle.get("entry", [])]
    if is_transaction and any(entry["method"] not in _READING for entry in entries):
        return await run_in_threadpool(written_together, server, request, entries)
    answers, size = [], 0
    for at, entry in enumerate(entries):
        got = await _ask(request, entry)
        if is_transaction and got.status >= HTTPStatus.BAD_REQUEST:
            raise FailedEntryError(at, got.status)
        size += len(got.body)
        if size > _LARGEST_ANSWER:
            raise _too_large()
        answers.append(got)
    head = {"resourceType": "Bundle", "type": f"{bundle['type']}-response"}
    return answer(request, joined(head, [each.entry() for each in answers]))


async def _bundle(request: Request) -> Json:
    """Return the Bundle that was posted."""
    if media_type_of(request) not in _MEDIA_TYPES:
        raise MediaTypeError(f"a Bundle is posted as {MEDIA_TYPE}")
    body = await bounded_body(request, _LARGEST_BODY)
    try:
        orjson.loads(body)  # refuses what json takes: NaN, lone surrogates, depth without end
        bundle = parse(body)
    except (ValueError, RecursionError):
        raise InvalidError("the body is no JSON") from None
    is_bundle = isinstance(bundle, dict) and bundle.get("resourceType") == "Bundle"
    if not is_bundle or bundle.get("type") not in ("batch", "transaction"):
        raise InvalidError("what is posted here is a Bundle of type batch or transaction")
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise InvalidError("Bundle.entry is a list of entries")
    if len(entries) > _MOST_ENTRIES:
        raise TooCostlyError(f"a Bundle has at most {_MOST_ENTRIES} entries")
    return dict(bundle)


def _request_of(entry: Mapping[str, Any], base: str) -> Json:
    """Return method, address and the like of an entry; InvalidError where they are no text or lead elsewhere."""
    asked = entry.get("request")
    if not isinstance(asked, dict) or not all(isinstance(value, str) for value in asked.values()):
        raise InvalidError("Bundle.entry.request has a method and an address")
    method, url = asked.get("method", ""), asked.get("url", "").removeprefix(f"{base}/")
    parts = urlsplit(url)
    if method not in _METHODS or parts.scheme or parts.netloc or "\0" in url:
        raise InvalidError("Bundle.entry.request has a method of HTTP, and an address of this server")
    if not parts.path.strip("/") and method == "POST":
        raise InvalidError("a Bundle holds no Bundle")
    return {**asked, "method": method, "path": f"/{parts.path.lstrip('/')}", "query": parts.query, "body": entry}


async def _ask(request: Request, entry: Json) -> _Answer:
    """Ask this server for what an entry says, as whoever sent the Bundle."""
    body = dump(entry["body"]["resource"]) if "resource" in entry["body"] else b""
    headers = [pair for pair in request.scope["headers"] if pair[0] in _PASSED_ON]
    headers += [(b"accept", MEDIA_TYPE.encode()), (b"content-type", MEDIA_TYPE.encode())]
    headers += [(name.encode(), entry[key].encode()) for key, name in _CONDITIONS.items() if key in entry]
    root = request.scope.get("root_path", "")
    scope: Scope = {
        **{name: request.scope[name] for name in ("type", "asgi", "http_version", "scheme", "server", "client")},
        "method": entry["method"],
        "root_path": root,
        "app_root_path": request.scope.get("app_root_path", root),
        "path": root + entry["path"],
        "raw_path": (root + entry["path"]).encode(),
        "query_string": entry["query"].encode(),
        "headers": headers,
        "state": dict(request.scope.get("state", {})),
    }
    got = _Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        await request.app(scope, receive, got.send)
    except Exception:  # the server sends its answer (500), logs it, and raises it again
        got.status = 500
    return got


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""

    async def batch(request: Request) -> Response:
        return await _batch(server, request)

    return [Route("/", batch, methods=["POST"])]
