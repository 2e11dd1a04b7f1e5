"""`GET /Binary/{id}`: a picture or a document of a result, as itself or as a Binary resource (R4 binary)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from fhir_facade.answer import answer, negotiate
from fhir_facade.attachment import read_binary_id
from fhir_facade.outcome import UnknownResourceError
from fhir_facade.permit import Permit
from fhir_facade.request import query_pairs
from fhir_facade.server import FhirServer
from fhir_facade.timing import instant
from gateway.store.results import DICOM
from gateway.store.tables import artefact, fhir_resource

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
"""Of a document that a browser shows: it runs nothing and fetches nothing."""
_ETAG = 'W/"1"'
_RESOURCE_TYPES = ("fhir+json", "fhir+xml", "application/json", "application/xml")


@dataclass(frozen=True, slots=True)
class _Binaries:
    server: FhirServer

    def read(self, request: Request) -> Response:
        """Answer with the file in its own media type; as a resource where the client asks for FHIR."""
        resource_id = request.path_params["id"]
        permit = Permit.of(request)
        permit.require("Binary", "r")
        row, report_id = self._find(resource_id)
        if not self._is_seen(permit, report_id):
            raise UnknownResourceError("no such Binary")
        path = self.server.store.files.local(row.path)
        if not path.is_file():
            raise UnknownResourceError("no such Binary")
        headers = {"ETag": _ETAG, "Vary": "Accept", "X-Security-Context": f"DiagnosticReport/{report_id}"}
        if request.headers.get("if-none-match") == _ETAG:
            return Response(status_code=304, headers=headers)
        if _wants_resource(request):
            negotiate(request)
            return answer(request, _resource(resource_id, row, report_id, path), headers=headers)
        # A charset goes with text alone.
        charset = "; charset=utf-8" if row.media_type.startswith("text/") else ""
        headers |= {"Content-Security-Policy": _POLICY} if row.media_type == "text/html" else {}
        return FileResponse(path, headers=headers, media_type=row.media_type + charset)

    def _is_seen(self, permit: Permit, report_id: str) -> bool:
        """Say whether a file belongs to what the caller sees: as its report does."""
        if not permit.is_bound("Binary"):
            return True
        with self.server.store.read() as connection:
            return permit.owns(connection, "DiagnosticReport", report_id, self.server.clock())

    def _find(self, resource_id: str) -> tuple[sa.Row[Any], str]:
        """Return the file's row and the id of the report that it belongs to."""
        named = read_binary_id(resource_id)
        if named is None:
            raise UnknownResourceError("no such Binary")
        query = sa.select(artefact).where(
            artefact.c.job_id == named.job_id,
            artefact.c.digest.startswith(named.digest_start, autoescape=True),
            artefact.c.media_type != DICOM,
        )
        report = sa.select(fhir_resource.c.resource_id).where(
            fhir_resource.c.job_id == named.job_id, fhir_resource.c.type == "DiagnosticReport"
        )
        with self.server.store.read() as connection:
            row = connection.execute(query.limit(1)).first()
            report_id = connection.scalar(report.limit(1))
        if row is None or report_id is None:
            raise UnknownResourceError("no such Binary")
        return row, report_id


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    return [Route("/Binary/{id}", _Binaries(server).read, methods=["GET"])]


def _wants_resource(request: Request) -> bool:
    asked = dict(query_pairs(request)).get("_format") or request.headers.get("accept", "")
    return any(each in asked.lower().replace("fhir ", "fhir+") for each in _RESOURCE_TYPES) and not _is_browser(asked)


def _is_browser(accept: str) -> bool:
    return "text/html" in accept.lower()


def _resource(resource_id: str, row: sa.Row[Any], report_id: str, path: Path) -> bytes:
    content = {
        "resourceType": "Binary",
        "id": resource_id,
        "meta": {"versionId": "1", "lastUpdated": instant(row.created_at)},
        "contentType": row.media_type,
        "securityContext": {"reference": f"DiagnosticReport/{report_id}"},
        "data": base64.b64encode(path.read_bytes()).decode("ascii"),
    }
    return orjson.dumps(content)
