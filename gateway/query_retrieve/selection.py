"""Which objects a C-MOVE or C-GET asks for (PS3.4 C.4.2.2, C.4.3.2)."""

from __future__ import annotations

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from sqlalchemy.engine import Connection

from gateway.errors import CannotUnderstandError, DataSetMismatchError
from gateway.header import valid_uid
from gateway.query import Level, Query, StoredObject, find, locate, locate_many
from gateway.query_retrieve.model import UNIQUE_KEYS, InformationModel, key_text, level_of, parent_keys

_PATIENT_ID, _STUDY_UID, _SERIES_UID = UNIQUE_KEYS["PATIENT"], UNIQUE_KEYS["STUDY"], UNIQUE_KEYS["SERIES"]
_MOST_UIDS = 5000
_WITHOUT_MORE: frozenset[int] = frozenset()


def select_objects(
    connection: Connection, identifier: Dataset, model: InformationModel, *, is_relational: bool = False
) -> list[StoredObject]:
    """Return the objects, by series and instance number.

    Raises
    ------
    DataSetMismatchError
        The level is not one of the model, or a unique key is missing or wrong (A900).
    """
    level = level_of(identifier, model)
    parents = parent_keys(identifier, level, model, is_relational=is_relational)
    values = _own_keys(identifier, level)
    if level == "PATIENT":
        return [one for uid in _studies_of(connection, values[0]) for one in locate(connection, study_instance_uid=uid)]
    study, series = parents.get(_STUDY_UID), parents.get(_SERIES_UID)
    if level == "STUDY":
        found = [one for uid in values for one in locate(connection, study_instance_uid=uid)]
    elif level == "SERIES":
        found = [one for uid in values for one in locate(connection, study_instance_uid=study, series_instance_uid=uid)]
    else:
        found = locate_many(connection, values)
    found = [
        one for one in found if study in (None, one.study_instance_uid) and series in (None, one.series_instance_uid)
    ]
    return _of_patient(connection, found, parents.get(_PATIENT_ID))


def _own_keys(identifier: Dataset, level: Level) -> list[str]:
    tag = UNIQUE_KEYS[level]
    text = key_text(identifier, tag)
    keyword = keyword_for_tag(tag)
    if not text:
        raise DataSetMismatchError(f"{keyword} is missing")
    if level == "PATIENT":
        if set(text) & {"\\", "*", "?"} or not text.isprintable():
            raise DataSetMismatchError(f"{keyword} must be a single value")
        return [text]
    values = list(dict.fromkeys(text.split("\\")))
    if len(values) > _MOST_UIDS:
        raise DataSetMismatchError(f"{keyword} takes at most {_MOST_UIDS} UIDs")
    try:
        return [valid_uid(value, keyword) for value in values]
    except CannotUnderstandError as error:
        raise DataSetMismatchError(error.comment) from error


def _studies_of(connection: Connection, patient_id: str) -> list[str]:
    query = Query("STUDY", parents={_PATIENT_ID: patient_id}, wanted=_WITHOUT_MORE)
    return [str(match[_STUDY_UID]) for match in find(connection, query)]


def _of_patient(connection: Connection, found: list[StoredObject], patient_id: str | None) -> list[StoredObject]:
    if patient_id is None or not found:
        return found
    theirs = set(_studies_of(connection, patient_id))
    return [one for one in found if one.study_instance_uid in theirs]
