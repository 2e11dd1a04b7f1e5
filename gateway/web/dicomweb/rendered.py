"""Rendered resources (PS3.18 10.4.1.1.3): pictures of frames, thumbnails, structured reports as HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from anyio import CapacityLimiter, to_thread
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.decoding import MALFORMED, FrameDecoder, UndecodableError, parsing, read_file
from gateway.elements import DEFLATED
from gateway.errors import GatewayError
from gateway.query import StoredObject
from gateway.store import Store
from gateway.web.dicomweb.document import document_html
from gateway.web.dicomweb.frames import frame_numbers, native_frame
from gateway.web.dicomweb.multipart import closing, new_boundary, part_head
from gateway.web.dicomweb.negotiation import MULTIPART, MediaRange, accepted
from gateway.web.dicomweb.pixels import PixelLayout, pixel_layout
from gateway.web.dicomweb.streaming import Made, Piece, PieceResponse
from gateway.web.dicomweb.target import located
from gateway.web.dicomweb.window import Window, shown

log = structlog.get_logger()

_JPEG, _PNG, _HTML, _PDF = "image/jpeg", "image/png", "text/html", "application/pdf"
_FORMATS = {_JPEG: "JPEG", _PNG: "PNG"}
_THUMBNAIL_PX = 128
_VIEWPORT_LIMIT = 8192
_PIXELS_LIMIT = 1 << 28
"""Rows times columns of the largest frame that is rendered."""
_AT_ONCE = 4
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.88."
_ENCAPSULATED = {"1.2.840.10008.5.1.4.1.1.104.1": _PDF}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?")
_SIDES = re.compile(r"([0-9]{1,5}),([0-9]{1,5})")
_SHAPES = ("linear", "linear-exact", "sigmoid")


class UnrenderableError(GatewayError):
    """An object, or a frame of it, of which no picture can be made."""

    http_status = 406


@dataclass(frozen=True, slots=True)
class _Wish:
    """The parameters of PS3.18 8.3.5."""

    window: Window | None
    viewport: tuple[int, int] | None
    """Width and height that the picture fits into, in pixels."""
    quality: int


class Rendered:
    """The endpoints.

    Parameters
    ----------
    store
        Database and data folder.
    decoder
        For compressed frames.
    """

    def __init__(self, store: Store, decoder: FrameDecoder) -> None:
        self._store = store
        self._decoder = decoder
        # A frame may take a gigabyte on its way; and who waits for a picture takes none of the web's other threads.
        self._room = CapacityLimiter(_AT_ONCE)

    async def rendered(self, request: Request) -> Response:
        """Serve `…/rendered`: a picture, a part for each of several; 400, 404, 406, 410."""
        return await to_thread.run_sync(self._rendered, request, limiter=self._room)

    async def thumbnail(self, request: Request) -> Response:
        """`…/thumbnail`: a small picture of the instance, or of the one in the middle of the first series of images."""
        return await to_thread.run_sync(self._thumbnail, request, limiter=self._room)

    def _rendered(self, request: Request) -> Response:
        wish = _wish(request.query_params)
        objects = located(self._store, request)
        if "frames" in request.path_params:
            return self._frames(request, objects[0], wish)
        if "instance" in request.path_params:
            return self._instance(request, objects[0], wish)
        images = [one for one in objects if one.rows is not None]
        if not images:
            raise HTTPException(406, "there is no image in it")
        chosen = _choose(accepted(request))
        if not chosen[0].is_multipart:
            return self._picture(images[len(images) // 2], None, chosen[1], wish)
        return self._parts([(one, 0) for one in images], chosen[1], wish)

    def _thumbnail(self, request: Request) -> Response:
        wish = _wish(request.query_params)
        objects = located(self._store, request)
        images = [one for one in objects if one.rows is not None]
        if not images:
            raise HTTPException(406, "there is no image in it")
        own = [one for one in images if one.series_instance_uid == images[0].series_instance_uid]
        chosen = own[len(own) // 2]
        viewport = wish.viewport or (_THUMBNAIL_PX, _THUMBNAIL_PX)
        media_type = _choose([one for one in accepted(request) if not one.is_multipart])[1]
        number = None
        if "frames" in request.path_params:
            number = frame_numbers(request.path_params["frames"], chosen.number_of_frames or 1)[0]
        return self._picture(chosen, number, media_type, _Wish(wish.window, viewport, wish.quality))

    def _instance(self, request: Request, one: StoredObject, wish: _Wish) -> Response:
        path = self._store.files.local(one.path)
        if one.sop_class_uid.startswith(_DOCUMENTS):
            _require(accepted(request), _HTML)
            return Response(_document(path), headers={"Content-Type": f"{_HTML}; charset=utf-8"})
        if one.sop_class_uid in _ENCAPSULATED:
            media_type = _ENCAPSULATED[one.sop_class_uid]
            _require(accepted(request), media_type)
            return Response(
                bytes(_header(path).get("EncapsulatedDocument") or b""), headers={"Content-Type": media_type}
            )
        if one.rows is None:
            raise HTTPException(406, "this object has no rendering")
        return self._picture(one, None, _choose(accepted(request))[1], wish)

    def _frames(self, request: Request, one: StoredObject, wish: _Wish) -> Response:
        numbers = frame_numbers(request.path_params["frames"], one.number_of_frames or 1)
        chosen, media_type = _choose(accepted(request))
        if len(numbers) == 1 and not chosen.is_multipart:
            return self._picture(one, numbers[0], media_type, wish)
        return self._parts([(one, number - 1) for number in numbers], media_type, wish)

    def _picture(self, one: StoredObject, number: int | None, media_type: str, wish: _Wish) -> Response:
        """Answer with one picture: of a frame, or of the one in the middle."""
        index = (one.number_of_frames or 1) // 2 if number is None else number - 1
        return Response(self._made(one, index, media_type, wish), headers={"Content-Type": media_type})

    def _parts(self, frames: Sequence[tuple[StoredObject, int]], media_type: str, wish: _Wish) -> Response:
        boundary = new_boundary()

        def part(one: StoredObject, index: int) -> bytes:
            try:
                body = self._made(one, index, media_type, wish)
            except GatewayError as error:
                log.warning("render.left_out", file=Path(one.path).name, reason=str(error))
                return b""
            return part_head(boundary, media_type, len(body)) + body + b"\r\n"

        pieces: list[Piece] = [Made(lambda one=one, index=index: part(one, index), self._room) for one, index in frames]  # type: ignore[misc] # bound now
        return PieceResponse([*pieces, closing(boundary)], f'{MULTIPART}; type="{media_type}"; boundary={boundary}')

    def _made(self, one: StoredObject, index: int, media_type: str, wish: _Wish) -> bytes:
        path = self._store.files.local(one.path)
        try:
            if (one.rows or 0) * (one.columns or 0) > _PIXELS_LIMIT:
                raise UnrenderableError("the image is too large to be rendered")
            with parsing():
                header = _header(path)
                pixels, photometric = self._pixels(one, index, header)
                return encode(shown(pixels, photometric, header, index, wish.window), media_type, wish)
        except OSError as error:
            log.error("retrieve.file_missing", file=path.name, errno=error.errno)
            raise HTTPException(500, "the file of this instance is missing") from error
        except UndecodableError as error:
            raise UnrenderableError("the pixel data cannot be decoded") from error
        except MALFORMED as error:
            raise UnrenderableError("the image cannot be rendered: its header and its pixels disagree") from error

    def _pixels(self, one: StoredObject, index: int, header: Dataset) -> tuple[NDArray[Any], str]:
        path = self._store.files.local(one.path)
        layout = None if one.transfer_syntax_uid in DEFLATED else pixel_layout(path, one.size_bytes)
        if layout is None or layout.is_encapsulated:
            (frame,) = self._decoder.frames(path, [index])
            return frame.pixels, frame.photometric
        return native_pixels(native_frame(layout, index), layout, header), str(header.PhotometricInterpretation)


def native_pixels(data: bytes, layout: PixelLayout, header: Dataset) -> NDArray[Any]:
    """Return an uncompressed frame, (Y, X) or (Y, X, samples); bits above the stored ones do not count."""
    shape = (layout.rows, layout.columns)
    if layout.tag != "PixelData":
        return np.frombuffer(data, f"<f{layout.bits_allocated // 8}").reshape(shape)
    if layout.bits_allocated == 1:
        return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: shape[0] * shape[1]].reshape(shape)
    if str(header.PhotometricInterpretation) == "YBR_FULL_422":
        raise ValueError("uncompressed YBR_FULL_422 is not read")
    pixels = np.frombuffer(data, f"<u{layout.bits_allocated // 8}")
    if layout.samples > 1:
        if int(header.get("PlanarConfiguration") or 0):
            return pixels.reshape((layout.samples, *shape)).transpose(1, 2, 0)
        return pixels.reshape((*shape, layout.samples))
    pixels = pixels.reshape(shape)
    unused = layout.bits_allocated - int(header.get("HighBit", layout.bits_allocated - 1)) - 1
    if int(header.get("PixelRepresentation") or 0):
        pixels = pixels.astype(pixels.dtype.str.replace("u", "i"), copy=False)
    return (pixels << unused) >> unused if unused > 0 else pixels


def encode(picture: NDArray[Any], media_type: str, wish: _Wish) -> bytes:
    """Return the picture's file, made smaller or larger to fit the viewport, its proportions kept."""
    image = Image.fromarray(picture)
    if wish.viewport is not None:
        scale = min(wish.viewport[0] / image.width, wish.viewport[1] / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    options = {"quality": wish.quality} if media_type == _JPEG else {"compress_level": 3}
    image.save(buffer, _FORMATS[media_type], **options)
    return buffer.getvalue()


def _document(path: Path) -> bytes:
    try:
        with parsing():
            return document_html(_header(path))
    except MALFORMED as error:
        raise UnrenderableError("the report cannot be read") from error


def _header(path: Path) -> Dataset:
    try:
        with parsing():
            return read_file(path, stop_before_pixels=True)
    except OSError as error:
        raise HTTPException(500, "the file of this instance is missing") from error
    except MALFORMED as error:
        raise UnrenderableError("the object cannot be parsed") from error


def _choose(ranges: Sequence[MediaRange]) -> tuple[MediaRange, str]:
    """Return the best range and the kind of picture; JPEG where both are as good."""
    single_first = sorted(ranges, key=lambda one: (-one.quality, one.is_multipart))
    for one in single_first:
        for media_type in _FORMATS:
            if one.covers(media_type):
                return one, media_type
    raise HTTPException(406, f"pictures are served as {' and '.join(_FORMATS)}")


def _require(ranges: Sequence[MediaRange], media_type: str) -> None:
    if not any(one.covers(media_type) for one in ranges):
        raise HTTPException(406, f"this object is rendered as {media_type}")


def _wish(parameters: Mapping[str, str]) -> _Wish:
    quality = parameters.get("quality", "90")
    if not (quality.isascii() and quality.isdecimal() and 1 <= int(quality[:4]) <= 100):  # noqa: PLR2004 # per cent
        raise HTTPException(400, "quality is a whole number from 1 to 100")
    return _Wish(_window(parameters.get("window")), _viewport(parameters.get("viewport")), int(quality))


def _window(text: str | None) -> Window | None:
    if text is None:
        return None
    center, width, shape, *more = [*text.split(","), "", ""]
    shape = shape or "linear"
    if any(more) or not (_NUMBER.fullmatch(center) and _NUMBER.fullmatch(width)) or shape not in _SHAPES:
        raise HTTPException(400, f"window is center,width,function; functions: {', '.join(_SHAPES)}")
    if float(width) <= 0:
        raise HTTPException(400, "the width of a window is above 0")
    return Window(float(center), float(width), shape)  # type: ignore[arg-type] # one of them


def _viewport(text: str | None) -> tuple[int, int] | None:
    """Return width and height; a part of the image (PS3.18 8.3.5.1.3) is not cut out."""
    if text is None:
        return None
    sides = _SIDES.fullmatch(text)
    if sides is None or not all(1 <= int(side) <= _VIEWPORT_LIMIT for side in sides.groups()):
        raise HTTPException(400, f"viewport is width,height, each from 1 to {_VIEWPORT_LIMIT}")
    return int(sides[1]), int(sides[2])
