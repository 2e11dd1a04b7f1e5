"""Studies as the dispatcher, the worker and the operator see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import NotFoundError
from gateway.job import Priority
from gateway.store.tables import (
    artefact,
    association,
    association_content,
    instance,
    rejection,
    series,
    service,
    study,
)

_DICOM = "application/dicom"
StudyState = Literal["receiving", "routed", "unrouted"]


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study; the fields are those of the table."""

    study_instance_uid: str
    patient_id: str
    patient_id_issuer: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    accession_issuer: str
    study_id: str
    study_date: str
    study_time: str
    timezone_offset: str
    study_description: str
    referring_physician: str
    announced_count: int | None
    calling_ae: str
    state: StudyState
    state_reason: str | None
    priority: Priority
    revision: int
    first_received_at: datetime
    last_received_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A series with what its current instances say."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    body_part: str
    series_description: str
    series_number: int | None
    series_date: str
    series_time: str
    instance_count: int
    """Current instances."""
    newest_revision: int
    """Latest revision of the study in which an instance of this series came."""
    is_own: bool
    """Whether it is one of our results that came back."""


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """A stored instance; the fields are those of the table."""

    id: int
    sop_instance_uid: str
    digest: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    instance_number: int | None
    number_of_frames: int | None
    rows: int | None
    columns: int | None
    path: str
    """Relative to the data folder."""
    size_bytes: int
    is_current: bool
    study_revision: int
    association_id: str
    calling_ae: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Arriving:
    """A study still in state 'receiving', with what decides whether it is complete."""

    study: StudyRow
    open_associations: int
    """Associations not yet closed that carried at least one of its instances."""
    instance_count: int | None
    """Current instances; counted only where the study announced a number."""


@dataclass(frozen=True, slots=True)
class StudyFilter:
    """Which studies to list; conditions left out hold for all."""

    state: StudyState | None = None
    modality: str | None = None
    """A series of this modality, our own results not counted."""
    received_since: datetime | None = None
    """Last instance received at this time or later."""
    received_before: datetime | None = None
    """Last instance received before this time."""
    uids: tuple[str, ...] | None = None


_STUDY_COLUMNS = [study.c[field.name] for field in fields(StudyRow)]
_SERIES_COLUMNS = [series.c[field.name] for field in fields(SeriesRow) if field.name in series.c]
_INSTANCE_COLUMNS = [instance.c[field.name] for field in fields(InstanceRow)]
_is_rejected = sa.exists().where(rejection.c.sop_instance_uid == instance.c.sop_instance_uid).correlate(instance)


def _is_study_shown() -> sa.ColumnElement[bool]:
    of_study = rejection.c.study_instance_uid == study.c.study_instance_uid
    image = (instance.c.study_instance_uid == study.c.study_instance_uid, instance.c.is_current, ~_is_rejected)
    refused = sa.exists().where(rejection.c.sop_instance_uid == artefact.c.sop_instance_uid).correlate(artefact)
    result = (artefact.c.study_instance_uid == study.c.study_instance_uid, artefact.c.media_type == _DICOM, ~refused)
    return sa.or_(
        ~sa.exists().where(of_study).correlate(study),
        sa.exists().where(*image).correlate(study),
        sa.exists().where(*result).correlate(study),
    )


study_is_shown = _is_study_shown()
"""Of a study: not all that it has been is rejected."""


def get_study(connection: Connection, study_instance_uid: str) -> StudyRow:
    """Return a study; NotFoundError where there is none."""
    query = sa.select(*_STUDY_COLUMNS).where(study.c.study_instance_uid == study_instance_uid)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"no study {study_instance_uid}")
    return StudyRow(**row._mapping)


def lock_study(
    connection: Connection, study_instance_uid: str, *, skip_locked: bool = False, is_whole: bool = False
) -> bool:
    """Hold a study until the transaction ends, so that its jobs change in one place at a time.

    With `is_whole` no row that refers to it may come meanwhile either: the study is to go.

    Returns
    -------
    bool
        False where there is no such study or, with `skip_locked`, another transaction holds it.
    """
    query = sa.select(study.c.revision).where(study.c.study_instance_uid == study_instance_uid)
    # key_share: rows that refer to the study may be inserted meanwhile.
    return connection.scalar(query.with_for_update(key_share=not is_whole, skip_locked=skip_locked)) is not None


def list_studies(
    connection: Connection, which: StudyFilter | None = None, *, limit: int = 100, offset: int = 0
) -> list[StudyRow]:
    """Return studies, the latest received first; those of which everything is rejected are left out."""
    query = sa.select(*_STUDY_COLUMNS).where(study_is_shown, *_conditions(which or StudyFilter()))
    newest_first = (study.c.last_received_at.desc(), study.c.study_instance_uid)
    rows = connection.execute(query.order_by(*newest_first).limit(limit).offset(offset))
    return [StudyRow(**row._mapping) for row in rows]


def list_study_uids(connection: Connection, which: StudyFilter) -> list[str]:
    """Return the UIDs of all studies that a filter takes, the earliest received first."""
    query = sa.select(study.c.study_instance_uid).where(*_conditions(which))
    return list(connection.scalars(query.order_by(study.c.last_received_at, study.c.study_instance_uid)))


def list_series(connection: Connection, study_instance_uid: str) -> list[SeriesRow]:
    """Return the series of a study that have current instances, rejected ones left out, by number and UID."""
    own = sa.exists().where(
        artefact.c.study_instance_uid == series.c.study_instance_uid,
        artefact.c.series_instance_uid == series.c.series_instance_uid,
    )
    of_series = sa.and_(
        instance.c.study_instance_uid == series.c.study_instance_uid,
        instance.c.series_instance_uid == series.c.series_instance_uid,
        instance.c.is_current,
        ~_is_rejected,
    )
    query = (
        sa.select(
            *_SERIES_COLUMNS,
            sa.func.count(instance.c.id).label("instance_count"),
            sa.func.max(instance.c.study_revision).label("newest_revision"),
            own.label("is_own"),
        )
        .join_from(series, instance, of_series)
        .where(series.c.study_instance_uid == study_instance_uid)
        .group_by(*_SERIES_COLUMNS)
        .order_by(series.c.series_number, series.c.series_instance_uid)
    )
    return [SeriesRow(**row._mapping) for row in connection.execute(query)]


def list_instances(
    connection: Connection, study_instance_uid: str, series_instance_uid: str | None = None, *, limit: int | None = None
) -> list[InstanceRow]:
    """Return the current instances of a study or of one of its series, by series, instance number and UID.

    Rejected ones are left out.
    """
    conditions = [instance.c.study_instance_uid == study_instance_uid, instance.c.is_current, ~_is_rejected]
    if series_instance_uid is not None:
        conditions.append(instance.c.series_instance_uid == series_instance_uid)
    order = (instance.c.series_instance_uid, instance.c.instance_number, instance.c.sop_instance_uid)
    query = sa.select(*_INSTANCE_COLUMNS).where(*conditions).order_by(*order).limit(limit)
    return [InstanceRow(**row._mapping) for row in connection.execute(query)]


def latest_association(connection: Connection, study_instance_uid: str) -> str | None:
    """Return the id of the association that brought the study's latest instance."""
    query = sa.select(instance.c.association_id).where(instance.c.study_instance_uid == study_instance_uid)
    return connection.scalar(query.order_by(instance.c.received_at.desc()).limit(1))


def list_arriving(connection: Connection, received_before: datetime) -> list[Arriving]:
    """Return the studies that may be complete, the earliest first.

    Those are the ones in state 'receiving' whose last instance came before a time or that announced their count.
    """
    still_open = sa.select(sa.func.count()).select_from(association).where(association.c.closed_at.is_(None), carries())
    held = (
        sa.select(sa.func.count())
        .select_from(instance)
        .where(instance.c.study_instance_uid == study.c.study_instance_uid, instance.c.is_current)
    )
    announces = study.c.announced_count.is_not(None)
    query = (
        sa.select(
            *_STUDY_COLUMNS,
            still_open.correlate(study).scalar_subquery().label("open_associations"),
            sa.case((announces, held.correlate(study).scalar_subquery()), else_=None).label("instance_count"),
        )
        .where(study.c.state == "receiving", sa.or_(announces, study.c.last_received_at <= received_before))
        .order_by(study.c.last_received_at)
    )
    return [_arriving(dict(row._mapping)) for row in connection.execute(query)]


def next_to_be_quiet(connection: Connection, received_after: datetime) -> datetime | None:
    """Return when the last instance came of the study that has been still for longest, of those that received later."""
    waiting = (study.c.state == "receiving", study.c.last_received_at > received_after)
    last: datetime | None = connection.scalar(sa.select(sa.func.min(study.c.last_received_at)).where(*waiting))
    return last


def carries() -> sa.ColumnElement[bool]:
    """Say of an association and a study that the one brought at least one instance of the other, a repeated one too."""
    content = association_content.c
    brought = (content.association_id == association.c.id, content.study_instance_uid == study.c.study_instance_uid)
    return sa.exists().where(*brought).correlate(association, study)


def mark_dispatched(connection: Connection, seen: StudyRow, dispatched: StudyRow) -> bool:
    """Take a study out of 'receiving': state, reason, priority and time of completion of `dispatched` are written.

    Returns
    -------
    bool
        False where it is no longer as it was `seen`: another dispatcher was faster, or another instance came.
    """
    as_seen = (
        study.c.study_instance_uid == seen.study_instance_uid,
        study.c.state == "receiving",
        study.c.revision == seen.revision,
        study.c.last_received_at == seen.last_received_at,
    )
    written = ("state", "state_reason", "priority", "completed_at")
    values = {name: getattr(dispatched, name) for name in written}
    return connection.execute(sa.update(study).where(*as_seen).values(**values)).rowcount == 1


def close_lost_associations(connection: Connection, seen_before: datetime, now: datetime) -> int:
    """Close the open associations whose receiver was last seen before a time, as 'lost'; return how many."""
    alive = sa.select(service.c.id).where(service.c.seen_at >= seen_before)
    lost = (
        association.c.closed_at.is_(None),
        association.c.opened_at < seen_before,
        association.c.service_id.not_in(alive),
    )
    return connection.execute(sa.update(association).where(*lost).values(closed_at=now, outcome="lost")).rowcount


def _arriving(row: dict[str, object]) -> Arriving:
    open_associations, instance_count = row.pop("open_associations"), row.pop("instance_count")
    return Arriving(StudyRow(**row), open_associations, instance_count)  # type: ignore[arg-type] # a row's values are untyped


def _conditions(which: StudyFilter) -> Sequence[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if which.state is not None:
        conditions.append(study.c.state == which.state)
    if which.received_since is not None:
        conditions.append(study.c.last_received_at >= which.received_since)
    if which.received_before is not None:
        conditions.append(study.c.last_received_at < which.received_before)
    if which.uids is not None:
        conditions.append(study.c.study_instance_uid.in_(which.uids))
    if which.modality is not None:
        ours = sa.exists().where(
            artefact.c.study_instance_uid == study.c.study_instance_uid,
            artefact.c.series_instance_uid == series.c.series_instance_uid,
        )
        of_study = series.c.study_instance_uid == study.c.study_instance_uid
        conditions.append(sa.exists().where(of_study, series.c.modality == which.modality, ~ours))
    return conditions
