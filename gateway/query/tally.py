"""How many objects a study and its series hold, of which SOP classes and modalities.

One statement counts for many studies: the current instances of each series from an index alone, less the few that are
rejected or are results come back, and our own results. No instance is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

from gateway.query.visible import is_result, result_is_shown, result_modality
from gateway.store.tables import artefact, instance, rejection, series

_STUDIES_PER_QUERY = 500
_UIDS = "study_uids"
_SQLITE = "sqlite"
Column = sa.ColumnElement[Any]


@dataclass(slots=True)
class StudyTally:
    """Of what is shown of a study."""

    modalities: set[str] = field(default_factory=set)
    sop_classes: set[str] = field(default_factory=set)
    instances: dict[str, int] = field(default_factory=dict)
    """Series Instance UID -> how many; the series that show nothing are not in it."""


def tally(connection: Connection, study_uids: Iterable[str]) -> dict[str, StudyTally]:
    """Count what is shown of these studies; those that show nothing are not in it."""
    uids = list(dict.fromkeys(study_uids))
    found: dict[str, StudyTally] = {}
    is_sqlite = connection.dialect.name == _SQLITE
    for start in range(0, len(uids), _STUDIES_PER_QUERY):
        chunk = uids[start : start + _STUDIES_PER_QUERY]
        given = orjson.dumps(chunk).decode() if is_sqlite else chunk
        rows = connection.execute(_counts(is_sqlite=is_sqlite), {_UIDS: given})
        for study_uid, series_uid, sop_class_uid, modality, count in rows:
            if count > 0:
                study = found.get(study_uid)
                if study is None:
                    study = found[study_uid] = StudyTally()
                study.instances[series_uid] = study.instances.get(series_uid, 0) + count
                study.sop_classes.add(sop_class_uid)
                if modality:
                    study.modalities.add(modality)
    return found


@cache
def _counts(*, is_sqlite: bool) -> sa.CompoundSelect[Any]:
    """Return the statement: study, series, SOP class, modality, how many.

    The UIDs are one parameter, for SQLAlchemy would write a statement with a list of parameters anew each time.
    """
    is_asked = _in_json if is_sqlite else _in_array
    place = (instance.c.study_instance_uid, instance.c.series_instance_uid, instance.c.sop_class_uid)
    held = sa.select(*place, sa.func.count().label("held")).where(is_asked(place[0]), instance.c.is_current)
    less = _hidden(is_asked).subquery("hidden")
    both = sa.union_all(
        held.group_by(*place), sa.select(*(less.c[column.name] for column in place), sa.literal(-1, sa.Integer()))
    ).subquery("received")
    names = [both.c[column.name] for column in place]
    shown = sa.cast(sa.func.sum(both.c.held), sa.Integer())  # PostgreSQL's sum of large numbers is a decimal
    left = sa.select(*names, shown.label("held")).group_by(*names).subquery("shown")
    of_series = sa.and_(
        series.c.study_instance_uid == left.c.study_instance_uid,
        series.c.series_instance_uid == left.c.series_instance_uid,
    )
    received = sa.select(*(left.c[column.name] for column in place), series.c.modality, left.c.held).join_from(
        left, series, of_series
    )
    ours = (artefact.c.study_instance_uid, artefact.c.series_instance_uid, artefact.c.sop_class_uid)
    results = sa.select(*ours, result_modality, sa.literal(1, sa.Integer())).where(is_asked(ours[0]), result_is_shown)
    return sa.union_all(received, results)


def _hidden(is_asked: Callable[[Column], sa.ColumnElement[bool]]) -> sa.CompoundSelect[Any]:
    """Select each current instance that is rejected or a result come back, once."""
    current = sa.select(
        *(instance.c.study_instance_uid, instance.c.series_instance_uid, instance.c.sop_class_uid),
        instance.c.sop_instance_uid,
    ).where(instance.c.is_current, is_asked(instance.c.study_instance_uid))
    rejected = current.join(rejection, rejection.c.sop_instance_uid == instance.c.sop_instance_uid)
    come_back = current.join(artefact, artefact.c.sop_instance_uid == instance.c.sop_instance_uid)
    return sa.union(
        rejected.where(is_asked(rejection.c.study_instance_uid)),
        come_back.where(is_asked(artefact.c.study_instance_uid), is_result),
    )


def _in_json(column: Column) -> sa.ColumnElement[bool]:
    given = sa.func.json_each(sa.bindparam(_UIDS, type_=sa.String())).table_valued("value")
    return column.in_(sa.select(given.c.value))


def _in_array(column: Column) -> sa.ColumnElement[bool]:
    return column == sa.any_(sa.bindparam(_UIDS, type_=postgresql.ARRAY(sa.String())))
