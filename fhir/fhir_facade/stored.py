"""A version of a resource as it lies in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

COLUMNS = ("id", "type", "resource_id", "version", "last_updated", "body")


class Stored(NamedTuple):
    """A version of a resource."""

    number: int
    """Of its row: grows with every version that is written."""
    type: str
    resource_id: str
    version: int
    last_updated: datetime
    body: bytes


def stored(row: Sequence[Any]) -> Stored:
    """Return the version that a row of `COLUMNS` holds."""
    return Stored(row[0], row[1], row[2], row[3], row[4], row[5])
