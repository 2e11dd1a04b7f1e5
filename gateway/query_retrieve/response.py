"""Responses to C-MOVE and C-GET, with the counters of sub-operations (PS3.7 9.1.3, 9.1.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext

from gateway.query import StoredObject

_PENDING, _CANCELLED = 0xFF00, 0xFE00
_MOST_LISTED = 1000
"""UIDs of a list that a value in Explicit VR can hold (PS3.5 7.1.2); the counters tell the true number."""
_COMMENT_LENGTH = 64


@dataclass(slots=True)
class Tally:
    """How far the sub-operations are."""

    remaining: int = 0
    successes: int = 0
    warnings: int = 0
    failures: int = 0
    is_cancelled: bool = False
    failed_uids: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    """Why objects failed, and how many each."""

    def completed(self) -> None:
        """Count a success."""
        self.remaining -= 1
        self.successes += 1

    def warned(self) -> None:
        """Count an object that the peer keeps in another form."""
        self.remaining -= 1
        self.warnings += 1

    def failed(self, stored: StoredObject, reason: str) -> None:
        """Count a failure."""
        self.remaining -= 1
        self.failures += 1
        self.failed_uids.append(stored.sop_instance_uid)
        self.reasons[reason] += 1

    def fail_rest(self, objects: Sequence[StoredObject], reason: str) -> None:
        """Count what remains as failed."""
        for stored in objects[len(objects) - self.remaining :]:
            self.failed(stored, reason)

    @property
    def first_reason(self) -> str | None:
        """Why the first failed, if one did."""
        return next(iter(self.reasons), None)

    def counts(self) -> dict[str, int]:
        """Return the counters by name, those that are not zero."""
        named = {"completed": self.successes, "warning": self.warnings, "failed": self.failures}
        return {name: count for name, count in named.items() if count}


def respond(  # noqa: PLR0913, PLR0917 # the parts of a response
    association: Association,
    context: PresentationContext,
    request: C_MOVE | C_GET,
    status: int,
    tally: Tally,
    comment: str | None = None,
) -> None:
    """Send a response; one that is final and not a success lists the objects that failed."""
    response = type(request)()
    response.MessageIDBeingRespondedTo = request.MessageID
    response.AffectedSOPClassUID = request.AffectedSOPClassUID
    response.Status = status
    response.NumberOfCompletedSuboperations = tally.successes
    response.NumberOfFailedSuboperations = tally.failures
    response.NumberOfWarningSuboperations = tally.warnings
    if status in (_PENDING, _CANCELLED):
        response.NumberOfRemainingSuboperations = tally.remaining
    elif comment is not None:
        response.ErrorComment = comment[:_COMMENT_LENGTH]  # type: ignore[assignment] # pynetdicom declares it as None
    if tally.failed_uids and status != _PENDING:
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = tally.failed_uids[:_MOST_LISTED]
        syntax = context.transfer_syntax[0]
        response.Identifier = BytesIO(encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian) or b"")
    association.dimse.send_msg(response, context.context_id or 0)
