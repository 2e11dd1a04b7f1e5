"""What the pages show, read from the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import State
from gateway.store.jobs import JobFilter, JobRow, list_jobs
from gateway.store.studies import StudyFilter, StudyRow, get_study, list_studies
from gateway.store.tables import artefact, job, series

_MOST_JOBS = 200


@dataclass(frozen=True, slots=True)
class ResultLine:
    """The newest job of one bundle over one study."""

    bundle: str
    revision: int
    state: str
    text: str
    """Its findings, or why there are none."""


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A line of the list."""

    study: StudyRow
    modalities: tuple[str, ...]
    results: tuple[ResultLine, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a job's result."""

    artefact_id: int
    name: str


@dataclass(frozen=True, slots=True)
class StudyJob:
    """A job with what it found."""

    job: JobRow
    outcomes: Sequence[Mapping[str, Any]]
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class StudyPage:
    """A study with its series and jobs."""

    study: StudyRow
    series: Sequence[sa.Row[Any]]
    jobs: Sequence[StudyJob]


def study_lines(connection: Connection, *, limit: int, offset: int) -> list[StudyLine]:
    """Return studies with their newest results, the latest received first."""
    studies = list_studies(connection, StudyFilter(), limit=limit, offset=offset)
    uids = [study.study_instance_uid for study in studies]
    modalities, results = _modalities(connection, uids), _results(connection, uids)
    return [
        StudyLine(
            study,
            tuple(modalities.get(study.study_instance_uid, ())),
            tuple(results.get(study.study_instance_uid, ())),
        )
        for study in studies
    ]


def study_page(connection: Connection, study_instance_uid: str) -> StudyPage:
    """Return a study; NotFoundError where there is none."""
    study = get_study(connection, study_instance_uid)
    query = sa.select(series).where(series.c.study_instance_uid == study_instance_uid)
    rows = connection.execute(query.order_by(series.c.series_number, series.c.series_instance_uid)).all()
    jobs = list_jobs(connection, JobFilter(study_instance_uid=study_instance_uid), limit=_MOST_JOBS)
    pictures = _pictures(connection, study_instance_uid)
    newest_first = sorted(jobs, key=lambda each: (each.bundle, -each.revision))
    return StudyPage(
        study, rows, [StudyJob(each, _outcomes(each.summary), pictures.get(each.id, [])) for each in newest_first]
    )


def picture_path(connection: Connection, artefact_id: int) -> str | None:
    """Return where a picture lies, relative to the data folder; None where there is no such picture."""
    query = sa.select(artefact.c.path).where(artefact.c.id == artefact_id, artefact.c.media_type == "image/png")
    return connection.scalar(query)


def _modalities(connection: Connection, uids: Sequence[str]) -> dict[str, list[str]]:
    query = sa.select(series.c.study_instance_uid, series.c.modality).where(series.c.study_instance_uid.in_(uids))
    found: dict[str, list[str]] = {}
    for row in connection.execute(query.distinct().order_by(series.c.study_instance_uid, series.c.modality)):
        found.setdefault(row.study_instance_uid, []).append(row.modality)
    return found


def _results(connection: Connection, uids: Sequence[str]) -> dict[str, list[ResultLine]]:
    newest = (
        sa.select(job.c.study_instance_uid, job.c.bundle, sa.func.max(job.c.revision).label("revision"))
        .where(job.c.study_instance_uid.in_(uids))
        .group_by(job.c.study_instance_uid, job.c.bundle)
        .subquery()
    )
    is_newest = sa.and_(
        job.c.study_instance_uid == newest.c.study_instance_uid,
        job.c.bundle == newest.c.bundle,
        job.c.revision == newest.c.revision,
    )
    found: dict[str, list[ResultLine]] = {}
    for row in connection.execute(sa.select(job).join(newest, is_newest).order_by(job.c.bundle)):
        text = _text(row.summary) if row.state == State.DONE else row.reason
        line = ResultLine(row.bundle, row.revision, row.state, text or "")
        found.setdefault(row.study_instance_uid, []).append(line)
    return found


def _pictures(connection: Connection, study_instance_uid: str) -> dict[str, list[Picture]]:
    query = sa.select(artefact.c.id, artefact.c.job_id, artefact.c.kind).where(
        artefact.c.study_instance_uid == study_instance_uid, artefact.c.media_type == "image/png"
    )
    found: dict[str, list[Picture]] = {}
    for row in connection.execute(query.order_by(artefact.c.ordinal, artefact.c.kind.desc(), artefact.c.id)):
        name = row.kind.removeprefix("picture-").replace("-", " ")
        found.setdefault(row.job_id, []).append(Picture(row.id, name))
    return found


def _text(summary: Any) -> str:
    return str(summary.get("text", "")) if isinstance(summary, dict) else ""


def _outcomes(summary: Any) -> Sequence[Mapping[str, Any]]:
    outcomes = summary.get("outcomes", []) if isinstance(summary, dict) else []
    return [each for each in outcomes if isinstance(each, dict)]
