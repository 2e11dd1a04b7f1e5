"""Opaque tokens for the next page: where the last one ended in the sort order.

A position, not an offset: resources that come or change while a client pages shift nothing, and a page costs the same
wherever it lies.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

import orjson

from fhir_facade.outcome import InvalidError

Key: TypeAlias = datetime | str | float | int
_LONGEST = 4096
_LARGEST_ID = 2**63 - 1


def page_token(order: str, keys: Sequence[Key]) -> str:
    """Return the token for what follows a row.

    Parameters
    ----------
    order
        Name of the order that the server chose; empty: the one that was asked for.
    keys
        The row's sort keys.
    """
    values = [order, *(key.isoformat() if isinstance(key, datetime) else key for key in keys)]
    return base64.urlsafe_b64encode(orjson.dumps(values)).rstrip(b"=").decode("ascii")


def open_token(token: str) -> tuple[str, list[object]]:
    """Return order and sort keys of a token, as they were written; InvalidError where it is none."""
    if len(token) > _LONGEST:
        raise InvalidError("_page: not a token of this server")
    try:
        values = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidError("_page: not a token of this server") from None
    if not isinstance(values, list) or not values or not isinstance(values[0], str):
        raise InvalidError("_page: not a token of this server")
    return values[0], values[1:]


def typed_keys(values: Sequence[object], kinds: Sequence[type[Key]]) -> list[Key]:
    """Return the sort keys of a token; InvalidError where they are those of another search."""
    if len(values) != len(kinds):
        raise InvalidError("_page: a token of another search")
    try:
        return [_key(value, kind) for value, kind in zip(values, kinds, strict=True)]
    except ValueError:
        raise InvalidError("_page: a token of another search") from None


def _key(value: object, kind: type[Key]) -> Key:
    if kind is datetime and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment
    if kind is str and isinstance(value, str) and "\0" not in value:
        return value
    if kind is float and isinstance(value, int | float):
        return float(value)
    if kind is int and isinstance(value, int) and 0 <= value <= _LARGEST_ID:
        return int(value)
    raise InvalidError("_page: a token of another search")
