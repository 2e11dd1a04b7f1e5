"""A query -> one SQL statement whose columns are those of `gateway.query.attributes`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import sqlalchemy as sa

from gateway.query.attributes import (
    ATTRIBUTES,
    BY_TAG,
    MODALITIES_IN_STUDY,
    SOP_CLASSES_IN_STUDY,
    STUDY_UID,
    Attribute,
    Level,
    levels_down_to,
    matching_tags,
)
from gateway.query.conditions import Conditions, combined
from gateway.query.criteria import Between, Criterion, OneOf, criterion_of
from gateway.query.levels import BRANCHES, Branch, in_study, modality_in_study
from gateway.query.model import Query
from gateway.query.visible import result_modality
from gateway.store.tables import artefact, instance, series

STUDY_COUNT = "study_count"
"""The column that counts a patient's studies."""
_OFFSET, _LIMIT, _UP_TO = "page_offset", "page_limit", "page_end"
_LONGEST_KEPT = 1024
"""Characters of the values of a search whose statement is kept."""
_DATE_TIMES = ((0x00080020, 0x00080030), (0x00080021, 0x00080031), (0x00400244, 0x00400245))
_FOLDED = {"patient_name": "patient_name_folded", "referring_physician": "referring_physician_folded"}

Asked = tuple[Attribute, Criterion]


class _Search(NamedTuple):
    """What the pages of one search have in common."""

    level: Level
    keys: tuple[tuple[int, str], ...]
    parents: tuple[tuple[int, str], ...]
    is_fuzzy: bool
    is_combined: bool
    is_limited: bool
    dialect_name: str


def statement(query: Query, dialect_name: str, among: Sequence[str] | None = None) -> sa.Select[Any]:
    """Return the statement of a query; its parameters that make the page are those of `bounds`.

    Parameters
    ----------
    among
        The studies that it is about; None: all.

    Raises
    ------
    InvalidQueryError
        A key's value is not one that it takes.
    """
    search = _Search(
        query.level,
        tuple(query.keys.items()),
        tuple(query.parents.items()),
        query.is_fuzzy,
        query.is_combined,
        query.limit is not None,
        dialect_name,
    )
    length = sum(len(value) for _, value in (*search.keys, *search.parents))
    return _kept(search) if among is None and length <= _LONGEST_KEPT else _written(search, among)


def bounds(query: Query) -> dict[str, int]:
    """Return the parameters of a query's statement that say which page of it is wanted."""
    if query.limit is None:
        return {_OFFSET: query.offset}
    return {_OFFSET: query.offset, _LIMIT: query.limit, _UP_TO: query.offset + query.limit}


def _written(search: _Search, among: Sequence[str] | None = None) -> sa.Select[Any]:
    asked = _asked(search)
    if among is not None:
        asked.append((BY_TAG[STUDY_UID], OneOf(tuple(among))))
    conditions = Conditions(search.dialect_name)
    selects = [
        _select(search.level, branch, _conditions(conditions, branch, asked, is_combined=search.is_combined))
        for branch in BRANCHES[search.level]
    ]
    is_of_one_study = any(
        attribute.tag == STUDY_UID and isinstance(criterion, OneOf) and len(criterion.values) == 1
        for attribute, criterion in asked
    )
    if len(selects) > 1 and not is_of_one_study and search.is_limited:
        selects = [_first(search.level, each) for each in selects]
    found = (selects[0] if len(selects) == 1 else sa.union_all(*selects)).subquery("found")
    order = _order(search.level, found.c, is_of_one_study=is_of_one_study)
    page = sa.select(found).order_by(*order).offset(_bound(_OFFSET))
    return page.limit(_bound(_LIMIT)) if search.is_limited else page


_kept = lru_cache(maxsize=128)(_written)
"""Further pages of a search: to write its statement takes as long as to find a page."""


def _bound(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.Integer())


def _asked(search: _Search) -> list[Asked]:
    known = matching_tags(search.level)
    asked: list[Asked] = []
    for tag, value in search.parents:
        attribute = BY_TAG[tag]
        exact = criterion_of(attribute, value) if attribute.vr == "UI" else OneOf((value,))
        asked.append((attribute, exact or OneOf(("",))))
    for tag, value in search.keys:
        if tag in known and (criterion := criterion_of(BY_TAG[tag], value, is_fuzzy=search.is_fuzzy)) is not None:
            asked.append((BY_TAG[tag], criterion))
    return asked


def _conditions(
    writer: Conditions, branch: Branch, asked: Sequence[Asked], *, is_combined: bool
) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    ranges = {each.tag: of for each, of in asked if isinstance(of, Between) and of.is_range}
    taken: set[int] = set()
    for date, time in _DATE_TIMES:
        if is_combined and date in ranges and time in ranges:
            date_column, time_column = (branch.columns[str(BY_TAG[tag].column)] for tag in (date, time))
            conditions.append(combined(date_column, time_column, ranges[date], ranges[time]))
            taken |= {date, time}
    rest = [_condition(writer, branch, each, criterion) for each, criterion in asked if each.tag not in taken]
    return conditions + rest


def _condition(
    writer: Conditions, branch: Branch, attribute: Attribute, criterion: Criterion
) -> sa.ColumnElement[bool]:
    of = partial(writer.of, criterion, vr=attribute.vr)
    if attribute.tag == MODALITIES_IN_STUDY:
        return modality_in_study(of(series.c.modality), of(result_modality))
    if attribute.tag == SOP_CLASSES_IN_STUDY:
        return in_study(of_instance=[of(instance.c.sop_class_uid)], of_result=[of(artefact.c.sop_class_uid)])
    name = str(attribute.column)
    return of(branch.columns[_FOLDED.get(name, name)])


def _select(level: Level, branch: Branch, conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    if level == "PATIENT":
        return _patients(branch, conditions)
    levels = levels_down_to(level)
    names = [each.column for each in ATTRIBUTES if each.column is not None and each.level in levels]
    columns = [branch.columns[name].label(name) for name in names]
    return sa.select(*columns).select_from(branch.source).where(*conditions, branch.is_shown)


def _first(level: Level, select: sa.Select[Any]) -> sa.Select[Any]:
    """Return the first rows of a branch: an index gives them, where a union of whole branches would be sorted."""
    order = _order(level, select.selected_columns, is_of_one_study=False)
    return sa.select(select.order_by(*order).limit(_bound(_UP_TO)).subquery())


def _patients(branch: Branch, conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Group studies to patients: by id and issuer; those without an id by name."""
    c = branch.columns
    groups = (c["patient_id"], c["patient_id_issuer"], sa.case((c["patient_id"] == "", c["patient_name"]), else_=""))
    return (
        sa.select(
            *(c[name].label(name) for name in ("patient_id", "patient_id_issuer")),
            *(sa.func.max(c[name]).label(name) for name in ("patient_name", "patient_birth_date", "patient_sex")),
            sa.func.count().label(STUDY_COUNT),
        )
        .where(*conditions, branch.is_shown)
        .group_by(*groups)
    )


def _order(level: Level, c: Any, *, is_of_one_study: bool) -> tuple[Any, ...]:
    """Return a total order: over many studies one that an index gives, so that a page costs what it shows."""
    if level == "PATIENT":
        return (c.patient_id, c.patient_id_issuer, c.patient_name)
    if level == "STUDY":
        return (c.study_date.desc(), c.study_time.desc(), c.study_instance_uid.desc())
    uids = (c.study_instance_uid, c.series_instance_uid)
    by_series = (c.series_number.nulls_last(), c.series_instance_uid) if is_of_one_study else uids
    if level == "SERIES":
        return by_series
    return (*by_series, *((c.instance_number.nulls_last(),) if is_of_one_study else ()), c.sop_instance_uid)
