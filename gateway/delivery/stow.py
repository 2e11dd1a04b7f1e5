"""Results to a DICOMweb server by STOW-RS (PS3.18 10.5), all of a job in one request."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from gateway.delivery.sender import Outgoing
from gateway.delivery.status import is_stored, raise_for
from gateway.errors import DeliveryError, DestinationAwayError

_CHUNK = 1 << 18
_FAILED_SEQUENCE = "00081198"
_REFERENCED_INSTANCE = "00081155"
_FAILURE_REASON = "00081197"
_PROCESSING_FAILURE = 0x0110
_REFUSED = {400, 409, 413, 415, 422}
"""Codes that speak of what was sent; all others but success speak of the server or of our access to it."""


class StowSender:
    """STOW-RS client of one destination.

    Parameters
    ----------
    address
        Root of the DICOMweb services.
    timeout_s
        Limit of each step: connection, each write, the answer.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        self._url = address.rstrip("/") + "/studies"
        self._timeout_s = timeout_s

    def send(self, objects: Sequence[Outgoing], /) -> None:
        """Send all in one request; see `Sender`."""
        if not objects:
            return
        boundary = uuid.uuid4().hex
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(_length(objects, boundary)),
            "Accept": "application/dicom+json",
        }
        try:
            with httpx.Client(timeout=self._timeout_s, trust_env=False) as client:
                response = client.post(self._url, content=_body(objects, boundary), headers=headers)
        except httpx.HTTPError as error:
            raise DestinationAwayError(f"no answer to STOW-RS: {type(error).__name__}") from error
        _read_answer(response, objects)


def _read_answer(response: httpx.Response, objects: Sequence[Outgoing]) -> None:
    failed = _failed(response)
    if failed:
        kinds = {each.sop_instance_uid: each.kind for each in objects}
        refused: dict[str, int | None] = {
            kinds.get(uid, "an object"): status for uid, status in failed.items() if not is_stored(status)
        }
        raise_for(refused)
    elif response.status_code in _REFUSED:
        raise DeliveryError(f"refused with HTTP {response.status_code}")
    elif not response.is_success:
        raise DestinationAwayError(f"HTTP {response.status_code}")


def _failed(response: httpx.Response) -> dict[str, int]:
    """Return SOP Instance UID -> failure reason of what the server did not store (PS3.18 table I.2-1).

    Raises
    ------
    DeliveryError
        The answer is JSON, but not the DICOM JSON model.
    """
    try:
        answer = response.json()
    except ValueError:
        return {}
    if isinstance(answer, list):
        answer = answer[0] if answer else {}
    try:
        items = answer.get(_FAILED_SEQUENCE, {}).get("Value", []) if isinstance(answer, dict) else []
        return {str(_first(item, _REFERENCED_INSTANCE)): int(_first(item, _FAILURE_REASON)) for item in items}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DeliveryError("the answer is not the DICOM JSON model of a store response") from error


def _first(item: dict[str, Any], tag: str) -> Any:
    values = item.get(tag, {}).get("Value") or [_PROCESSING_FAILURE if tag == _FAILURE_REASON else ""]
    return values[0]


def _head(boundary: str) -> bytes:
    return f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()


def _tail(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode()


def _length(objects: Sequence[Outgoing], boundary: str) -> int:
    parts = sum(len(_head(boundary)) + each.path.stat().st_size + len(b"\r\n") for each in objects)
    return parts + len(_tail(boundary))


def _body(objects: Sequence[Outgoing], boundary: str) -> Iterator[bytes]:
    for each in objects:
        yield _head(boundary)
        with each.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield b"\r\n"
    yield _tail(boundary)
