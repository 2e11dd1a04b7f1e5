"""The worklist: studies in the order of their urgency, filtered, with what was found and how many came before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import State
from gateway.store.studies import StudyRow, study_is_shown
from gateway.store.tables import artefact, delivery, fhir_resource, finding, job, outbox, series, study

WorkState = Literal["receiving", "unrouted", "waiting", "running", "failed", "not-evaluable", "preliminary", "verified"]
WORK_STATES: Final[tuple[WorkState, ...]] = get_args(WorkState)
"""What a radiologist asks of a study; one with several bundles can be in several."""
PRIORS_LIMIT = 100
"""Earlier studies are counted up to here."""
_MOST_MOVING = 500
_STUDY_COLUMNS = [study.c[field.name] for field in fields(StudyRow)]
_JOB_STATES: Mapping[str, State] = {"waiting": State.QUEUED, "running": State.RUNNING, "failed": State.DEAD}


@dataclass(frozen=True, slots=True)
class WorklistFilter:
    """Which studies to show; conditions left out hold for all."""

    state: WorkState | None = None
    modality: str | None = None
    """A series of this modality, our own results not counted."""
    finding: str | None = None
    """Name of a class that is a current answer."""
    dated_from: str | None = None
    """Study Date at this one or later, YYYYMMDD."""
    dated_to: str | None = None
    words: tuple[str, ...] = ()
    """Each stands in one at least of the columns `searched`."""
    searched: tuple[str, ...] = ("patient_name", "patient_id", "accession_number", "study_description")


@dataclass(frozen=True, slots=True)
class WorklistStudy:
    """A study with its urgency."""

    study: StudyRow
    suspicion: float | None
    """Highest calibrated probability of a positive class among the current findings."""


@dataclass(frozen=True, slots=True)
class WorklistJob:
    """The newest job of one bundle over one study."""

    study_instance_uid: str
    bundle: str
    revision: int
    state: State
    reason: str | None
    summary: Any
    verification: Any


def list_worklist(connection: Connection, which: WorklistFilter, *, limit: int, offset: int = 0) -> list[WorklistStudy]:
    """Return studies: STAT first, then by suspicion, then the latest received."""
    # UIDs first: the sort then carries no names and descriptions, and leaves the wide rows alone.
    groups = [
        _most_urgent(number, [*group, *_conditions(which)], limit + offset) for number, group in enumerate(_GROUPS)
    ]
    first = sa.union_all(*(sa.select(group.subquery()) for group in groups)).subquery()
    order = (
        first.c.number,
        first.c.suspicion.desc(),
        first.c.last_received_at.desc(),
        first.c.study_instance_uid,
    )
    chosen = sa.select(first.c.study_instance_uid).order_by(*order).limit(limit).offset(offset)
    uids = list(connection.scalars(chosen))
    query = sa.select(*_STUDY_COLUMNS, study.c.suspicion).where(study.c.study_instance_uid.in_(uids))
    found = {}
    for row in connection.execute(query):
        values = dict(row._mapping)
        suspicion = values.pop("suspicion")
        found[row.study_instance_uid] = WorklistStudy(StudyRow(**values), suspicion)
    return [found[uid] for uid in uids if uid in found]


_GROUPS: Final = tuple(
    (study.c.priority == priority, study.c.suspicion.is_not(None) if is_told else study.c.suspicion.is_(None))
    for priority in ("stat", "routine")
    for is_told in (True, False)
)
"""Conditions that part the studies, the most urgent first: in each group the order is that of an index, read backwards.
Over all at once it is not: PostgreSQL has what is unknown at the other end."""


def _most_urgent(number: int, conditions: Sequence[sa.ColumnElement[bool]], limit: int) -> sa.Select[Any]:
    """Select the first studies of a group, with what orders them among those of others."""
    columns = (study.c.study_instance_uid, study.c.suspicion, study.c.last_received_at)
    order = (study.c.suspicion.desc(), study.c.last_received_at.desc(), study.c.study_instance_uid)
    return sa.select(sa.literal(number).label("number"), *columns).where(*conditions).order_by(*order).limit(limit)


def count_worklist(connection: Connection, which: WorklistFilter, limit: int) -> int:
    """Return how many studies a filter takes, counted up to `limit`."""
    taken = sa.select(sa.literal(1)).select_from(study).where(*_conditions(which)).limit(limit).subquery()
    return connection.scalar(sa.select(sa.func.count()).select_from(taken)) or 0


def newest_jobs(connection: Connection, uids: Collection[str]) -> dict[str, list[WorklistJob]]:
    """Return by study the newest job of each bundle, by the bundle's name."""
    columns = [job.c[field.name] for field in fields(WorklistJob)]
    query = sa.select(*columns).where(job.c.study_instance_uid.in_(uids), _is_newest()).order_by(job.c.bundle)
    found: dict[str, list[WorklistJob]] = {}
    for row in connection.execute(query):
        found.setdefault(row.study_instance_uid, []).append(WorklistJob(**row._mapping))
    return found


def modalities_of(connection: Connection, uids: Collection[str]) -> dict[str, list[str]]:
    """Return by study the modalities of its series, our own results not counted."""
    query = sa.select(series.c.study_instance_uid, series.c.modality).where(
        series.c.study_instance_uid.in_(uids), ~_is_ours()
    )
    found: dict[str, list[str]] = {}
    for row in connection.execute(query.distinct().order_by(series.c.study_instance_uid, series.c.modality)):
        found.setdefault(row.study_instance_uid, []).append(row.modality)
    return found


def count_priors(connection: Connection, uids: Collection[str]) -> dict[str, int]:
    """Return by study how many earlier ones its patient (id and issuer) has, up to `PRIORS_LIMIT`."""
    other = study.alias("other")
    earlier = sa.select(sa.literal(1)).select_from(other).where(*_is_prior(other, study)).limit(PRIORS_LIMIT)
    counted = sa.select(sa.func.count()).select_from(earlier.correlate(study).subquery()).scalar_subquery()
    is_known = (study.c.study_instance_uid.in_(uids), study.c.patient_id != "", study.c.study_date != "")
    rows = connection.execute(sa.select(study.c.study_instance_uid, counted.label("priors")).where(*is_known))
    return {row.study_instance_uid: row.priors for row in rows}


def list_priors(connection: Connection, study_instance_uid: str, limit: int) -> list[StudyRow]:
    """Return the earlier studies of a study's patient, the latest first."""
    this = study.alias("this")
    query = (
        sa.select(*_STUDY_COLUMNS)
        .select_from(study)
        .join(this, sa.and_(*_is_prior(study, this)))
        .where(this.c.study_instance_uid == study_instance_uid, this.c.patient_id != "", this.c.study_date != "")
        .order_by(study.c.study_date.desc(), study.c.study_time.desc(), study.c.study_instance_uid)
    )
    return [StudyRow(**row._mapping) for row in connection.execute(query.limit(limit))]


def known_modalities(connection: Connection, limit: int = 50) -> list[str]:
    """Return the modalities that studies have, for a filter to offer."""
    return list(connection.scalars(sa.select(series.c.modality).distinct().order_by(series.c.modality).limit(limit)))


def known_findings(connection: Connection, limit: int = 200) -> list[str]:
    """Return the names of classes that are current answers, for a filter to offer."""
    query = sa.select(finding.c.name).where(finding.c.is_current).distinct()
    return list(connection.scalars(query.order_by(finding.c.name).limit(limit)))


def change_mark(connection: Connection) -> tuple[object, ...]:
    """Return a value that differs after anything changed that a worklist or a study's page shows.

    Each part is read from an index, none grows with the number of studies or jobs that are done.
    """
    counts = tuple(connection.execute(_COUNTS).one())
    jobs = frozenset(tuple(row) for row in connection.execute(_MOVING_JOBS))
    return counts, jobs, frozenset(tuple(row) for row in connection.execute(_OPEN_DELIVERIES))


def _counted(condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).where(condition).scalar_subquery()


_COUNTS = sa.select(
    *(
        sa.select(sa.func.max(column)).scalar_subquery()
        for column in (
            study.c.last_received_at,
            outbox.c.id,
            artefact.c.id,
            finding.c.id,
            fhir_resource.c.id,
            delivery.c.id,
        )
    ),
    _counted(study.c.state == "receiving"),
    _counted(study.c.priority == "stat"),
)
_MOVING_JOBS = (
    sa.select(job.c.id, job.c.state)
    .where(job.c.state.in_((State.QUEUED, State.RUNNING)))
    .order_by(job.c.state, job.c.priority, job.c.available_at)  # as the index has them
    .limit(_MOST_MOVING)
)
_OPEN_DELIVERIES = (
    sa.select(delivery.c.state, sa.func.count())
    .where(delivery.c.state.in_(("waiting", "failed")))
    .group_by(delivery.c.state)
)


def _is_prior(earlier: sa.FromClause, later: sa.FromClause) -> tuple[sa.ColumnElement[bool], ...]:
    is_before = sa.or_(
        earlier.c.study_date < later.c.study_date,
        sa.and_(earlier.c.study_date == later.c.study_date, earlier.c.study_time < later.c.study_time),
    )
    return (
        earlier.c.patient_id == later.c.patient_id,
        earlier.c.patient_id_issuer == later.c.patient_id_issuer,
        earlier.c.study_date <= later.c.study_date,  # the part of the index to look at
        earlier.c.study_date != "",
        is_before,
    )


def _is_newest() -> sa.ColumnElement[bool]:
    newer = job.alias("newer")
    return ~sa.exists().where(
        newer.c.study_instance_uid == job.c.study_instance_uid,
        newer.c.bundle == job.c.bundle,
        newer.c.revision > job.c.revision,
    )


def _is_ours() -> sa.ColumnElement[bool]:
    return sa.exists().where(
        artefact.c.study_instance_uid == series.c.study_instance_uid,
        artefact.c.series_instance_uid == series.c.series_instance_uid,
    )


def _conditions(which: WorklistFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [study_is_shown]
    if which.state is not None:
        conditions.append(_is_in(which.state))
    if which.dated_from is not None:
        conditions.append(study.c.study_date >= which.dated_from)
    if which.dated_to is not None:
        conditions += [study.c.study_date <= which.dated_to, study.c.study_date != ""]
    if which.modality is not None:
        of_study = series.c.study_instance_uid == study.c.study_instance_uid
        conditions.append(sa.exists().where(of_study, series.c.modality == which.modality, ~_is_ours()))
    if which.finding is not None:
        named = sa.select(finding.c.study_instance_uid).where(finding.c.name == which.finding, finding.c.is_current)
        conditions.append(study.c.study_instance_uid.in_(named))
    for word in which.words:
        # SQLite folds the case of ASCII alone: of other letters both cases are looked for.
        spellings = {word} if word.isascii() else {word, word.lower(), word.upper(), word.title()}
        found = (study.c[name].icontains(each, autoescape=True) for name in which.searched for each in spellings)
        conditions.append(sa.or_(sa.false(), *found))
    return conditions


def _is_in(state: WorkState) -> sa.ColumnElement[bool]:
    if state in {"receiving", "unrouted"}:
        return study.c.state == state
    if state in _JOB_STATES:
        of_job = [job.c.state == _JOB_STATES[state]]
    else:
        of_job = [job.c.state == State.DONE]
        if state == "not-evaluable":
            of_job.append(job.c.reason.is_not(None))
        else:
            verified = job.c.verification.is_not(None)
            of_job += [verified] if state == "verified" else [~verified, job.c.reason.is_(None)]
    jobs = sa.select(job.c.study_instance_uid).where(*of_job, _is_newest())
    return study.c.study_instance_uid.in_(jobs)
