"""Codes of audit messages: PS3.16 CID 400 to 403, and RFC 3881 for what an object's id is."""

from __future__ import annotations

from dataclasses import dataclass

_DCM, _RFC, _OWN = "DCM", "RFC-3881", "99HYBRIDMED"


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept."""

    value: str
    scheme: str
    meaning: str


APPLICATION_START = Code("110120", _DCM, "Application Start")
APPLICATION_STOP = Code("110121", _DCM, "Application Stop")
LOGIN = Code("110122", _DCM, "Login")
LOGOUT = Code("110123", _DCM, "Logout")
NODE_AUTHENTICATION = Code("110126", _DCM, "Node Authentication")
RESTRICTED_FUNCTION = Code("110132", _DCM, "Use of Restricted Function")
USER_SECURITY_CHANGED = Code("110137", _DCM, "User Security Attributes Changed")

APPLICATION = Code("110150", _DCM, "Application")
DESTINATION = Code("110152", _DCM, "Destination Role ID")
SOURCE = Code("110153", _DCM, "Source Role ID")

VERIFICATION = Code("verification", _OWN, "Verification of results")
REPROCESSING = Code("reprocessing", _OWN, "Reprocessing of a study")
HOLD = Code("hold", _OWN, "Study held against removal")
RELEASE = Code("release", _OWN, "Study no longer held")
REIDENTIFICATION = Code("reidentification", _OWN, "Patient asked for by a pseudonym")

STUDY_UID = Code("110180", _DCM, "Study Instance UID")
SOP_CLASS_UID = Code("110181", _DCM, "SOP Class UID")
NODE_ID = Code("110182", _DCM, "Node ID")
PATIENT_NUMBER = Code("2", _RFC, "Patient Number")
SEARCH_CRITERIA = Code("10", _RFC, "Search Criteria")
URI = Code("12", _RFC, "URI")
