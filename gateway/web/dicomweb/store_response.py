"""The answer to a store request (PS3.18 10.5.3, annex I.2), in the DICOM JSON model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.responses import Response

from gateway.web.intake import PartOutcome

_MEDIA_TYPE = "application/dicom+json"
_REFERENCED_CLASS, _REFERENCED_INSTANCE = "00081150", "00081155"
_RETRIEVE_URL, _FAILURE_REASON = "00081190", "00081197"
_FAILED, _REFERENCED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_OUT_OF_RESOURCES = 0xA700


def answer(outcomes: Sequence[PartOutcome], base: str) -> Response:
    """Return 200 where all is stored, 202 where some, 409 where none, 503 where none for want of room.

    Parameters
    ----------
    outcomes
        Of each part, at least one.
    base
        Root of the DICOMweb services.
    """
    stored = [one for one in outcomes if one.status is None]
    failed = [one for one in outcomes if one.status is not None]
    body: dict[str, Any] = {}
    studies = {one.study_instance_uid for one in stored}
    if len(studies) == 1:
        body[_RETRIEVE_URL] = _value("UR", f"{base}/studies/{studies.pop()}")
    known = [one for one in failed if one.sop_instance_uid]
    for tag, items in (
        (_FAILED, [_reference(one) | _reason(one) for one in known]),
        (_REFERENCED, [_reference(one) | {_RETRIEVE_URL: _value("UR", _url(one, base))} for one in stored]),
        (_OTHER_FAILURES, [_reason(one) for one in failed if not one.sop_instance_uid]),
    ):
        if items:
            body[tag] = {"vr": "SQ", "Value": items}
    headers = {"Content-Type": _MEDIA_TYPE}
    status = 200 if not failed else 202 if stored else 409
    if not stored and all(one.status == _OUT_OF_RESOURCES for one in failed):
        status = 503
        headers["Retry-After"] = "60"
    return Response(orjson.dumps(body), status, headers=headers)


def _reference(one: PartOutcome) -> dict[str, Any]:
    return {
        _REFERENCED_CLASS: _value("UI", one.sop_class_uid),
        _REFERENCED_INSTANCE: _value("UI", one.sop_instance_uid),
    }


def _reason(one: PartOutcome) -> dict[str, Any]:
    return {_FAILURE_REASON: {"vr": "US", "Value": [one.status]}}


def _url(one: PartOutcome, base: str) -> str:
    return f"{base}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"


def _value(vr: str, text: str) -> dict[str, Any]:
    return {"vr": vr, "Value": [text]}
