"""Objects by UID, with the place of their files: for retrieval, storage commitment and workitems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.query.visible import received, results
from gateway.store.tables import artefact, instance

_UIDS_PER_QUERY = 500
_LAST = 1 << 62
"""Objects and series without a number come behind those that have one."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A DICOM object that the gateway holds: a received instance, or one of our own results."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    """Of the file."""
    path: str
    """Of the Part 10 file, relative to the data folder."""
    size_bytes: int
    """Of the file."""
    number_of_frames: int | None
    """None: one frame, or no image."""
    rows: int | None
    columns: int | None
    instance_number: int | None
    modality: str
    is_result: bool
    """Whether the gateway made it."""


_NAMES = tuple(field.name for field in fields(StoredObject))


def locate(
    connection: Connection,
    *,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
) -> list[StoredObject]:
    """Return the objects with these UIDs, by series number and UID, instance number and UID; rejected ones not.

    Conditions left out hold for all; at least one must be given.
    """
    given = {
        "study_instance_uid": study_instance_uid,
        "series_instance_uid": series_instance_uid,
        "sop_instance_uid": sop_instance_uid,
    }
    wanted = {name: uid for name, uid in given.items() if uid is not None}
    if not wanted:
        raise ValueError("locate needs a UID")
    ours = [artefact.c[name] == uid for name, uid in wanted.items()]
    theirs = [instance.c[name] == uid for name, uid in wanted.items()]
    return _ordered(_rows(connection, theirs, ours))


def locate_many(connection: Connection, sop_instance_uids: Iterable[str]) -> list[StoredObject]:
    """Return the objects with these SOP Instance UIDs, in the order of `locate`; unknown ones are left out."""
    remaining = iter(dict.fromkeys(sop_instance_uids))
    found: list[sa.Row[Any]] = []
    while uids := list(islice(remaining, _UIDS_PER_QUERY)):
        theirs, ours = instance.c.sop_instance_uid.in_(uids), artefact.c.sop_instance_uid.in_(uids)
        found += _rows(connection, [theirs], [ours])
    return _ordered(found)


def _rows(
    connection: Connection, theirs: Sequence[sa.ColumnElement[bool]], ours: Sequence[sa.ColumnElement[bool]]
) -> Iterator[sa.Row[Any]]:
    yield from connection.execute(received().where(*theirs))
    yield from connection.execute(results().where(*ours))


def _ordered(rows: Iterable[sa.Row[Any]]) -> list[StoredObject]:
    return [StoredObject(**{name: row._mapping[name] for name in _NAMES}) for row in sorted(rows, key=_place)]


def _place(row: sa.Row[Any]) -> tuple[int, str, int, str]:
    return (
        _LAST if row.series_number is None else row.series_number,
        row.series_instance_uid,
        _LAST if row.instance_number is None else row.instance_number,
        row.sop_instance_uid,
    )
