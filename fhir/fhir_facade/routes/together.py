"""A Bundle of type transaction that writes: all of its entries in one transaction of the database, or none."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from fhir_facade.answer import answer
from fhir_facade.outcome import FhirError, InvalidError, NotSupportedError
from fhir_facade.refusal import BrokenError
from fhir_facade.request import base_address, preferences
from fhir_facade.resource import Json, dump, parse
from fhir_facade.routes.writing import writer_for
from fhir_facade.searchset import joined
from fhir_facade.server import FhirServer
from fhir_facade.writer import Entry, Transaction, Written
from fhir_facade.written import checked, outcome, version_named

_WRITES = {("POST", "Patient"), ("PUT", "Patient"), ("POST", "ServiceRequest")}
_OURS = 2
"""Parts of an address that names a resource: type and id."""


class RefusedEntryError(FhirError):
    """An entry was refused, and with it the whole."""

    def __init__(self, at: int, error: FhirError) -> None:
        super().__init__(f"entry {at} of the transaction: {error}; nothing is written")
        self.status = error.status  # type: ignore[misc] # that of the entry
        self.code = error.code  # type: ignore[misc]


def written_together(server: FhirServer, request: Request, requests: Sequence[Json]) -> Response:
    """Write the entries of a transaction and answer with a Bundle of type transaction-response.

    Parameters
    ----------
    requests
        Of each entry method, path and the entry itself as `body`, as `batch.py` reads them.
    """
    at = 0

    def tell(number: int) -> None:
        nonlocal at
        at = number

    try:
        entries = []
        for number, each in enumerate(requests):
            tell(number)
            entries.append(_entry(each))
        transaction = Transaction(writer_for(server, request), entries)
        with server.store.write() as connection:
            written = transaction.write(connection, tell)
    except FhirError as error:
        raise RefusedEntryError(at, error) from error
    shown = preferences(request).get("return", "representation")
    head = {"resourceType": "Bundle", "type": "transaction-response"}
    return answer(request, joined(head, [_answered(base_address(request), each, shown) for each in written]))


def _entry(asked: Json) -> Entry:
    """Return what an entry writes, checked."""
    method, parts, body = asked["method"], asked["path"].strip("/").split("/"), asked["body"]
    if (method, parts[0]) not in _WRITES or len(parts) != (_OURS if method == "PUT" else 1) or asked["query"]:
        raise NotSupportedError(
            "a transaction that writes takes POST Patient, PUT Patient/{id} and POST ServiceRequest alone: "
            "send the rest by itself, or as a batch"
        )
    content = checked(dump(body.get("resource")), parts[0])
    if method == "PUT" and content.get("id") != parts[1]:
        raise InvalidError("the id in the resource is not that in the address")
    if method == "POST" and asked.get("ifMatch"):
        raise BrokenError("ifMatch: what is created has no version")
    full_url: Any = body.get("fullUrl", "")
    if not isinstance(full_url, str):
        raise InvalidError("Bundle.entry.fullUrl is an address")
    condition, etag = asked.get("ifNoneExist", ""), asked.get("ifMatch", "*")
    return Entry(method, parts[0], content, full_url, condition, version_named(etag))


def _answered(base: str, done: Written, shown: str) -> bytes:
    content = parse(done.body)
    meta = content["meta"]
    status = HTTPStatus.CREATED if done.is_new else HTTPStatus.OK
    response: dict[str, Any] = {
        "status": f"{status.value} {status.phrase}",
        "location": f"{base}/{content['resourceType']}/{content['id']}/_history/{meta['versionId']}",
        "etag": f'W/"{meta["versionId"]}"',
        "lastModified": meta["lastUpdated"],
    }
    if done.warnings or shown == "OperationOutcome":
        response["outcome"] = orjson.Fragment(outcome(done.warnings))
    if shown != "representation":
        return b'{"response":%b}' % orjson.dumps(response)
    return b'{"resource":%b,"response":%b}' % (done.body, orjson.dumps(response))
