"""Workitems found by matching keys (PS3.4 C.2.2.2 and table CC.2.5-3)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.person_name import fold_group
from gateway.store.tables import job, series, study, workitem
from gateway.workitem.state import READY, job_priorities, job_states
from gateway.workitem.times import parse_dt_range

WORKLIST = "HybridMed"
"""Worklist Label (0074,1202) of workitems whose creator gave none."""
STATION = "HYBRIDMED-WORK"
"""Scheduled Station Name Code: the role that performs jobs."""
_PREFIX = "2.25."
_ESCAPE = "!"
_WILD = re.compile(r"[*?]")

Condition = sa.ColumnElement[bool]
_Match = Callable[[str, bool], Condition]
"""(value, whether the database is SQLite) -> condition."""


def workitem_uid(job_id: str) -> str:
    """Return the SOP Instance UID of a job's workitem, unless its creator chose one (PS3.5 B.2)."""
    return f"{_PREFIX}{uuid.UUID(job_id).int}"


def job_of_uid(uid: str) -> str | None:
    """Return the id of the job whose workitem would have this UID; None where it is of no such form."""
    digits = uid.removeprefix(_PREFIX)
    if digits == uid or not digits.isdecimal() or not digits.isascii() or (number := int(digits)) >> 128:
        return None
    return str(uuid.UUID(int=number))


def has_uid(uids: Sequence[str]) -> Condition:
    """Return the condition that a workitem has one of these SOP Instance UIDs."""
    derived = [found for uid in uids if (found := job_of_uid(uid)) is not None]
    return sa.or_(
        workitem.c.sop_instance_uid.in_(uids),
        sa.and_(workitem.c.sop_instance_uid.is_(None), job.c.id.in_(derived)),
    )


def joined(*columns: Any) -> sa.Select[Any]:
    """Select from jobs, each with its study and with what others wrote into its workitem."""
    return (
        sa.select(*columns)
        .select_from(job)
        .join(study, study.c.study_instance_uid == job.c.study_instance_uid)
        .outerjoin(workitem, workitem.c.job_id == job.c.id)
    )


def conditions(connection: Connection, keys: Mapping[str, str]) -> list[Condition]:
    """Return the conditions of matching keys; ValueError where a value cannot be read, KeyError for an unknown key.

    Parameters
    ----------
    connection
        To the database that will be asked.
    keys
        Keyword, `Sequence.Keyword` within sequences -> value, with wildcards, ranges and lists as in C-FIND; an
        empty value matches everything.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    return [MATCHING[name](value, is_sqlite) for name, value in keys.items() if value not in {"", "*"}]


def matches(connection: Connection, job_id: str, keys: Mapping[str, str]) -> bool:
    """Say whether a job's workitem is taken by matching keys."""
    query = joined(job.c.id).where(job.c.id == job_id, *conditions(connection, keys))
    return connection.scalar(query) is not None


def _text(column: sa.ColumnElement[Any]) -> _Match:
    def condition(value: str, is_sqlite: bool) -> Condition:
        return _like(column, value, is_sqlite) if _WILD.search(value) else column == value

    return condition


def _person_name(folded: sa.ColumnElement[Any]) -> _Match:
    """Match any component group, without regard to case and accents."""
    return lambda value, is_sqlite: _like(folded, f"*={fold_group(value)}=*", is_sqlite)


def _like(column: sa.ColumnElement[Any], pattern: str, is_sqlite: bool) -> Condition:
    """Match a pattern of `*` and `?`, case-sensitive: SQLite's LIKE is not, PostgreSQL has no GLOB."""
    if is_sqlite:
        return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
    for special in (_ESCAPE, "%", "_"):
        pattern = pattern.replace(special, _ESCAPE + special)
    return column.like(pattern.replace("*", "%").replace("?", "_"), escape=_ESCAPE)


def _uids(column: sa.ColumnElement[Any]) -> _Match:
    return lambda value, _: column.in_(_list(value))


def _moment(column: sa.ColumnElement[Any]) -> _Match:
    def condition(value: str, _: bool) -> Condition:
        start, end = parse_dt_range(value)
        bounds = [column >= start] if start is not None else []
        return sa.and_(*bounds, *([column < end] if end is not None else []))

    return condition


def _date(column: sa.ColumnElement[Any]) -> _Match:
    def condition(value: str, _: bool) -> Condition:
        start, dash, end = value.partition("-")
        if not all(part == "" or (part.isdecimal() and len(part) == 8) for part in (start, end)):  # noqa: PLR2004 # DA
            # The value is not said: it is a patient's, and the refusal is logged.
            raise ValueError("a date is YYYYMMDD, or a range of such dates")
        if not dash:
            return column == value
        bounds = [column >= start] if start else []
        return sa.and_(column != "", *bounds, *([column <= end] if end else []))

    return condition


def _states(value: str, _: bool) -> Condition:
    return job.c.state.in_([found for name in _list(value) for found in job_states(name)])


def _priorities(value: str, _: bool) -> Condition:
    return job.c.priority.in_([found for name in _list(value) for found in job_priorities(name)])


def _requested(value: str, is_sqlite: bool) -> Condition:
    of_job = series.c.study_instance_uid == job.c.study_instance_uid
    return sa.exists().where(of_job, _text(series.c.requested_procedure_id)(value, is_sqlite)).correlate(job)


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.replace(",", "\\").split("\\") if part.strip()]


_label = sa.func.coalesce(workitem.c.label, job.c.bundle)
_worklist = sa.func.coalesce(workitem.c.worklist_label, WORKLIST)
_modified = sa.func.coalesce(workitem.c.updated_at, job.c.finished_at, job.c.started_at, job.c.created_at)

MATCHING: Mapping[str, _Match] = {
    "SOPInstanceUID": lambda value, _: has_uid(_list(value)),
    "ProcedureStepState": _states,
    "ProcedureStepLabel": _text(_label),
    "WorklistLabel": _text(_worklist),
    "ScheduledProcedureStepPriority": _priorities,
    "ScheduledProcedureStepStartDateTime": _moment(job.c.available_at),
    "ScheduledProcedureStepModificationDateTime": _moment(_modified),
    "ScheduledWorkitemCodeSequence.CodeValue": _text(job.c.bundle),
    "ScheduledStationNameCodeSequence.CodeValue": _text(sa.literal(STATION)),
    "InputReadinessState": _text(sa.literal(READY)),
    "PatientName": _person_name(study.c.patient_name_folded),
    "PatientID": _text(study.c.patient_id),
    "IssuerOfPatientID": _text(study.c.patient_id_issuer),
    "PatientBirthDate": _date(study.c.patient_birth_date),
    "PatientSex": _text(study.c.patient_sex),
    "AccessionNumber": _text(study.c.accession_number),
    "StudyInstanceUID": _uids(job.c.study_instance_uid),
    "InputInformationSequence.StudyInstanceUID": _uids(job.c.study_instance_uid),
    "ReferencedRequestSequence.StudyInstanceUID": _uids(job.c.study_instance_uid),
    "ReferencedRequestSequence.AccessionNumber": _text(study.c.accession_number),
    "ReferencedRequestSequence.RequestedProcedureID": _requested,
}
"""Matching key -> what makes its condition."""
