"""Instances that are no longer shown, and the IOCM rejection notes that say so (IHE RAD TF-2 4.66). Their files stay.

A note is an instance of its study like any other, until nothing else of the study is shown: then it is hidden too, by a
row in which it is its own note, so that the study vanishes from all lists and the note can still be had by its UID.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import insert_ignore
from gateway.store.instances import ReceivedInstance
from gateway.store.results import DICOM
from gateway.store.tables import artefact, instance, rejection, series, study

_AT_ONCE = 500
_REQUESTER_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Rejected:
    """An instance that is to be shown no longer."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A decision about instances of one study."""

    code: str
    """DCM, of CID 7011."""
    rejected: Sequence[Rejected]
    note_sop_instance_uid: str
    requested_by: str
    """AE title, or 'web'."""


def reject(connection: Connection, decision: Rejection, now: datetime) -> int:
    """Hide instances, known or yet to come; return how many were not rejected before."""
    about = {
        "code": decision.code,
        "note_sop_instance_uid": decision.note_sop_instance_uid,
        "requested_by": decision.requested_by[:_REQUESTER_LENGTH],
        "rejected_at": now,
    }
    uids = {one.sop_instance_uid for one in decision.rejected}
    count = len(uids) - _count_rejected(connection, sorted(uids))
    insert_ignore(connection, rejection, [asdict(one) | about for one in decision.rejected], keys=["sop_instance_uid"])
    for uid in sorted({one.study_instance_uid for one in decision.rejected}):
        _hide_lonely_notes(connection, uid, about)
    return count


def add_note(connection: Connection, note: ReceivedInstance) -> None:
    """Put our own note among the instances of its study, which is not reopened by it: nothing came to be evaluated."""
    header = note.header
    of_series = {
        "study_instance_uid": header.study_instance_uid,
        "series_instance_uid": header.series_instance_uid,
        **asdict(header.series),
    }
    insert_ignore(connection, series, [of_series], keys=["study_instance_uid", "series_instance_uid"])
    revision = sa.select(study.c.revision).where(study.c.study_instance_uid == header.study_instance_uid)
    row: dict[str, Any] = {
        name: getattr(header, name)
        for name in (
            *("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "study_instance_uid", "series_instance_uid"),
            *("instance_number", "number_of_frames", "rows", "columns"),
        )
    }
    kept = ("digest", "path", "size_bytes", "association_id", "calling_ae", "received_at")
    row |= {name: getattr(note, name) for name in kept}
    row |= {"is_current": True, "study_revision": revision.scalar_subquery()}
    connection.execute(sa.insert(instance).values(row))


def is_rejected(
    connection: Connection,
    *,
    study_instance_uid: str,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
) -> bool:
    """Say whether something of a study, of a series, or a certain instance has been rejected."""
    given = {"series_instance_uid": series_instance_uid, "sop_instance_uid": sop_instance_uid}
    conditions = [rejection.c.study_instance_uid == study_instance_uid]
    conditions += [rejection.c[name] == uid for name, uid in given.items() if uid is not None]
    return connection.scalar(sa.select(sa.literal(1)).where(*conditions).limit(1)) is not None


def find_hidden_note(
    connection: Connection, *, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
) -> sa.Row[Any] | None:
    """Return the row of a note that is hidden with its study, or was rejected with it."""
    notes = sa.select(rejection.c.note_sop_instance_uid).where(rejection.c.study_instance_uid == study_instance_uid)
    query = sa.select(instance).where(
        instance.c.is_current,
        instance.c.study_instance_uid == study_instance_uid,
        instance.c.series_instance_uid == series_instance_uid,
        instance.c.sop_instance_uid == sop_instance_uid,
        instance.c.sop_instance_uid.in_(notes),
    )
    return connection.execute(query).one_or_none()


def _count_rejected(connection: Connection, uids: Sequence[str]) -> int:
    known = 0
    for start in range(0, len(uids), _AT_ONCE):
        among = rejection.c.sop_instance_uid.in_(uids[start : start + _AT_ONCE])
        known += connection.scalar(sa.select(sa.func.count()).select_from(rejection).where(among)) or 0
    return known


def _hide_lonely_notes(connection: Connection, study_instance_uid: str, about: dict[str, Any]) -> None:
    """Hide the notes of a study of which nothing else is shown."""
    notes = sa.select(rejection.c.note_sop_instance_uid).where(rejection.c.study_instance_uid == study_instance_uid)
    hidden = sa.exists().where(rejection.c.sop_instance_uid == instance.c.sop_instance_uid).correlate(instance)
    refused = sa.exists().where(rejection.c.sop_instance_uid == artefact.c.sop_instance_uid).correlate(artefact)
    shown = sa.select(instance.c.sop_instance_uid, instance.c.series_instance_uid).where(
        instance.c.study_instance_uid == study_instance_uid, instance.c.is_current, ~hidden
    )
    result = sa.select(artefact.c.id).where(
        artefact.c.study_instance_uid == study_instance_uid, artefact.c.media_type == DICOM, ~refused
    )
    is_note = instance.c.sop_instance_uid.in_(notes)
    if connection.execute(shown.where(~is_note).limit(1)).first() or connection.execute(result.limit(1)).first():
        return
    rows = [
        {
            "study_instance_uid": study_instance_uid,
            "series_instance_uid": series_uid,
            "sop_instance_uid": uid,
            **about,
            "note_sop_instance_uid": uid,
        }
        for uid, series_uid in connection.execute(shown.where(is_note))
    ]
    insert_ignore(connection, rejection, rows, keys=["sop_instance_uid"])
