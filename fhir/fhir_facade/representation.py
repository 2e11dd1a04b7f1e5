"""Stored bytes -> the bytes that a client asked for: as they lie, set out for reading, as XML, as R5."""

from __future__ import annotations

import json
from typing import Any

import orjson

from fhir_facade.negotiation import Format, Representation
from fhir_facade.outcome import NotAcceptableError
from fhir_facade.r5 import NoFormError, as_r5
from fhir_facade.resource import Json
from fhir_facade.xml_reader import read_xml
from fhir_facade.xml_writer import write_xml


def represent(body: bytes, wanted: Representation) -> bytes:
    """Return a resource, a Bundle among them, in the representation that was negotiated.

    Parameters
    ----------
    body
        JSON of R4 in UTF-8.

    Raises
    ------
    NotAcceptableError
        A resource in it has no form in R5.
    """
    if wanted.is_stored:
        return body
    if wanted.format == "xml":
        # Numbers stay the text that they were.
        content: Json = json.loads(body, parse_float=str, parse_int=str)
        return write_xml(_released(content, wanted), wanted.release, pretty=wanted.is_pretty)
    content = json.loads(body, parse_float=_as_written)
    options = orjson.OPT_INDENT_2 if wanted.is_pretty else 0
    return orjson.dumps(_released(content, wanted), option=options)


def read_body(body: bytes, written: Format) -> bytes:
    """Return a body that a client sent as JSON of R4; InvalidError where it is XML that cannot be read."""
    return read_xml(body) if written == "xml" else body


def _released(content: Json, wanted: Representation) -> Json:
    if wanted.release == "4.0":
        return content
    try:
        return as_r5(content)
    except NoFormError as error:
        raise NotAcceptableError(f"{error.args[0]} is served as FHIR 4.0 only") from None


def _as_written(digits: str) -> Any:
    return orjson.Fragment(digits.encode())
