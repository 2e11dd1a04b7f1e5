"""Errors of requests that write.

FhirError
├── BrokenError          422 processing     a resource that breaks FHIR's rules, or ours
├── VersionConflictError 412 conflict       If-Match or If-None-Exist does not hold
├── DuplicateError       409 duplicate
└── NotAllowedError      405 not-supported
"""

from __future__ import annotations

from fhir_facade.outcome import FhirError


class BrokenError(FhirError):
    """A resource that breaks FHIR's rules, or ours."""

    status = 422
    code = "processing"


class VersionConflictError(FhirError):
    """The resource is not as the client believes it to be."""

    status = 412
    code = "conflict"


class DuplicateError(FhirError):
    """There is such a resource already."""

    status = 409
    code = "duplicate"


class NotAllowedError(FhirError):
    """No such interaction with this resource."""

    status = 405
    code = "not-supported"
