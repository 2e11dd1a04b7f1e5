"""Where the entities of a level stand in the database: received ones and results, with the same columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.query.attributes import Level
from gateway.query.conditions import Column
from gateway.query.visible import (
    RESULT_TRANSFER_SYNTAX,
    instance_is_shown,
    result_is_shown,
    result_modality,
)
from gateway.store.tables import artefact, instance, rejection, series, study


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the places where the entities of a level stand."""

    source: sa.FromClause
    columns: Mapping[str, Column]
    """By the name in `gateway.query.attributes`; those of the levels above are in it."""
    is_shown: sa.ColumnElement[bool]


_STUDY = {column.name: column for column in study.c}
_SERIES_TEXTS = (
    *("modality", "body_part", "series_description", "series_date", "series_time"),
    *("performed_date", "performed_time", "requested_procedure_id", "scheduled_step_id"),
)
_IMAGE_NAMES = ("sop_class_uid", "sop_instance_uid", "instance_number", "number_of_frames", "rows", "columns")

_in_series = sa.exists().where(
    instance.c.study_instance_uid == series.c.study_instance_uid,
    instance.c.series_instance_uid == series.c.series_instance_uid,
    instance_is_shown,
)
_result_in_series = sa.exists().where(
    artefact.c.study_instance_uid == series.c.study_instance_uid,
    artefact.c.series_instance_uid == series.c.series_instance_uid,
    result_is_shown,
)
_earlier = artefact.alias("earlier")
_earlier_in_series = sa.exists().where(
    _earlier.c.study_instance_uid == artefact.c.study_instance_uid,
    _earlier.c.series_instance_uid == artefact.c.series_instance_uid,
    _earlier.c.id < artefact.c.id,
    _earlier.c.media_type == artefact.c.media_type,
    _earlier.c.variant == "",
    ~sa.exists().where(rejection.c.sop_instance_uid == _earlier.c.sop_instance_uid).correlate(_earlier),
)


def _received_series() -> dict[str, Column]:
    return {"series_number": series.c.series_number, **{name: series.c[name] for name in _SERIES_TEXTS}}


def _result_series() -> dict[str, Column]:
    known = {"series_description", "series_date", "series_time"}
    nothing: Column = sa.literal("", sa.String())
    return {
        "series_number": artefact.c.series_number,
        **{name: sa.func.coalesce(artefact.c[name], "") if name in known else nothing for name in _SERIES_TEXTS},
        "modality": result_modality,
    }


def _uids(table: sa.Table, *names: str) -> dict[str, Column]:
    return {name: table.c[name] for name in names}


_of_study = series.c.study_instance_uid == study.c.study_instance_uid
_study_and_series = study.join(series, _of_study)
_study_and_results = study.join(artefact, artefact.c.study_instance_uid == study.c.study_instance_uid)
_down_to_instances = _study_and_series.join(
    instance,
    sa.and_(
        instance.c.study_instance_uid == series.c.study_instance_uid,
        instance.c.series_instance_uid == series.c.series_instance_uid,
    ),
)


def in_study(
    *, of_instance: Sequence[sa.ColumnElement[bool]], of_result: Sequence[sa.ColumnElement[bool]]
) -> sa.ColumnElement[bool]:
    """Return that a shown object of the study fulfils conditions on `instance` or `artefact`."""
    return _one_of(
        (instance.c.study_instance_uid == study.c.study_instance_uid, instance_is_shown, *of_instance),
        (artefact.c.study_instance_uid == study.c.study_instance_uid, result_is_shown, *of_result),
    )


def modality_in_study(received: sa.ColumnElement[bool], result: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return that a shown series of the study fulfils a condition on `series.modality` or `result_modality`."""
    return _one_of(
        (_of_study, received, _in_series.correlate(series)),
        (artefact.c.study_instance_uid == study.c.study_instance_uid, result_is_shown, result),
    )


def _one_of(*choices: Sequence[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    """Return that there is a row for one of the choices.

    Written so that each study is looked up in an index: PostgreSQL makes of EXISTS … OR EXISTS … a table of all
    studies first, whatever the limit of the query.
    """
    rows = [sa.select(sa.literal(1, sa.Integer())).where(*each).limit(1) for each in choices]
    return sa.func.coalesce(*(each.correlate(study).scalar_subquery() for each in rows)).is_not(None)


_studies = Branch(study, _STUDY, in_study(of_instance=(), of_result=()))
BRANCHES: Mapping[Level, tuple[Branch, ...]] = {
    "PATIENT": (_studies,),
    "STUDY": (_studies,),
    "SERIES": (
        Branch(
            _study_and_series,
            _STUDY | _uids(series, "study_instance_uid", "series_instance_uid") | _received_series(),
            sa.and_(_in_series, ~_result_in_series),
        ),
        Branch(
            _study_and_results,
            _STUDY | _uids(artefact, "study_instance_uid", "series_instance_uid") | _result_series(),
            sa.and_(result_is_shown, ~_earlier_in_series),
        ),
    ),
    "IMAGE": (
        Branch(
            _down_to_instances,
            _STUDY
            | _received_series()
            | _uids(instance, "study_instance_uid", "series_instance_uid", "transfer_syntax_uid", *_IMAGE_NAMES),
            instance_is_shown,
        ),
        Branch(
            _study_and_results,
            _STUDY
            | _result_series()
            | _uids(artefact, "study_instance_uid", "series_instance_uid", *_IMAGE_NAMES)
            | {"transfer_syntax_uid": sa.literal(RESULT_TRANSFER_SYNTAX, sa.String())},
            result_is_shown,
        ),
    ),
}
