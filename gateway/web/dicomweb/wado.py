"""WADO-RS (PS3.18 10.4): studies, series and instances as they are stored, or as Explicit VR Little Endian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.decoding import FrameDecoder, UndecodableError
from gateway.query import StoredObject
from gateway.store import Store
from gateway.web.dicomweb.frames import Frames
from gateway.web.dicomweb.metadata import Metadata
from gateway.web.dicomweb.multipart import closing, new_boundary, part_head
from gateway.web.dicomweb.negotiation import (
    ANY_SYNTAX,
    DICOM,
    EXPLICIT,
    MULTIPART,
    MediaRange,
    accepted,
    prefers_single_part,
)
from gateway.web.dicomweb.rendered import Rendered
from gateway.web.dicomweb.streaming import FileSlice, Made, Piece, PieceResponse, single_part
from gateway.web.dicomweb.target import located
from gateway.web.dicomweb.transcode import is_convertible, to_explicit

log = structlog.get_logger()

_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"


@dataclass(frozen=True, slots=True)
class _Chosen:
    """An object and the transfer syntax in which it goes out."""

    stored: StoredObject
    syntax: str
    path: Path
    size_bytes: int

    @property
    def is_as_stored(self) -> bool:
        return self.syntax == self.stored.transfer_syntax_uid

    @property
    def media_type(self) -> str:
        return f"{DICOM}; transfer-syntax={self.syntax}"


class Wado:
    """The routes of retrieval.

    Parameters
    ----------
    store
        Database and data folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._decoder = FrameDecoder()
        self._metadata = Metadata(store)
        self._frames = Frames(store, self._decoder)
        self._rendered = Rendered(store, self._decoder)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        whole = [Route(path, self.retrieve, methods=["GET"]) for path in (_STUDY, _SERIES, _INSTANCE)]
        metadata = [
            Route(f"{path}/metadata", self._metadata.retrieve, methods=["GET"]) for path in (_STUDY, _SERIES, _INSTANCE)
        ]
        frame = f"{_INSTANCE}/frames/{{frames}}"
        pictures = [
            Route(f"{path}/{kind}", getattr(self._rendered, kind), methods=["GET"])
            for path in (_STUDY, _SERIES, _INSTANCE, frame)
            for kind in ("rendered", "thumbnail")
        ]
        return [
            *whole,
            *metadata,
            *pictures,
            Route(frame, self._frames.retrieve, methods=["GET"]),
            Route(f"{_INSTANCE}/bulkdata/{{tags:path}}", self._frames.bulk_data, methods=["GET"]),
        ]

    def retrieve(self, request: Request) -> Response:
        """`/studies/…`: 200 with the objects, 404, 410; 406 where they cannot be had as the client takes them."""
        objects = located(self._store, request)
        ranges = [one for one in accepted(request) if one.covers(DICOM)]
        is_single = "instance" in request.path_params and prefers_single_part(ranges, DICOM)
        ranges = [one for one in ranges if one.is_multipart is not is_single]
        if not ranges:
            raise HTTPException(406, f'this resource is served as {MULTIPART}; type="{DICOM}"')
        chosen = self._present([(one, _syntax_for(one, ranges)) for one in objects])
        if is_single:
            return self._single(request, chosen[0])
        return self._parts(chosen)

    def _present(self, wanted: Sequence[tuple[StoredObject, str]]) -> list[_Chosen]:
        """Leave out what is not on the disk, with a line in the log; HTTPException 500 where nothing is left."""
        present = []
        for one, syntax in wanted:
            path = self._store.files.local(one.path)
            try:
                present.append(_Chosen(one, syntax, path, path.stat().st_size))
            except OSError as error:
                log.error("retrieve.file_missing", file=path.name, errno=error.errno, sop_class_uid=one.sop_class_uid)
        if not present:
            raise HTTPException(500, "the files of this resource are missing; the log names them")
        return present

    def _single(self, request: Request, one: _Chosen) -> Response:
        if one.is_as_stored:
            return single_part(request, FileSlice(one.path, 0, one.size_bytes), one.media_type)
        try:
            return Response(to_explicit(one.path, self._decoder), headers={"Content-Type": one.media_type})
        except UndecodableError as error:
            raise HTTPException(406, _ONLY_AS_STORED) from error

    def _parts(self, chosen: Sequence[_Chosen]) -> Response:
        boundary = new_boundary()
        pieces: list[Piece] = []
        for one in chosen:
            if one.is_as_stored:
                head = part_head(boundary, one.media_type, one.size_bytes)
                pieces += [head, FileSlice(one.path, 0, one.size_bytes), b"\r\n"]
            else:
                pieces.append(Made(lambda one=one: self._transcoded(one, boundary)))  # type: ignore[misc] # bound now
        pieces.append(closing(boundary))
        return PieceResponse(pieces, f'{MULTIPART}; type="{DICOM}"; boundary={boundary}')

    def _transcoded(self, one: _Chosen, boundary: str) -> bytes:
        """Return a whole part; empty, with a line in the log, where it cannot be made after all."""
        try:
            body = to_explicit(one.path, self._decoder)
        except (UndecodableError, OSError) as error:
            log.error("retrieve.left_out", file=one.path.name, reason=str(error) or type(error).__name__)
            return b""
        return part_head(boundary, one.media_type, len(body)) + body + b"\r\n"


_ONLY_AS_STORED = "the pixel data cannot be had as Explicit VR Little Endian; ask for it as stored: transfer-syntax=*"


def _syntax_for(one: StoredObject, ranges: Sequence[MediaRange]) -> str:
    """Return the transfer syntax of the best range that can be met; nothing said means Explicit VR Little Endian.

    Among ranges of one quality that which needs no decoding is better.
    """
    met = [(each.quality, syntax) for each in ranges if (syntax := _met(one, each)) is not None]
    if not met:
        if any(each.transfer_syntax in {None, EXPLICIT} for each in ranges):
            raise HTTPException(406, _ONLY_AS_STORED)
        raise HTTPException(406, "the transfer syntaxes that are accepted are not the stored one: transfer-syntax=* is")
    best = met[0][0]
    stored = one.transfer_syntax_uid
    return next((syntax for quality, syntax in met if quality == best and syntax == stored), met[0][1])


def _met(one: StoredObject, wanted: MediaRange) -> str | None:
    stored = one.transfer_syntax_uid
    if wanted.transfer_syntax in {ANY_SYNTAX, stored}:
        return stored
    if wanted.transfer_syntax in {None, EXPLICIT} and is_convertible(stored, one.size_bytes):
        return EXPLICIT
    return None
