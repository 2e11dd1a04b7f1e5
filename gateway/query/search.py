"""Queries: keys -> matches, in a stable order, with one grouped look at the counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.query.attributes import (
    ATTRIBUTES,
    INSTANCE_AVAILABILITY,
    MODALITIES_IN_STUDY,
    PATIENT_ID,
    PATIENT_STUDIES,
    REQUEST_ATTRIBUTES,
    SERIES_INSTANCES,
    SERIES_UID,
    SOP_CLASSES_IN_STUDY,
    SOP_INSTANCE_UID,
    STUDY_INSTANCES,
    STUDY_SERIES,
    STUDY_UID,
    return_tags,
)
from gateway.query.model import Match, Query, Value
from gateway.query.narrowing import few_studies
from gateway.query.plan import STUDY_COUNT, bounds, statement
from gateway.query.tally import StudyTally, tally

Row = sa.Row[Any]
_UNIQUE = frozenset({PATIENT_ID, STUDY_UID, SERIES_UID, SOP_INSTANCE_UID})
_COLUMNS = {each.tag: each.column for each in ATTRIBUTES if each.column is not None and each.sequence is None}
_REQUEST = {each.tag: each.column for each in ATTRIBUTES if each.column and each.sequence == REQUEST_ATTRIBUTES}
_COUNTED: Mapping[int, Callable[[StudyTally], Value]] = {
    MODALITIES_IN_STUDY: lambda study: tuple(sorted(study.modalities)),
    SOP_CLASSES_IN_STUDY: lambda study: tuple(sorted(study.sop_classes)),
    STUDY_SERIES: lambda study: len(study.instances),
    STUDY_INSTANCES: lambda study: sum(study.instances.values()),
}


def find(connection: Connection, query: Query) -> list[Match]:
    """Return what matches: studies the newest first; series and instances of one study by number, of all by UID.

    The order is the same each time, so that pages fit together. `limit` and `offset` make pages of long answers.

    Raises
    ------
    InvalidQueryError
        A key's value is not one that it takes.
    """
    known = return_tags(query.level)
    wanted = known if query.wanted is None else known & (query.wanted | _UNIQUE)
    among = few_studies(connection, query)
    result = connection.execute(statement(query, connection.dialect.name, among), bounds(query))
    make = _Making({name: at for at, name in enumerate(result.keys())}, wanted)
    rows = result.all()
    counts = tally(connection, (row[make.study_uid] for row in rows)) if make.is_counted else {}
    return [make.match(row, counts) for row in rows]


class _Making:
    """Rows -> matches; what is the same for all rows is found out once.

    Parameters
    ----------
    places
        Of the columns in a row.
    wanted
        Tags.
    """

    def __init__(self, places: Mapping[str, int], wanted: frozenset[int]) -> None:
        self.is_counted = bool(wanted & (_COUNTED.keys() | {SERIES_INSTANCES}))
        self._plain = [(tag, places[name]) for tag, name in _COLUMNS.items() if tag in wanted]
        self._counted = [(tag, count) for tag, count in _COUNTED.items() if tag in wanted]
        self._request = (
            [(tag, places[name]) for tag, name in _REQUEST.items()] if REQUEST_ATTRIBUTES in wanted else None
        )
        self._same: Match = {INSTANCE_AVAILABILITY: "ONLINE"} if INSTANCE_AVAILABILITY in wanted else {}
        self._studies = places.get(STUDY_COUNT) if PATIENT_STUDIES in wanted else None
        self.study_uid = places.get("study_instance_uid", -1)
        self._series_uid = places["series_instance_uid"] if SERIES_INSTANCES in wanted else None

    def match(self, row: Row, counts: Mapping[str, StudyTally]) -> Match:
        match: dict[int, Value] = {tag: row[at] for tag, at in self._plain}
        if self.is_counted:
            study = counts.get(row[self.study_uid]) or StudyTally()  # all of it rejected since the first look
            for tag, count in self._counted:
                match[tag] = count(study)
            if self._series_uid is not None:
                match[SERIES_INSTANCES] = study.instances.get(row[self._series_uid], 0)
        if self._request is not None:
            item = {tag: row[at] for tag, at in self._request if row[at]}
            match[REQUEST_ATTRIBUTES] = [item] if item else []
        if self._studies is not None:
            match[PATIENT_STUDIES] = row[self._studies]
        match.update(self._same)
        return match
