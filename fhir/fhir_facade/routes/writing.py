"""`POST /ServiceRequest`, `POST /Patient` and `PUT /Patient/{id}`: what this server lets clients write of its results.

Everything else is written by what the gateway does; other methods answer 405.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.demographics import Patients
from fhir_facade.identity import installation_ids
from fhir_facade.outcome import InvalidError
from fhir_facade.permit import Permit
from fhir_facade.request import base_address
from fhir_facade.server import FhirServer
from fhir_facade.writer import Writer, Written
from fhir_facade.written import expected_version, read_resource, written_response
from gateway.web.caller import caller_of

_UNNAMED = "a client"


def writer_for(server: FhirServer, request: Request) -> Writer:
    """Return what writes for whoever asks."""
    caller = caller_of(request)
    source = _UNNAMED if caller is None else caller.name
    patients = Patients(installation_ids(server.store.data_dir))
    return Writer(patients, Permit.of(request), source, base_address(request), server.clock())


@dataclass(frozen=True, slots=True)
class _Writing:
    server: FhirServer

    async def create_patient(self, request: Request) -> Response:
        """Answer 201 for a patient that is not known yet; its id follows from its first identifier."""
        content, condition = await read_resource(request, "Patient"), _condition(request)
        writer = writer_for(self.server, request)
        return await self._write(request, lambda connection: writer.create_patient(connection, content, condition))

    async def update_patient(self, request: Request) -> Response:
        """Answer 200; warns where the images say otherwise."""
        content = await read_resource(request, "Patient")
        if content.get("id") != request.path_params["id"]:
            raise InvalidError("the id in the body is not that in the address")
        writer, expected = writer_for(self.server, request), expected_version(request)
        return await self._write(request, lambda connection: writer.update_patient(connection, content, expected))

    async def create_order(self, request: Request) -> Response:
        """Answer 201; the subject has to be a patient of this server."""
        content, condition = await read_resource(request, "ServiceRequest"), _condition(request)
        writer = writer_for(self.server, request)
        return await self._write(request, lambda connection: writer.create_order(connection, content, condition))

    async def _write(self, request: Request, write: Callable[[Connection], Written]) -> Response:
        def in_transaction() -> Written:
            with self.server.store.write() as connection:
                return write(connection)

        done = await run_in_threadpool(in_transaction)
        base = base_address(request)
        return written_response(request, base, done.body, is_new=done.is_new, warnings=done.warnings)


def _condition(request: Request) -> str:
    return request.headers.get("if-none-exist", "")


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    writing = _Writing(server)
    return [
        Route("/Patient", writing.create_patient, methods=["POST"]),
        Route("/Patient/{id}", writing.update_patient, methods=["PUT"]),
        Route("/ServiceRequest", writing.create_order, methods=["POST"]),
    ]
