"""Answers whose bytes come from files: from the page cache without a detour, with flat memory.

Where the connection has a `Wire`, the kernel sends the files itself; otherwise (TLS, parts yet to be made) they
are read in large pieces. Both happen in the event loop for what the page cache holds (`RWF_NOWAIT` says whether it
does); only what must come from the disk costs a hop to a thread. Files are opened ahead, many in one hop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.web.wire import EXTENSION, Outlet, PeerGoneError, Wire

log = structlog.get_logger()

CHUNK = 1 << 19
"""Bytes of one piece: the best of 64 KiB to 4 MiB on the loopback."""
_OPEN_AHEAD = 32
_READ_AHEAD = 1 << 17
"""Bytes that Linux reads of a file at once, unless told otherwise."""
_DIGITS = 40
"""Of both ends of a range."""
_YIELD_EVERY = 16
"""Pieces after which other requests get their turn, though nothing had to be waited for."""


class FileVanishedError(OSError):
    """A file ended before the length that was announced; the connection is cut, for no other sign is left."""


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A stretch of a file."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Made:
    """Bytes that are made in a thread when their turn comes; empty where there are none after all."""

    make: Callable[[], bytes]
    room: CapacityLimiter | None = None
    """How many are made at once; None: as many as there are threads."""


Piece = bytes | FileSlice | Made


class PieceResponse(Response):
    """An answer made of pieces; its length is announced unless some are yet to be made.

    Parameters
    ----------
    pieces
        In order.
    media_type
        The Content-Type.
    """

    def __init__(
        self, pieces: Sequence[Piece], media_type: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status_code = status
        self.background = None
        self.body = b""
        self.pieces = pieces
        announced = {"content-type": media_type, **(headers or {})}
        if (length := total_length(pieces)) is not None:
            announced["content-length"] = str(length)
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in announced.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a client that goes is noticed between two pieces."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            going = asyncio.ensure_future(_gone(receive))
            wire: Wire | None = scope.get("extensions", {}).get(EXTENSION)
            try:
                if wire is not None and not any(isinstance(piece, Made) for piece in self.pieces):
                    await self._send_by_wire(wire, going)
                else:
                    await self._send_by_server(send, going)
            except PeerGoneError:
                await going
            finally:
                going.cancel()
            if going.done():
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_by_server(self, send: Send, going: asyncio.Future[None]) -> None:
        sent = 0
        async for chunk in _chunks(self.pieces):
            if going.done():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            sent += 1
            if sent % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _send_by_wire(self, wire: Wire, going: asyncio.Future[None]) -> None:
        files = _Files([piece for piece in self.pieces if isinstance(piece, FileSlice)])
        last = len(self.pieces) - 1
        try:
            async with wire.opened(going) as outlet:
                for number, piece in enumerate(self.pieces):
                    if isinstance(piece, bytes):
                        await outlet.send(piece, is_last=number == last)
                    elif isinstance(piece, FileSlice):
                        await _send_slice(outlet, await files.next(), piece)
                        if number % _YIELD_EVERY == 0:
                            await asyncio.sleep(0)
        finally:
            files.close()


def total_length(pieces: Sequence[Piece]) -> int | None:
    """Return the bytes of all pieces; None where some are yet to be made."""
    total = 0
    for piece in pieces:
        if isinstance(piece, Made):
            return None
        total += len(piece) if isinstance(piece, bytes) else piece.length
    return total


def single_part(request: Request, piece: FileSlice, media_type: str) -> Response:
    """Return a stretch of a file as the whole body, or the part of it that a Range asks for (RFC 9110 14)."""
    headers = {"Accept-Ranges": "bytes"}
    wanted = _range(request.headers.get("range"), piece.length)
    if wanted is None:
        return PieceResponse([piece], media_type, headers=headers)
    first, last = wanted
    if first > last:
        raise HTTPException(416, "the range is beyond the end", {"Content-Range": f"bytes */{piece.length}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{piece.length}"
    return PieceResponse([FileSlice(piece.path, piece.offset + first, last - first + 1)], media_type, 206, headers)


def _range(text: str | None, length: int) -> tuple[int, int] | None:
    """Return first and last byte of a Range with one range; None where there is none, or one we do not do."""
    unit, _, value = (text or "").partition("=")
    first, dash, last = value.strip().partition("-")
    digits = first + last
    if unit.strip() != "bytes" or not dash or not (digits.isdecimal() and digits.isascii() and len(digits) <= _DIGITS):
        return None
    if not first:
        return max(0, length - int(last)), length - 1
    return int(first), min(int(last), length - 1) if last else length - 1


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _chunks(pieces: Sequence[Piece]) -> AsyncIterator[bytes]:
    """Yield the bytes of all pieces in chunks, small pieces joined."""
    files = _Files([piece for piece in pieces if isinstance(piece, FileSlice)])
    buffer = memoryview(bytearray(CHUNK))
    held = 0
    try:
        for piece in pieces:
            if not isinstance(piece, FileSlice):
                made = piece if isinstance(piece, bytes) else await to_thread.run_sync(piece.make, limiter=piece.room)
                if held + len(made) <= CHUNK:
                    buffer[held : held + len(made)] = made
                    held += len(made)
                    continue
                yield bytes(buffer[:held])
                held = 0
                yield made
                continue
            descriptor = await files.next()
            done = 0
            while done < piece.length:
                room = buffer[held : held + min(CHUNK - held, piece.length - done)]
                count = await _read(descriptor, room, piece.offset + done)
                held += count
                done += count
                if held == CHUNK:
                    yield bytes(buffer)
                    held = 0
        if held:
            yield bytes(buffer[:held])
    finally:
        files.close()


async def _send_slice(outlet: Outlet, descriptor: int, piece: FileSlice) -> None:
    """Send a stretch, brought into the page cache first where it is not there; FileVanishedError where it ends."""
    end = piece.offset + piece.length
    for offset in range(piece.offset, end, CHUNK):
        length = min(CHUNK, end - offset)
        if not _is_cached(descriptor, offset, length):
            await run_in_threadpool(_bring, descriptor, offset, length)
        if await outlet.send_file(descriptor, offset, length) < length:
            raise FileVanishedError("a file is shorter than it was")


def _is_cached(descriptor: int, offset: int, length: int) -> bool:
    """Say whether the page cache seems to hold a stretch: it has a byte of each part that a disk gives at once."""
    room = [bytearray(1)]
    try:
        for at in (*range(offset, offset + length, _READ_AHEAD), offset + length - 1):
            os.preadv(descriptor, room, at, os.RWF_NOWAIT)
    except OSError:  # not there, or a file system that cannot say
        return False
    return True


def _bring(descriptor: int, offset: int, length: int) -> None:
    os.preadv(descriptor, [bytearray(length)], offset)


async def _read(descriptor: int, room: memoryview, offset: int) -> int:
    """Fill what can be filled; FileVanishedError at the end of the file."""
    try:
        count = os.preadv(descriptor, [room], offset, os.RWF_NOWAIT)
    except OSError:  # not in the page cache, or a file system that cannot say
        count = await run_in_threadpool(os.preadv, descriptor, [room], offset)
    if count == 0:
        raise FileVanishedError("a file is shorter than it was")
    return count


class _Files:
    """The descriptors of the files of an answer, in order, opened some ahead of their use."""

    def __init__(self, slices: Sequence[FileSlice]) -> None:
        self._slices = slices
        self._opened: list[int] = []
        self._begun = 0
        self._current: int | None = None

    async def next(self) -> int:
        if self._current is not None:
            os.close(self._current)
            self._current = None
        if not self._opened:
            ahead = self._slices[self._begun : self._begun + _OPEN_AHEAD]
            self._opened = await run_in_threadpool(_open_all, [one.path for one in ahead])
            self._begun += len(ahead)
        self._current = self._opened.pop(0)
        return self._current

    def close(self) -> None:
        for descriptor in (*self._opened, *([] if self._current is None else [self._current])):
            os.close(descriptor)


def _open_all(paths: Sequence[Path]) -> list[int]:
    opened: list[int] = []
    try:
        for path in paths:
            opened.append(os.open(path, os.O_RDONLY))
    except OSError as error:
        for descriptor in opened:
            os.close(descriptor)
        log.error("retrieve.file_missing", file=error.filename if error.filename is None else Path(error.filename).name)
        raise FileVanishedError("a file is gone") from error
    return opened
