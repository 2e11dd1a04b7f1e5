"""Queries: keys -> matches, in a stable order, with one grouped look at the counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy.engine import Connection, RowMapping

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
from gateway.query.plan import STUDY_COUNT, statement
from gateway.query.tally import StudyTally, tally

Row = RowMapping
_UNIQUE = frozenset({PATIENT_ID, STUDY_UID, SERIES_UID, SOP_INSTANCE_UID})
_COLUMNS = {each.tag: each.column for each in ATTRIBUTES if each.column is not None and each.sequence is None}
_REQUEST = {each.tag: each.column for each in ATTRIBUTES if each.column and each.sequence == REQUEST_ATTRIBUTES}
_COUNTED: Mapping[int, Callable[[StudyTally, Row], Value]] = {
    MODALITIES_IN_STUDY: lambda study, _row: sorted(study.modalities),
    SOP_CLASSES_IN_STUDY: lambda study, _row: sorted(study.sop_classes),
    STUDY_SERIES: lambda study, _row: len(study.instances),
    STUDY_INSTANCES: lambda study, _row: study.instances.total(),
    SERIES_INSTANCES: lambda study, row: study.instances[row["series_instance_uid"]],
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
    result = connection.execute(statement(query, connection.dialect.name, few_studies(connection, query)))
    rows = [row._mapping for row in result]
    counts = tally(connection, (row["study_instance_uid"] for row in rows)) if wanted & _COUNTED.keys() else {}
    return [_match(row, wanted, counts) for row in rows]


def _match(row: Row, wanted: frozenset[int], counts: Mapping[str, StudyTally]) -> Match:
    match: dict[int, Value] = {tag: row[name] for tag, name in _COLUMNS.items() if tag in wanted}
    if wanted & _COUNTED.keys():
        study = counts.get(row["study_instance_uid"]) or StudyTally()  # all of it rejected since the first look
        match |= {tag: count(study, row) for tag, count in _COUNTED.items() if tag in wanted}
    if REQUEST_ATTRIBUTES in wanted:
        item = {tag: row[name] for tag, name in _REQUEST.items() if row[name]}
        match[REQUEST_ATTRIBUTES] = [item] if item else []
    if INSTANCE_AVAILABILITY in wanted:
        match[INSTANCE_AVAILABILITY] = "ONLINE"
    if PATIENT_STUDIES in wanted and STUDY_COUNT in row:
        match[PATIENT_STUDIES] = row[STUDY_COUNT]
    return match
