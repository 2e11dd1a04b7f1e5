"""How many objects a study and its series hold, of which SOP classes and modalities."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.query.visible import is_result, result_is_shown, result_modality
from gateway.store.tables import artefact, instance, rejection, series

_STUDIES_PER_QUERY = 500


@dataclass(slots=True)
class StudyTally:
    """Of what is shown of a study."""

    modalities: set[str] = field(default_factory=set)
    sop_classes: set[str] = field(default_factory=set)
    instances: Counter[str] = field(default_factory=Counter)
    """Series Instance UID -> how many; the series that show nothing are not in it."""


def tally(connection: Connection, study_uids: Iterable[str]) -> dict[str, StudyTally]:
    """Count what is shown of these studies; those that show nothing are not in it.

    The current instances of each series are counted in the index alone, and the few that are rejected or are results
    come back are taken off: no look at each instance.
    """
    uids = list(dict.fromkeys(study_uids))
    found: defaultdict[str, StudyTally] = defaultdict(StudyTally)
    for start in range(0, len(uids), _STUDIES_PER_QUERY):
        chunk = uids[start : start + _STUDIES_PER_QUERY]
        _add_received(connection, chunk, found)
        _add_results(connection, chunk, found)
    return dict(found)


def _add_received(connection: Connection, uids: Sequence[str], found: defaultdict[str, StudyTally]) -> None:
    place = (instance.c.study_instance_uid, instance.c.series_instance_uid, instance.c.sop_class_uid)
    current = sa.select(*place, sa.func.count()).where(place[0].in_(uids), instance.c.is_current).group_by(*place)
    counts = {(row[0], row[1], row[2]): row[3] for row in connection.execute(current)}
    for hidden in _hidden(connection, uids):
        counts[hidden] -= 1
    of_study = sa.select(series.c.study_instance_uid, series.c.series_instance_uid, series.c.modality).where(
        series.c.study_instance_uid.in_(uids)
    )
    modalities = {(row[0], row[1]): row[2] for row in connection.execute(of_study)}
    for (study_uid, series_uid, sop_class_uid), count in counts.items():
        if count > 0:
            _add(found[study_uid], series_uid, sop_class_uid, modalities.get((study_uid, series_uid), ""), count)


def _hidden(connection: Connection, uids: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    """Return study, series and SOP class of each current instance that is rejected or a result come back."""
    columns = (
        *(instance.c.study_instance_uid, instance.c.series_instance_uid, instance.c.sop_class_uid),
        instance.c.sop_instance_uid,
    )
    current = sa.select(*columns).where(instance.c.is_current, instance.c.study_instance_uid.in_(uids))
    rejected = current.join(rejection, rejection.c.sop_instance_uid == instance.c.sop_instance_uid).where(
        rejection.c.study_instance_uid.in_(uids)
    )
    come_back = current.join(artefact, artefact.c.sop_instance_uid == instance.c.sop_instance_uid).where(
        artefact.c.study_instance_uid.in_(uids), is_result
    )
    rows = {tuple(row) for row in chain(connection.execute(rejected), connection.execute(come_back))}
    return [(row[0], row[1], row[2]) for row in rows]


def _add_results(connection: Connection, uids: Sequence[str], found: defaultdict[str, StudyTally]) -> None:
    place = (artefact.c.study_instance_uid, artefact.c.series_instance_uid, artefact.c.sop_class_uid)
    query = sa.select(*place, result_modality).where(place[0].in_(uids), result_is_shown)
    for study_uid, series_uid, sop_class_uid, modality in connection.execute(query):
        _add(found[study_uid], series_uid, sop_class_uid, modality, 1)


def _add(study: StudyTally, series_uid: str, sop_class_uid: str, modality: str, count: int) -> None:
    study.instances[series_uid] += count
    study.sop_classes.add(sop_class_uid)
    if modality:
        study.modalities.add(modality)
