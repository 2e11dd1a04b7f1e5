"""STOW-RS (PS3.18 10.5): instances in, under the pledge of C-STORE: what is answered with success is on disk for good.

Each part streams to `incoming/` and goes the way of every received instance: fsync, rename, indexer. A request is an
association of its own in the database, so no study counts as complete while a request still carries it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.web.dicomweb.multipart import MultipartError, MultipartReader, parse_media_type
from gateway.web.dicomweb.negotiation import DICOM, MULTIPART
from gateway.web.dicomweb.store_response import answer
from gateway.web.dicomweb.target import base_url, uids
from gateway.web.intake import Session, StowIntake

log = structlog.get_logger()

_PIECE = 1 << 20
"""Bytes that are gathered before they are written: each write is a hop to a thread."""
_INDEXED_WITHIN_S = 2.0
_BUSY = 503
_LOOK_EVERY_S = 0.01
_SLOWEST = 16384
"""Bytes a second; who sends slower for long is cut off."""


class Stow:
    """The routes of storing.

    Parameters
    ----------
    intake
        Where instances go; None: this server takes none.
    """

    def __init__(self, intake: StowIntake | None) -> None:
        self._intake = intake
        self._open = 0

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [Route(path, self.store, methods=["POST"]) for path in ("/studies", "/studies/{study}")]

    async def store(self, request: Request) -> Response:
        """`POST /studies[/{study}]`: 200 all stored, 202 some, 409 none; 400, 408, 415, 503."""
        study_uid = uids(request).get("study_instance_uid")
        reader = _reader(request)
        intake = self._intake
        if intake is None or not intake.is_open:
            raise _refusal(503, "this server takes no instances now")
        if self._open >= intake.limits.max_requests:
            raise _refusal(503, "too many store requests at once")
        self._open += 1
        session = Session(intake, reader, study_uid)
        outcome = "aborted"
        try:
            await _receive(request, session, intake.limits.timeout_s)
            outcome = "released"
        except MultipartError as error:
            raise _refusal(400, _told(str(error), session)) from error
        except TimeoutError as error:
            raise _refusal(408, _told("the request came too slowly", session)) from error
        except ClientDisconnect as error:
            raise _refusal(400, _told("the request ended early", session)) from error
        finally:
            self._open -= 1
            await run_in_threadpool(session.end, "released" if outcome == "released" else "aborted")
        await _until_indexed(session.spooled)
        return answer(session.outcomes, base_url(request))


def _reader(request: Request) -> MultipartReader:
    """Return the parser that the Content-Type asks for."""
    media_type, parameters = parse_media_type(request.headers.get("content-type", ""))
    kind = parameters.get("type", "").lower()
    if media_type != MULTIPART or kind not in {DICOM, ""}:
        raise _refusal(415, f'instances are taken as {MULTIPART}; type="{DICOM}", a Part 10 file in each part')
    try:
        return MultipartReader(parameters.get("boundary", "").encode("latin-1", "replace"))
    except MultipartError as error:
        raise _refusal(400, f"Content-Type: {error}") from error


async def _receive(request: Request, session: Session, timeout_s: float) -> None:
    """Feed the body to the session, each piece in a thread.

    Raises
    ------
    TimeoutError
        Nothing came for the time, or on the whole less than `_SLOWEST`.
    MultipartError
        It is no multipart message, or it ended early.
    """
    began, received = time.monotonic(), 0
    held: list[bytes] = []
    waiting = 0
    is_last = False
    while not is_last:
        message = await asyncio.wait_for(request.receive(), timeout_s)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        is_last = not message.get("more_body", False)
        held.append(message.get("body", b""))
        waiting += len(held[-1])
        if waiting >= _PIECE or is_last:
            await run_in_threadpool(session.feed, b"".join(held))
            received += waiting
            held, waiting = [], 0
        if time.monotonic() - began > timeout_s + (received + waiting) / _SLOWEST:
            raise TimeoutError
    if not session.is_complete:
        raise MultipartError("the message ends before its closing boundary")
    if not session.outcomes:
        raise MultipartError("the message holds no part")


async def _until_indexed(files: Sequence[Path]) -> None:
    """Wait until the indexer has taken the last file, so that the sender finds what it stored; not for long."""
    deadline = time.monotonic() + _INDEXED_WITHIN_S
    while files and files[-1].exists() and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_EVERY_S)


def _told(sentence: str, session: Session) -> str:
    stored = sum(one.status is None for one in session.outcomes)
    return f"{sentence}; {stored} instance(s) before that have been stored" if stored else sentence


def _refusal(status: int, sentence: str) -> HTTPException:
    """Return a refusal that ends the connection: the rest of the body is not read."""
    headers = {"Connection": "close"}
    if status == _BUSY:
        headers["Retry-After"] = "5"
    return HTTPException(status, sentence, headers)
