"""Bulk export: `/$export`, `/Patient/$export`; then its state, its files, and its deletion under `/$export/{id}`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from fhir_facade.export import KEPT, Exporter, export_types
from fhir_facade.outcome import FhirError, InvalidError, NotSupportedError, UnknownResourceError
from fhir_facade.permit import NotPermittedError, Permit
from fhir_facade.request import base_address, is_strict, preferences, query_pairs
from fhir_facade.server import FhirServer
from fhir_facade.timing import instant, period
from gateway.store.fhir_exports import DELETED, ExportRow, add_export, get_export
from gateway.web.caller import caller_of

NDJSON = "application/fhir+ndjson"
_FORMATS = frozenset({NDJSON, "application/ndjson", "ndjson"})
_MOST_OPEN = 4
_RETRY_S = 2
_LONGEST_OWNER = 255
_KNOWN = frozenset({"_outputFormat", "_since", "_type"})


class BusyError(FhirError):
    """Too many exports at once."""

    status = 429
    code = "throttled"


class ExportFailedError(FhirError):
    """An export that could not be written."""

    status = 500
    code = "exception"


@dataclass(frozen=True, slots=True)
class _Exporting:
    server: FhirServer
    exporter: Exporter

    def everything(self, request: Request) -> Response:
        """Begin an export of all types."""
        return self._begin(request, patients_only=False)

    def patients(self, request: Request) -> Response:
        """Begin an export of what belongs to patients."""
        return self._begin(request, patients_only=True)

    def group(self, request: Request) -> Response:
        """Refuse: there are no Groups here."""
        del request
        raise NotSupportedError("this server holds no Group: export with /Patient/$export, by _type and _since")

    def _begin(self, request: Request, *, patients_only: bool) -> Response:
        if "respond-async" not in preferences(request):
            raise InvalidError("an export is asked for with Prefer: respond-async")
        asked = {name: value.replace(" ", "+") for name, value in query_pairs(request) if value}
        if asked.get("_outputFormat", NDJSON) not in _FORMATS:
            raise NotSupportedError(f"an export is written as {NDJSON}")
        if is_strict(request) and not asked.keys() <= _KNOWN:
            raise NotSupportedError(f"an export takes {', '.join(sorted(_KNOWN))}")
        types = _types(asked.get("_type"), patients_only=patients_only)
        _require_all(request, types)
        with self.server.store.write() as connection:
            export_id = add_export(
                connection,
                datetime.now(UTC),
                request=str(request.url),
                owner=_owner(request),
                types=types,
                patients_only=patients_only,
                since=self._since(asked.get("_since")),
                most_open=_MOST_OPEN,
            )
        if export_id is None:
            raise BusyError("other exports are being written: try again later")
        self.exporter.wake()
        return Response(status_code=202, headers={"Content-Location": f"{base_address(request)}/$export/{export_id}"})

    def status(self, request: Request) -> Response:
        """Say how far an export is, and where its files are."""
        row = self._row(request)
        if row.state in ("queued", "running"):
            self.exporter.wake()  # where the process that wrote it died, this one goes on
            headers = {"X-Progress": f"{row.progress} resources written", "Retry-After": str(_RETRY_S)}
            return Response(status_code=202, headers=headers)
        if row.state == "failed":
            raise ExportFailedError("the export could not be written; the server's log says more")
        expires = format_datetime(row.requested_at + KEPT, usegmt=True)
        body = orjson.dumps(_manifest(base_address(request), row))
        return Response(body, media_type="application/json", headers={"Expires": expires})

    def file(self, request: Request) -> Response:
        """Give one file."""
        row, name = self._row(request), request.path_params["name"]
        if name not in {f"{each['type']}.ndjson" for each in row.files}:
            raise UnknownResourceError("no such file")
        return FileResponse(self.exporter.folder(row.id) / name, media_type=NDJSON)

    def remove(self, request: Request) -> Response:
        """Cancel an export, or delete its files."""
        self.exporter.remove(self._row(request).id)
        return Response(status_code=202)

    def _row(self, request: Request) -> ExportRow:
        with self.server.store.read() as connection:
            row = get_export(connection, request.path_params["export"])
        if row is None or row.owner not in (None, _owner(request)):
            raise UnknownResourceError("no such export")  # nor that another asked for it
        _require_all(request, row.types)
        return row

    def _since(self, text: str | None) -> datetime | None:
        try:
            return None if text is None else period(text, self.server.zone)[0]
        except (ValueError, OverflowError):
            raise InvalidError("_since is written as in 2024-05-01T09:30:00+02:00") from None


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    exporting = _Exporting(server, Exporter(server.store))
    return [
        Route("/$export", exporting.everything, methods=["GET"]),
        Route("/Patient/$export", exporting.patients, methods=["GET"]),
        Route("/Group/{id}/$export", exporting.group, methods=["GET"]),
        Route("/$export/{export}", exporting.status, methods=["GET"]),
        Route("/$export/{export}", exporting.remove, methods=["DELETE"]),
        Route("/$export/{export}/{name}", exporting.file, methods=["GET"]),
    ]


def _types(asked: str | None, *, patients_only: bool) -> tuple[str, ...]:
    offered = export_types(patients_only=patients_only)
    if asked is None:
        return offered
    types = tuple(dict.fromkeys(part for part in asked.split(",") if part))
    if not types or not set(types) <= set(offered):
        raise InvalidError(f"_type: this export holds {', '.join(offered)}")
    return types


def _require_all(request: Request, types: Sequence[str]) -> None:
    """Raise NotPermittedError unless the caller may see these types of all patients."""
    permit = Permit.of(request)
    for each in types:
        permit.require(each, "r")
        if permit.is_bound(each):
            raise NotPermittedError("a caller that is bound to a patient exports nothing")


def _owner(request: Request) -> str | None:
    """Return who asks, by whom alone its export is seen; None where nobody has to say."""
    caller = caller_of(request)
    return None if caller is None else f"{caller.kind} {caller.name}"[:_LONGEST_OWNER]


def _manifest(base: str, row: ExportRow) -> dict[str, object]:
    def listed(resource_type: str, each: dict[str, int | str]) -> dict[str, object]:
        return {"type": resource_type, "url": f"{base}/$export/{row.id}/{each['type']}.ndjson", "count": each["count"]}

    gone = [listed("Bundle", each) for each in row.files if each["type"] == DELETED]
    return {
        "transactionTime": instant(row.requested_at),
        "request": row.request,
        "requiresAccessToken": True,
        "output": [listed(str(each["type"]), each) for each in row.files if each["type"] != DELETED],
        **({"deleted": gone} if gone else {}),
        "error": [],
    }
