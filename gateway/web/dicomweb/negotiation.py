"""What a client accepts (RFC 9110 12.5.1, PS3.18 8.7) against what we can give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.web.dicomweb.multipart import parse_media_type

EXPLICIT = "1.2.840.10008.1.2.1"
ANY_SYNTAX = "*"
DICOM = "application/dicom"
OCTETS = "application/octet-stream"
MULTIPART = "multipart/related"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
DATA_SET_TYPES = (DICOM_JSON, "application/json", DICOM_XML)
_RANGE_LIMIT = 64
_ACCEPT_LIMIT = 8192


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One media type that a client takes."""

    media_type: str
    """Of a part, where `is_multipart`; '*/*' and the like included."""
    is_multipart: bool
    transfer_syntax: str | None
    """None: not said."""
    quality: float

    def covers(self, media_type: str) -> bool:
        """Say whether a media type is in the range."""
        kind, _, name = self.media_type.partition("/")
        wanted_kind, _, wanted_name = media_type.partition("/")
        return kind in {"*", wanted_kind} and name in {"*", wanted_name}


def accepted(request: Request) -> Sequence[MediaRange]:
    """Return what a request accepts, best first; the query parameter `accept` wins (PS3.18 8.3.3.1).

    A range without `multipart/related` that could mean both stands in both forms, the multipart one first.
    """
    return sorted((one for one in _named(request) if one.quality > 0), key=lambda one: -one.quality)


def chosen_model(request: Request) -> str:
    """Return how data sets are wanted: one of `DATA_SET_TYPES`, JSON where they are liked alike; HTTPException 406.

    The quality of a type is that of the most particular range that it falls into (RFC 9110 12.5.1).
    XML is taken to be wanted whether or not the client says that each data set is to be a part of its own.
    """
    named = _named(request)
    single = [one for one in named if not one.is_multipart]
    in_parts = [one for one in named if one.is_multipart]

    def liking(media_type: str) -> float:
        own = _quality(single, media_type)
        return max(own, _quality(in_parts, media_type)) if media_type == DICOM_XML else own

    best = max(DATA_SET_TYPES, key=liking)
    if liking(best) <= 0:
        raise HTTPException(406, f"data sets can be had as {', '.join(DATA_SET_TYPES)}")
    return best


def _quality(ranges: Sequence[MediaRange], media_type: str) -> float:
    for wanted in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        for one in ranges:
            if one.media_type == wanted:
                return one.quality
    return 0.0


def _named(request: Request) -> list[MediaRange]:
    """Return all ranges as they stand, the refused ones (`q=0`) too; HTTPException 400 where they are too many."""
    text = ",".join(request.query_params.getlist("accept")) or ",".join(request.headers.getlist("accept")) or "*/*"
    if len(text) > _ACCEPT_LIMIT:
        raise HTTPException(400, f"Accept is longer than {_ACCEPT_LIMIT} characters")
    parts = _split(text, ",")
    if len(parts) > _RANGE_LIMIT:
        raise HTTPException(400, f"Accept has more than {_RANGE_LIMIT} media ranges")
    return [one for part in parts for one in _ranges(part)]


def _ranges(text: str) -> Iterable[MediaRange]:
    # 'q' belongs to the range, and Python's parser of media types knows no '*/*'.
    pieces = [piece.strip() for piece in _split(text, ";")] or [""]
    _, parameters = parse_media_type("; ".join(["x/x", *pieces[1:]]))
    media_type = pieces[0].lower()
    syntax = parameters.get("transfer-syntax")
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    if media_type == MULTIPART:
        yield MediaRange(parameters.get("type", "*/*").lower(), True, syntax, quality)
        return
    if media_type in {"*/*", "multipart/*"}:
        yield MediaRange("*/*", True, syntax, quality)
    if media_type and media_type != "multipart/*":
        yield MediaRange(media_type, False, syntax, quality)


def _split(text: str, separator: str) -> list[str]:
    """Split outside quotation marks."""
    parts, start, is_quoted = [], 0, False
    for at, character in enumerate(text):
        if character == '"':
            is_quoted = not is_quoted
        elif character == separator and not is_quoted:
            parts.append(text[start:at])
            start = at + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def prefers_single_part(ranges: Sequence[MediaRange], media_type: str) -> bool:
    """Say whether the best range that covers a media type asks for it without multipart."""
    for one in ranges:
        if one.covers(media_type):
            return not one.is_multipart
    return False
