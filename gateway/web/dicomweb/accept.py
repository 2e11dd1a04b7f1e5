"""What a client accepts (RFC 9110 12.5.1, PS3.18 8.3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request


def chosen_type(request: Request, offered: Sequence[str]) -> str:
    """Return the offered media type that the client likes best, the first of equals; HTTPException 406 where none.

    The parameter `accept` stands in for the header where it is given.
    """
    ranges = _ranges(request.query_params.get("accept") or request.headers.get("accept") or "*/*")
    best = max(offered, key=lambda media_type: _quality(ranges, media_type))
    if _quality(ranges, best) <= 0:
        raise HTTPException(406, f"this can be had as {', '.join(offered)}")
    return best


def _ranges(header: str) -> list[tuple[str, float]]:
    ranges = []
    for part in header[:4096].split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        ranges.append((name, _float(quality)))
    return ranges


def _quality(ranges: Sequence[tuple[str, float]], media_type: str) -> float:
    """Return the quality of the most particular range that a type falls into; 0 where it falls into none."""
    for wanted in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        for name, quality in ranges:
            if name == wanted:
                return quality
    return 0.0


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
