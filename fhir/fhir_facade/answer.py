"""What goes out: one place where a body that was made or stored as JSON becomes a response."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from fhir_facade.negotiation import REPRESENTATION_STATE, STORED, Representation, negotiate_accept
from fhir_facade.outcome import FhirError
from fhir_facade.representation import represent
from fhir_facade.request import query_pairs


def answer(request: Request, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a resource, in the representation that `negotiate` found.

    Parameters
    ----------
    body
        JSON of R4 in UTF-8.

    Raises
    ------
    NotAcceptableError
        It has no form in the release that was asked for.
    """
    wanted = wanted_of(request)
    content = represent(body, wanted)
    return Response(content, status, {"Vary": "Accept", **(headers or {})}, media_type=wanted.media_type)


def negotiate(request: Request, asked: str | None = None) -> Representation:
    """Note how the client wants to be answered; NotAcceptableError where it takes nothing that is written here.

    Parameters
    ----------
    asked
        `_format` of a posted form; None: that of the address.
    """
    query = request.url.query
    given = dict(query_pairs(request)) if "_format" in query or "_pretty" in query else {}
    wanted = negotiate_accept(request.headers.get("accept"), asked or given.get("_format"), given.get("_pretty"))
    setattr(request.state, REPRESENTATION_STATE, wanted)
    return wanted


def wanted_of(request: Request) -> Representation:
    """Return what `negotiate` found; as resources are stored where it was not asked."""
    wanted: Representation = getattr(request.state, REPRESENTATION_STATE, STORED)
    return wanted


def error_answer(request: Request, response: Response) -> Response:
    """Return an OperationOutcome as the client wants it, as JSON where it takes nothing that is written here."""
    try:
        wanted = negotiate(request)
        body = represent(bytes(response.body), wanted)
    except FhirError:
        return response
    if wanted.is_stored and not wanted.names_release:
        return response
    headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
    return Response(body, response.status_code, headers, media_type=wanted.media_type)
