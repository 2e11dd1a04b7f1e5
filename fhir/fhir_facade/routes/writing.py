"""`POST /ServiceRequest`, `POST /Patient` and `PUT /Patient/{id}`: what this server lets clients write of its results.

Everything else is written by what the gateway does; other methods answer 405.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.demographics import Patients
from fhir_facade.identity import installation_ids
from fhir_facade.index import index_entries
from fhir_facade.outcome import InvalidError
from fhir_facade.permit import NotPermittedError, Permit
from fhir_facade.query import understand
from fhir_facade.refusal import BrokenError, DuplicateError, NotAllowedError, VersionConflictError
from fhir_facade.request import base_address, read_pairs
from fhir_facade.resource import Json, encode
from fhir_facade.search import run_search
from fhir_facade.server import FhirServer
from fhir_facade.written import expected_version, read_resource, written_response
from gateway.store.demographics import keep_written
from gateway.store.results import FhirVersion, lock_resources, write_resources
from gateway.store.tables import fhir_resource
from gateway.web.caller import caller_of

_OURS = 2
_UNNAMED = "a client"


@dataclass(frozen=True, slots=True)
class _Writing:
    server: FhirServer

    async def create_patient(self, request: Request) -> Response:
        """Answer 201 for a patient that is not known yet; its id follows from its first identifier."""
        content = await read_resource(request, "Patient")
        return await run_in_threadpool(self._create_patient, request, content)

    async def update_patient(self, request: Request) -> Response:
        """Answer 200; warns where the images say otherwise."""
        content = await read_resource(request, "Patient")
        if content.get("id") != request.path_params["id"]:
            raise InvalidError("the id in the body is not that in the address")
        return await run_in_threadpool(self._update_patient, request, content)

    async def create_order(self, request: Request) -> Response:
        """Answer 201; the subject has to be a patient of this server."""
        content = await read_resource(request, "ServiceRequest")
        return await run_in_threadpool(self._create_order, request, content)

    def _create_patient(self, request: Request, content: Json) -> Response:
        now, patients, permit = datetime.now(UTC), self._patients(), Permit.of(request)
        permit.require("Patient", "c")
        if permit.is_bound("Patient", "c"):
            raise NotPermittedError("a caller that is bound to a patient creates no others")
        with self.server.store.write() as connection:
            existing = self._if_none_exist(connection, request, "Patient")
            if existing is not None:
                return written_response(request, base_address(request), existing, is_new=False)
            resource_id = patients.id_for(connection, content)
            if resource_id is None:
                raise BrokenError("identifier: a patient is known by one, and this has none")
            patients.lock(connection, resource_id)
            if _current(connection, "Patient", resource_id) is not None:
                raise DuplicateError("there is a Patient with this identifier: use If-None-Exist, or PUT")
            elements = patients.write(connection, content | {"id": resource_id}, _source(request), now)
            body = _stands(connection, "Patient", resource_id)
        return written_response(request, base_address(request), body, is_new=True, warnings=_warnings(elements))

    def _update_patient(self, request: Request, content: Json) -> Response:
        now, expected, patients, permit = (
            datetime.now(UTC),
            expected_version(request),
            self._patients(),
            Permit.of(request),
        )
        permit.require("Patient", "u")
        if permit.is_bound("Patient", "u") and content["id"] != permit.patient:
            raise NotPermittedError("a caller that is bound to a patient updates no others")
        with self.server.store.write() as connection:
            patients.lock(connection, content["id"])
            version = _current(connection, "Patient", content["id"])
            if version is None:
                raise NotAllowedError("no such Patient, and ids are given by the server")
            if expected is not None and version != expected:
                raise VersionConflictError("the resource has another version by now")
            elements = patients.write(connection, content, _source(request), now)
            if "identifier" in elements:
                # Raised within the transaction: nothing of it stays.
                raise BrokenError("identifier: that by which the images name the patient has to stay")
            body = _stands(connection, "Patient", content["id"])
        return written_response(request, base_address(request), body, is_new=False, warnings=_warnings(elements))

    def _create_order(self, request: Request, content: Json) -> Response:
        now, base, permit = datetime.now(UTC), base_address(request), Permit.of(request)
        permit.require("ServiceRequest", "c")
        with self.server.store.write() as connection:
            existing = self._if_none_exist(connection, request, "ServiceRequest")
            if existing is not None:
                return written_response(request, base, existing, is_new=False)
            own = {name: value for name, value in content.items() if name != "meta"}
            own |= {"id": str(uuid.uuid4()), "subject": _subject(connection, content, base)}
            if permit.is_bound("ServiceRequest", "c") and own["subject"]["reference"] != f"Patient/{permit.patient}":
                raise NotPermittedError("a caller that is bound to a patient orders for no others")
            version = FhirVersion("ServiceRequest", own["id"], None, encode(own), index_entries(own, self.server.zone))
            write_resources(connection, [version], now, job_id=None)
            keep_written(connection, "ServiceRequest", own["id"], version.body, _source(request), now)
            body = _stands(connection, "ServiceRequest", own["id"])
        return written_response(request, base, body, is_new=True)

    def _patients(self) -> Patients:
        return Patients(installation_ids(self.server.store.data_dir))

    def _if_none_exist(self, connection: Connection, request: Request, resource_type: str) -> bytes | None:
        """Return the one resource that If-None-Exist finds, None where there is none or nothing was asked.

        Creators on condition wait for each other, so that of two with the same condition one finds the other's.
        """
        query = request.headers.get("if-none-exist", "").strip().removeprefix("?")
        if not query:
            return None
        lock_resources(connection, [(resource_type, "if-none-exist")])
        search = understand([resource_type], [*read_pairs(query), ("_count", "2")], is_strict=True)
        found = run_search(connection, Permit.of(request).narrow(search), self.server.clock()).found
        if len(found) > 1:
            raise VersionConflictError("If-None-Exist finds more than one")
        return found[0].body if found else None


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    writing = _Writing(server)
    return [
        Route("/Patient", writing.create_patient, methods=["POST"]),
        Route("/Patient/{id}", writing.update_patient, methods=["PUT"]),
        Route("/ServiceRequest", writing.create_order, methods=["POST"]),
    ]


def _current(connection: Connection, resource_type: str, resource_id: str) -> int | None:
    """Return the current version of a resource; None where there is none."""
    row = fhir_resource.c
    query = sa.select(row.version).where(row.type == resource_type, row.resource_id == resource_id, row.is_current)
    return connection.scalar(query)


def _stands(connection: Connection, resource_type: str, resource_id: str) -> bytes:
    row = fhir_resource.c
    query = sa.select(row.body).where(row.type == resource_type, row.resource_id == resource_id, row.is_current)
    body: bytes = connection.execute(query).scalar_one()
    return body


def _subject(connection: Connection, content: Json, base: str) -> Json:
    """Return the subject of an order, as a reference within this server; BrokenError where it is no patient of ours."""
    subject: Json = content["subject"]
    parts = subject.get("reference", "").removeprefix(f"{base}/").split("/")
    if len(parts) != _OURS or parts[0] != "Patient" or _current(connection, "Patient", parts[1]) is None:
        raise BrokenError("subject: a reference to a Patient of this server is needed")
    return subject | {"reference": "/".join(parts)}


def _warnings(elements: Sequence[str]) -> list[str]:
    if not elements:
        return []
    return [f"differs from what the images say, and was flagged: {', '.join(elements)}"]


def _source(request: Request) -> str:
    caller = caller_of(request)
    return _UNNAMED if caller is None else caller.name
