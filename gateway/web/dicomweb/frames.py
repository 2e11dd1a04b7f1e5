"""Frames and bulk data (PS3.18 10.4.1.1.5, 10.4.1.1.6): stretches of the stored file, decoded where asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.decoding import MALFORMED, FrameDecoder, UndecodableError, parsing, read_file
from gateway.store import Store
from gateway.web.dicomweb.multipart import closing, new_boundary, part_head
from gateway.web.dicomweb.negotiation import ANY_SYNTAX, EXPLICIT, MULTIPART, OCTETS, MediaRange, accepted
from gateway.web.dicomweb.pixels import BIG_ENDIAN, PixelLayout, pixel_layout
from gateway.web.dicomweb.streaming import FileSlice, Made, Piece, PieceResponse, single_part, total_length
from gateway.web.dicomweb.target import located

_FRAMES_LIMIT = 100_000
_DIGITS = 9
_DEPTH_LIMIT = 33
"""Steps of the path to bulk data: tag, item, tag, …"""
_PIXEL_DATA = "7FE00010"
_JPEG = "1.2.840.10008.1.2.4."
MEDIA_TYPES = {
    **{f"{_JPEG}{process}": "image/jpeg" for process in (50, 51, 57, 70)},
    **{f"{_JPEG}{process}": "image/jls" for process in (80, 81)},
    **{f"{_JPEG}{process}": "image/jp2" for process in (90, 91)},
    **{f"{_JPEG}{process}": "image/jpx" for process in (92, 93)},
    **{f"{_JPEG}{process}": "image/jphc" for process in (201, 202, 203)},
    **{f"{_JPEG}{process}": "video/mpeg2" for process in (100, 101)},
    **{f"{_JPEG}{process}": "video/mp4" for process in (102, 103, 104, 105, 106)},
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Of compressed frames (PS3.18 tables 8.7.3-2 to 8.7.3-5)."""


class Frames:
    """The endpoints.

    Parameters
    ----------
    store
        Database and data folder.
    decoder
        For clients that take no compressed frames.
    """

    def __init__(self, store: Store, decoder: FrameDecoder) -> None:
        self._store = store
        self._decoder = decoder

    def retrieve(self, request: Request) -> Response:
        """`…/frames/{list}`: 200 with a part for each frame; 404 where one is out of range, 406."""
        stored = located(self._store, request)[0]
        path = self._store.files.local(stored.path)
        layout = _layout(path, stored.size_bytes)
        numbers = frame_numbers(request.path_params["frames"], layout.number_of_frames)
        return self._answer(request, layout, [number - 1 for number in numbers])

    def bulk_data(self, request: Request) -> Response:
        """`…/bulkdata/{tag}[/{item}/{tag}…]`: a value that the metadata only refer to; pixel data is all frames."""
        stored = located(self._store, request)[0]
        path = self._store.files.local(stored.path)
        steps = request.path_params["tags"].upper().split("/")
        if steps == [_PIXEL_DATA]:
            layout = _layout(path, stored.size_bytes)
            if layout.is_encapsulated:
                return self._answer(request, layout, range(layout.number_of_frames))
            if layout.transfer_syntax_uid != BIG_ENDIAN:
                return _whole(request, FileSlice(path, layout.offset, layout.length))
        return _octets(request, bulk_value(path, steps))

    def _answer(self, request: Request, layout: PixelLayout, indices: Sequence[int]) -> Response:
        ranges = accepted(request)
        chosen, media_type = _choose(ranges, layout)
        is_decoded = layout.is_encapsulated and "transfer-syntax" not in media_type
        if is_decoded:
            self._check_decodable(layout, indices[0])
        if not chosen.is_multipart and len(indices) == 1:
            piece = self._frame(layout, indices[0], is_decoded)
            if len(piece) == 1 and isinstance(piece[0], FileSlice):
                return single_part(request, piece[0], media_type)
            return PieceResponse(piece, media_type)
        boundary = new_boundary()
        pieces: list[Piece] = []
        for index in indices:
            frame = self._frame(layout, index, is_decoded)
            pieces += [part_head(boundary, media_type, total_length(frame)), *frame, b"\r\n"]
        pieces.append(closing(boundary))
        kind = media_type.partition(";")[0]
        return PieceResponse(pieces, f'{MULTIPART}; type="{kind}"; boundary={boundary}')

    def _frame(self, layout: PixelLayout, index: int, is_decoded: bool) -> Sequence[Piece]:
        if is_decoded:
            return [Made(lambda: self._decoded(layout.path, index))]
        if layout.is_encapsulated or (not layout.frame_bits % 8 and layout.transfer_syntax_uid != BIG_ENDIAN):
            return layout.frame(index)
        layout.frame(index)  # refused here where it is not there, and read when its turn comes: a list may be long
        return [Made(lambda: native_frame(layout, index))]

    def _check_decodable(self, layout: PixelLayout, index: int) -> None:
        """HTTPException 406 where the first frame asked for cannot be decoded; a later one cuts the connection."""
        try:
            self._decoded(layout.path, index)
        except UndecodableError as error:
            raise HTTPException(
                406, "the frames cannot be decoded; ask for them as stored: transfer-syntax=*"
            ) from error

    def _decoded(self, path: Path, index: int) -> bytes:
        (frame,) = self._decoder.frames(path, [index])
        return frame.pixels.astype(frame.pixels.dtype.newbyteorder("<")).tobytes()


def native_frame(layout: PixelLayout, index: int) -> bytes:
    """Return an uncompressed frame in little endian, beginning at a byte: bit-packed frames are shifted."""
    (piece,) = layout.frame(index)
    with piece.path.open("rb") as stream:
        stream.seek(piece.offset)
        data = stream.read(piece.length)
    if layout.bits_allocated == 1:
        first = index * layout.frame_bits % 8
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[first : first + layout.frame_bits]
        return np.packbits(bits, bitorder="little").tobytes()
    if layout.transfer_syntax_uid == BIG_ENDIAN and layout.bits_allocated > 8 and layout.vr != "OB":  # noqa: PLR2004
        return np.frombuffer(data, f">u{layout.bits_allocated // 8}").byteswap().tobytes()
    return data


def frame_numbers(text: str, count: int) -> list[int]:
    """Return the numbers of a frame list, from 1; HTTPException 400 where it is none, 404 beyond the last frame."""
    parts = text.split(",")
    if len(parts) > _FRAMES_LIMIT:
        raise HTTPException(400, f"more than {_FRAMES_LIMIT} frames in one request")
    if not all(part.isdecimal() and part.isascii() and len(part) <= _DIGITS and int(part) > 0 for part in parts):
        raise HTTPException(400, "frames are numbers from 1, separated by commas")
    numbers = [int(part) for part in parts]
    if max(numbers) > count:
        raise HTTPException(404, f"the instance has {count} frame(s), so there is no frame {max(numbers)}")
    return numbers


def _layout(path: Path, size_bytes: int) -> PixelLayout:
    try:
        return pixel_layout(path, size_bytes)
    except OSError as error:
        raise HTTPException(500, "the file of this instance is missing") from error


def _choose(ranges: Sequence[MediaRange], layout: PixelLayout) -> tuple[MediaRange, str]:
    """Return the best range that can be met and the media type of the parts."""
    stored = layout.transfer_syntax_uid
    own = MEDIA_TYPES.get(stored)
    for one in ranges:
        is_any = one.transfer_syntax in {None, ANY_SYNTAX, stored}
        if not layout.is_encapsulated:
            if one.covers(OCTETS) and one.transfer_syntax in {None, ANY_SYNTAX, EXPLICIT}:
                return one, OCTETS
        elif own is not None and one.covers(own) and is_any:
            return one, f"{own}; transfer-syntax={stored}"
        elif one.covers(OCTETS) and (one.transfer_syntax in {ANY_SYNTAX, stored} or (is_any and _is_wild(one, own))):
            return one, f"{OCTETS}; transfer-syntax={stored}"
        elif one.covers(OCTETS) and one.transfer_syntax in {None, EXPLICIT}:
            return one, OCTETS
    raise HTTPException(406, f"these frames are served as {OCTETS}" + (f" and {own}" if own else ""))


def _is_wild(one: MediaRange, own: str | None) -> bool:
    """Say whether a range takes whatever there is, while the frames have no media type of their own."""
    return own is None and "*" in one.media_type


def _whole(request: Request, piece: FileSlice) -> Response:
    if not _takes_octets(request).is_multipart:
        return single_part(request, piece, OCTETS)
    boundary = new_boundary()
    pieces: list[Piece] = [part_head(boundary, OCTETS, piece.length), piece, b"\r\n", closing(boundary)]
    return PieceResponse(pieces, f'{MULTIPART}; type="{OCTETS}"; boundary={boundary}')


def _octets(request: Request, value: bytes) -> Response:
    if not _takes_octets(request).is_multipart:
        return Response(value, media_type=OCTETS)
    boundary = new_boundary()
    pieces: list[Piece] = [part_head(boundary, OCTETS, len(value)), value, b"\r\n", closing(boundary)]
    return PieceResponse(pieces, f'{MULTIPART}; type="{OCTETS}"; boundary={boundary}')


def _takes_octets(request: Request) -> MediaRange:
    for one in accepted(request):
        if one.covers(OCTETS):
            return one
    raise HTTPException(406, f"bulk data is served as {OCTETS}")


def bulk_value(path: Path, steps: Sequence[str]) -> bytes:
    """Return the encoded value at a path of tags and item numbers (from 1), in little endian."""
    if len(steps) > _DEPTH_LIMIT or len(steps) % 2 == 0:
        raise HTTPException(400, "bulk data is named by a tag, or by tag/item/tag")
    try:
        with parsing():
            # Of the first tag alone: what a large file holds besides is not taken into memory.
            dataset = read_file(path, specific_tags=[_tag(steps[0])])
            for tag, item in zip(steps[:-1:2], steps[1::2], strict=True):
                dataset = dataset[_tag(tag)].value[int(item) - 1]
            element = dataset[_tag(steps[-1])]
    except OSError as error:
        raise HTTPException(500, "the file of this instance is missing") from error
    except MALFORMED as error:
        raise HTTPException(404, "there is no such bulk data") from error
    if isinstance(element.value, bytes):
        width = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(element.VR, 1)
        is_big = not dataset.is_little_endian if dataset.is_little_endian is not None else False
        return np.frombuffer(element.value, f"u{width}").byteswap().tobytes() if is_big else element.value
    if isinstance(element.value, str):
        return element.value.encode()
    raise HTTPException(404, "there is no such bulk data")


def _tag(text: str) -> int:
    if len(text) != 8:  # noqa: PLR2004 # ggggeeee
        raise ValueError("no tag")
    return int(text, 16)
