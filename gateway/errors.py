"""Errors of `gateway`, each with its consequence, so that a loop asks the class and never the message.

GatewayError
├── ConfigurationError           settings do not add up; exit code 2
├── InvalidQueryError            a query that cannot be answered as it stands; exit code 2, HTTP 400
├── NotFoundError                no such study, job, bundle or delivery; exit code 3, HTTP 404
├── ConflictError                the state does not allow it; exit code 1, HTTP 409
├── CredentialError              a token or a key that is not taken; exit code 2, HTTP 401
├── ServiceAwayError             a part we need is away; may pass; exit code 4, HTTP 503
│   ├── DatabaseAwayError
│   ├── BrokerAwayError
│   ├── FilesAwayError
│   ├── DestinationAwayError
│   └── IssuerAwayError
├── SchemaError                  the database's schema is newer than this program; exit code 1
├── RefusedError                 an instance we do not take; carries its DIMSE status
│   ├── OutOfResourcesError      0xA700 (PS3.4 table B.2-1)
│   ├── DataSetMismatchError     0xA900
│   └── CannotUnderstandError    0xC000
├── WorkitemError                a request about a workitem; see gateway/workitem/refusal.py
├── DeliveryError                a destination refused an object for good; goes to the failed list
├── JobHungError                 a job took longer than its limit; may pass
└── LeaseLostError               another worker holds the job now; drop what was made
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """Root of all errors of `gateway`. Messages hold no patient data."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    may_pass: ClassVar[bool] = False
    """Whether the same call may succeed later without a change of input."""


class ConfigurationError(GatewayError):
    """Settings do not add up; the message says which, and what to set."""

    exit_code = 2


class InvalidQueryError(GatewayError):
    """A query that cannot be answered as it stands; the message names the key and what it takes, not its value."""

    exit_code = 2
    http_status = 400


class NotFoundError(GatewayError):
    """No such study, job, bundle, delivery or resource."""

    exit_code = 3
    http_status = 404


class ConflictError(GatewayError):
    """The present state does not allow the request."""

    http_status = 409


class CredentialError(GatewayError):
    """A token, an assertion or a key that is not taken; the message says why, and nothing of what it holds."""

    exit_code = 2
    http_status = 401


class ServiceAwayError(GatewayError):
    """A part that we need does not answer."""

    exit_code = 4
    http_status = 503
    may_pass = True


class DatabaseAwayError(ServiceAwayError):
    """The database does not answer."""


class BrokerAwayError(ServiceAwayError):
    """RabbitMQ does not answer, or did not confirm."""


class FilesAwayError(ServiceAwayError):
    """The bucket that holds the stored files does not answer."""


class DestinationAwayError(ServiceAwayError):
    """A destination does not answer, or refused for now."""


class IssuerAwayError(ServiceAwayError):
    """Whoever issues tokens (OpenID Connect), or keeps a client's keys, does not answer."""


class SchemaError(GatewayError):
    """The database's schema is not one this program can use."""


class RefusedError(GatewayError):
    """An instance that is not taken.

    Parameters
    ----------
    comment
        What the sender is told (Error Comment (0000,0902), at most 64 characters, no patient data).
    """

    status: ClassVar[int] = 0xC000
    counter: ClassVar[str] = "refused"

    def __init__(self, comment: str) -> None:
        super().__init__(comment)
        self.comment = comment[:64]


class OutOfResourcesError(RefusedError):
    """The disk is under its reserve, or a write failed (PS3.4 B.2.3, A7xx)."""

    status = 0xA700
    counter = "out_of_resources"
    may_pass = True


class DataSetMismatchError(RefusedError):
    """The data set is not what the command said (PS3.4 B.2.3, A9xx)."""

    status = 0xA900
    counter = "mismatch"


class CannotUnderstandError(RefusedError):
    """The data set cannot be parsed, or a UID is wrong or missing (PS3.4 B.2.3, Cxxx)."""

    status = 0xC000
    counter = "cannot_understand"


class DeliveryError(GatewayError):
    """A destination refused an object for good."""


class JobHungError(GatewayError):
    """A job took longer than its limit: the device, a driver or the file system does not answer."""

    may_pass = True


class LeaseLostError(GatewayError):
    """The lease on a job or delivery has passed to another owner."""
