"""Errors of the FHIR interface: each knows its status and the code of its OperationOutcome (R4 http, table of errors).

FhirError
├── InvalidError          400 invalid        a value that cannot be understood
├── NotSupportedError     400 not-supported  asked for strictly, or a modifier that we lack
├── TooCostlyError        400 too-costly
├── UnknownTypeError      404 not-supported
├── UnknownResourceError  404 not-found
├── GoneError             410 deleted
├── NotAcceptableError    406 not-supported
├── TooLongError          413 too-long
└── MediaTypeError        415 not-supported
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import orjson
from starlette.responses import Response

MEDIA_TYPE = "application/fhir+json"
_CODES = {400: "invalid", 401: "login", 403: "forbidden", 404: "not-found", 405: "not-supported", 503: "transient"}


class FhirError(Exception):
    """Root of the errors that a client is told. The message is shown, so it holds no patient data of ours."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "exception"


class InvalidError(FhirError):
    """A value that cannot be understood."""

    status = 400
    code = "invalid"


class NotSupportedError(FhirError):
    """A part of FHIR that this server lacks, where it may not be passed over."""

    status = 400
    code = "not-supported"


class TooCostlyError(FhirError):
    """A request beyond the bounds."""

    status = 400
    code = "too-costly"


class UnknownTypeError(FhirError):
    """A resource type that this server does not hold."""

    status = 404
    code = "not-supported"


class UnknownResourceError(FhirError):
    """No such resource or version."""

    status = 404
    code = "not-found"


class GoneError(FhirError):
    """A resource that was deleted."""

    status = 410
    code = "deleted"


class NotAcceptableError(FhirError):
    """A format that this server does not write."""

    status = 406
    code = "not-supported"


class TooLongError(FhirError):
    """A body beyond the bounds."""

    status = 413
    code = "too-long"


class MediaTypeError(FhirError):
    """A body in a format that this server does not read."""

    status = 415
    code = "not-supported"


def outcome_response(status: int, text: str, *, code: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """Return an OperationOutcome.

    Parameters
    ----------
    code
        R4 IssueType; empty: the one that goes with the status.
    """
    issue = {"severity": "error", "code": code or _CODES.get(status, "exception"), "diagnostics": text}
    body = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))
