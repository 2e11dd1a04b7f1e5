"""Rare names and modalities: the few studies that have them, so that a page is not looked for among all studies.

A page of what is common is soon full when studies are gone through in their order; of what is rare it is not. So an
index is asked first for a bounded number of studies; where these are all, the query is about them alone.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.query.attributes import BY_TAG, MODALITIES_IN_STUDY, matching_tags
from gateway.query.conditions import Conditions
from gateway.query.criteria import Criterion, criterion_of
from gateway.query.model import Query
from gateway.store.tables import artefact, series, study

FEW = 1000
"""Studies that a query is narrowed to at most."""
_PATIENT_NAME = 0x00100010


def few_studies(connection: Connection, query: Query, most: int = FEW) -> list[str] | None:
    """Return the studies among which all matches are, in the order of their UIDs; None where they are not few."""
    index = _Index(connection, most)
    few: set[str] | None = None
    for tag in (_PATIENT_NAME, MODALITIES_IN_STUDY):
        value = query.keys.get(tag) if tag in matching_tags(query.level) else None
        criterion = criterion_of(BY_TAG[tag], value, is_fuzzy=query.is_fuzzy) if value is not None else None
        if criterion is None:
            continue
        uids = index.with_name(criterion) if tag == _PATIENT_NAME else index.with_modality(criterion)
        if uids is not None:
            few = uids if few is None else few & uids
    return None if few is None else sorted(few)


class _Index:
    """Looks for studies in one index, up to a bound; None where there are more."""

    def __init__(self, connection: Connection, most: int) -> None:
        self._connection = connection
        self._most = most
        self._writer = Conditions(connection.dialect.name)

    def with_name(self, criterion: Criterion) -> set[str] | None:
        condition = self._writer.of(criterion, study.c.patient_name_folded, "PN")
        return self._few(sa.select(study.c.study_instance_uid).where(condition))

    def with_modality(self, criterion: Criterion) -> set[str] | None:
        received = sa.select(series.c.study_instance_uid).where(self._writer.of(criterion, series.c.modality, "CS"))
        theirs = self._few(received.distinct())
        if theirs is None:
            return None
        # Rows of earlier versions do not say their modality: they are among the candidates.
        fitting = sa.or_(self._writer.of(criterion, artefact.c.modality, "CS"), artefact.c.modality.is_(None))
        ours = self._few(sa.select(artefact.c.study_instance_uid).where(fitting).distinct())
        return None if ours is None else theirs | ours

    def _few(self, select: sa.Select[Any]) -> set[str] | None:
        uids = self._connection.scalars(select.limit(self._most + 1)).all()
        return set(uids) if len(uids) <= self._most else None
