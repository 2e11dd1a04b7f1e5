"""What a request says, within bounds: its address, parameters, body, preferences."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from starlette.requests import Request

from fhir_facade.negotiation import REPRESENTATION_STATE, STORED
from fhir_facade.outcome import InvalidError, MediaTypeError, TooLongError, UnknownResourceError, UnknownTypeError
from fhir_facade.parameters import PARAMETERS

FORM = "application/x-www-form-urlencoded"
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_MOST_FIELDS = 100
_LARGEST_FORM = 65536

_R5_NAMES = {"DocumentReference": "Media"}
"""What a type is called in R5 -> its name here."""

Pairs = list[tuple[str, str]]


def base_address(request: Request) -> str:
    """Return the address under which the client reached this server, without a slash at the end."""
    return str(request.url.replace(path=request.scope.get("root_path", ""), query="", fragment="")).rstrip("/")


def resource_type_of(request: Request) -> str:
    """Return the type that the address names; UnknownTypeError where this server holds none of it."""
    resource_type: str = request.path_params["type"]
    wanted = getattr(request.state, REPRESENTATION_STATE, STORED)
    if wanted.release == "5.0":
        resource_type = _R5_NAMES.get(resource_type, resource_type)
    if resource_type not in PARAMETERS:
        raise UnknownTypeError(f"this server holds {', '.join(PARAMETERS)}")
    return resource_type


def resource_id_of(request: Request) -> str:
    """Return the id that the address names; UnknownResourceError where no resource has one like it."""
    resource_id: str = request.path_params["id"]
    if _ID.fullmatch(resource_id) is None:
        raise UnknownResourceError("no resource has such an id")
    return resource_id


def is_strict(request: Request) -> bool:
    """Say whether what is not understood is an error (R4 search, 3.1.1.3)."""
    return preferences(request).get("handling") == "strict"


def query_pairs(request: Request) -> Pairs:
    """Return the parameters of the address, in order."""
    return read_pairs(request.url.query)


def read_pairs(query: str) -> Pairs:
    """Return the pairs of a query string, in order; InvalidError where there are too many."""
    try:
        return parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidError(f"more than {_MOST_FIELDS} parameters") from None


def media_type_of(request: Request) -> str:
    """Return the media type of the body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def bounded_body(request: Request, largest: int) -> bytes:
    """Return the body; TooLongError beyond `largest` bytes, MediaTypeError where it is compressed."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise MediaTypeError("a body is sent without compression")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise TooLongError(f"a body has at most {largest} bytes here")
    return bytes(body)


async def form_pairs(request: Request) -> Pairs:
    """Return the parameters of the address and of a posted form."""
    body = await bounded_body(request, _LARGEST_FORM)
    if body and media_type_of(request) != FORM:
        raise MediaTypeError(f"a search is posted as {FORM}")
    return [*query_pairs(request), *read_pairs(body.decode("utf-8", errors="replace"))]


def preferences(request: Request) -> dict[str, str]:
    """Return what `Prefer` says (RFC 7240): names in lower case, with '' where no value is given."""
    parts = (part for line in request.headers.getlist("prefer") for part in line.replace(";", ",").split(","))
    pairs = (part.partition("=") for part in parts)
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs if name.strip()}
