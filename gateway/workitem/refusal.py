"""Why a request about a workitem is refused: one meaning, as DIMSE status and as HTTP status."""

from __future__ import annotations

from enum import Enum

from gateway.errors import GatewayError


class Refusal(Enum):
    """DIMSE status (PS3.4 CC.2, PS3.7 annex C), HTTP status and Warning header (PS3.18 chapter 11)."""

    def __init__(self, status: int, http_status: int, phrase: str) -> None:
        self.status = status
        self.http_status = http_status
        self.phrase = phrase

    MAY_NOT_BE_UPDATED = 0xC300, 400, "The submitted request is inconsistent with the current state of the Workitem."
    TRANSACTION_MISSING = 0xC301, 400, "The Transaction UID is missing."
    TRANSACTION_WRONG = 0xC301, 400, "The Transaction UID is incorrect."
    IN_PROGRESS = 0xC302, 409, "The submitted request is inconsistent with the state of the UPS Instance."
    ONLY_BY_CREATION = 0xC303, 400, "The submitted request is inconsistent with the state of the UPS Instance."
    FINAL_STATE_UNMET = 0xC304, 409, "The submitted request is inconsistent with the state of the UPS Instance."
    NO_SUCH_WORKITEM = 0xC307, 404, "The target URI did not reference a Workitem."
    UNKNOWN_RECEIVER = 0xC308, 400, "The Receiving AE Title is unknown."
    NOT_SCHEDULED = 0xC309, 400, "The Procedure Step State is not SCHEDULED."
    NOT_IN_PROGRESS = 0xC310, 409, "The target URI did not reference a claimed Workitem."
    COMPLETED = 0xC311, 409, "The UPS is already COMPLETED."
    NO_PERFORMER = 0xC312, 409, "The performer cannot be contacted."
    NOT_APPROPRIATE = 0xC314, 400, "The action is not appropriate for the Workitem."
    EXISTS = 0x0111, 409, "The Workitem already exists."
    INVALID_VALUE = 0x0106, 400, "An attribute value is invalid."
    MISSING_ATTRIBUTE = 0x0120, 400, "A required attribute is missing."
    UNKNOWN_STUDY = 0x0106, 409, "The study is not held."
    TOO_MANY = 0x0213, 409, "There are too many subscriptions."


class WorkitemError(GatewayError):
    """A request about a workitem that is refused.

    Parameters
    ----------
    refusal
        What is said in the terms of the standard.
    sentence
        What is said to people; no patient data.
    """

    http_status = 409

    def __init__(self, refusal: Refusal, sentence: str) -> None:
        super().__init__(sentence)
        self.refusal = refusal
