"""multipart/related (RFC 2387, RFC 2046 5.1) read as it comes, within bounds, and written.

`MultipartReader` takes pieces of any size and gives events; it keeps no more than a part's header and the few bytes
that may be the beginning of a boundary.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Final

HEADER_LIMIT: Final = 8192
"""Bytes of the header of one part."""
PART_LIMIT: Final = 100_000
"""Parts of one message."""
_PREAMBLE_LIMIT: Final = 4096
# The characters of RFC 2046 5.1.1, and more of them than its 70: Orthanc writes 73.
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{0,199}[0-9A-Za-z'()+_,\-./:=?]")
_LINE_END = b"\r\n"
_PADDING_LIMIT: Final = 256


class MultipartError(ValueError):
    """What came is not multipart/related, or is beyond the bounds; the message is for its sender."""


@dataclass(frozen=True, slots=True)
class PartBegins:
    """The header of a part."""

    headers: Mapping[str, str]
    """By name in lower case."""


@dataclass(frozen=True, slots=True)
class PartData:
    """A piece of the body of the part that was begun."""

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The end of the part."""


Event = PartBegins | PartData | PartEnds


class MultipartReader:
    """A push parser.

    Parameters
    ----------
    boundary
        As the Content-Type gives it.
    part_limit
        Most parts.
    """

    def __init__(self, boundary: bytes, part_limit: int = PART_LIMIT) -> None:
        if _BOUNDARY.fullmatch(boundary) is None:
            raise MultipartError("the boundary is not one of RFC 2046")
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter may stand at the very beginning, without the line end that belongs to all others.
        self._held = bytearray(_LINE_END)
        self._parts = 0
        self._part_limit = part_limit
        self._step = self._preamble
        self.is_complete = False
        """Whether the closing delimiter has come."""

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next piece; MultipartError where it cannot be right."""
        self._held += data
        while not self.is_complete:
            event, goes_on = self._step()
            if event is not None:
                yield event
            if not goes_on:
                return
        self._held.clear()  # the epilogue

    def _preamble(self) -> tuple[Event | None, bool]:
        at = self._held.find(self._delimiter)
        if at < 0:
            if len(self._held) > _PREAMBLE_LIMIT + len(self._delimiter):
                raise MultipartError("the boundary does not come")
            return None, False
        del self._held[: at + len(self._delimiter)]
        self._step = self._behind_delimiter
        return None, True

    def _behind_delimiter(self) -> tuple[Event | None, bool]:
        """Tell the end of the message from the next part; white space behind a boundary is padding."""
        if len(self._held) < 2:  # noqa: PLR2004 # '--' or a line end
            return None, False
        if self._held.startswith(b"--"):
            self.is_complete = True
            return None, False
        end = self._held.find(_LINE_END)
        if end < 0 and len(self._held) <= _PADDING_LIMIT:
            return None, False
        if end < 0 or self._held[:end].strip(b" \t"):
            raise MultipartError("a boundary is followed by neither a line end nor '--'")
        del self._held[:end]  # its line end stays: a part without any header begins with an empty line
        self._parts += 1
        if self._parts > self._part_limit:
            raise MultipartError(f"more than {self._part_limit} parts")
        self._step = self._header
        return None, True

    def _header(self) -> tuple[Event | None, bool]:
        end = self._held.find(b"\r\n\r\n", 0, HEADER_LIMIT + 4)
        if end < 0:
            if len(self._held) >= HEADER_LIMIT + 4:
                raise MultipartError(f"the header of part {self._parts} is longer than {HEADER_LIMIT} bytes")
            return None, False
        headers = _parse_headers(bytes(self._held[:end]), self._parts)
        # Two bytes stay: an empty body's line end belongs to the delimiter.
        del self._held[: end + 2]
        self._step = self._first_body
        return PartBegins(headers), True

    def _first_body(self) -> tuple[Event | None, bool]:
        if len(self._held) < len(self._delimiter):
            return None, False
        if self._held.startswith(self._delimiter):
            return self._end_part()
        del self._held[:2]
        self._step = self._body
        return None, True

    def _body(self) -> tuple[Event | None, bool]:
        at = self._held.find(self._delimiter)
        if at == 0:
            return self._end_part()
        # What may be the beginning of a delimiter is kept for the next look.
        sure = at if at > 0 else len(self._held) - len(self._delimiter) + 1
        if sure <= 0:
            return None, False
        data = bytes(memoryview(self._held)[:sure])
        del self._held[:sure]
        return PartData(data), True

    def _end_part(self) -> tuple[Event | None, bool]:
        del self._held[: len(self._delimiter)]
        self._step = self._behind_delimiter
        return PartEnds(), True


def _parse_headers(raw: bytes, number: int) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for line in raw.split(_LINE_END):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon or not name.strip() or line[:1] in b" \t":
            raise MultipartError(f"the header of part {number} is not 'name: value'")
        headers[name.strip().decode("latin-1").lower()] = value.strip().decode("latin-1")
    return headers


def parse_media_type(text: str) -> tuple[str, dict[str, str]]:
    """Return type and parameters of a Content-Type, names in lower case, quotes removed; what is none is text/plain."""
    message = Message()
    message["content-type"] = text.replace("\r", " ").replace("\n", " ")
    parameters = message.get_params(failobj=[], unquote=True)[1:]
    return message.get_content_type(), {name.lower(): str(value) for name, value in parameters}


def new_boundary() -> str:
    """Return a boundary that no body holds."""
    return secrets.token_hex(24)


def part_head(boundary: str, media_type: str, length: int | None = None, location: str | None = None) -> bytes:
    """Return delimiter and header of a part.

    Parameters
    ----------
    boundary
        From `new_boundary`.
    media_type
        With its parameters.
    length
        Of the body in bytes, where known.
    location
        Where the part can be had by itself.
    """
    lines = [f"--{boundary}", f"Content-Type: {media_type}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if location is not None:
        lines.append(f"Content-Location: {location}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def closing(boundary: str) -> bytes:
    """Return the delimiter behind the last part."""
    return f"--{boundary}--\r\n".encode()
