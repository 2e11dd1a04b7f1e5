"""What is being rendered, and the UIDs that follow from it.

A retry of one job derives the same UIDs (the pledge 'once'); a reprocess is another job and so derives others.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

_TIMEZONE_LENGTH = 5


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """One stored DICOM object (PS3.3 table 10-11, SOP Instance Reference)."""

    kind: str
    """'sr-findings', 'sr-measurements', 'seg', 'heatmap-<class>'."""
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """One job's rendering."""

    job_id: uuid.UUID
    revision: int
    """From 1; counts the results of this study and bundle."""
    study_instance_uid: str
    rendered_at: datetime
    """Aware; becomes content date and time."""
    replaces: tuple[ObjectReference, ...] = ()
    """The objects of the revision that this one replaces (Predecessor Documents Sequence)."""
    timezone_offset: str | None = None


def derived_uid(job_id: uuid.UUID, revision: int, role: str) -> str:
    """Return the UID of one role in one job's results: '2.25.' and a name-based UUID (PS3.5 B.2).

    Parameters
    ----------
    job_id, revision
        The job and the revision of its results.
    role
        What the UID names, for example 'series/sr', 'instance/seg', 'tracking/lung-left'.
    """
    return f"2.25.{uuid.uuid5(job_id, f'{revision}/{role}').int}"


def zone(offset: str | None) -> timezone | None:
    """Return '+0130' as a time zone; None for what is no such offset."""
    text = str(offset or "").strip()
    if len(text) != _TIMEZONE_LENGTH or text[0] not in "+-" or not text[1:].isdecimal():
        return None
    delta = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(-delta if text[0] == "-" else delta) if delta < timedelta(hours=24) else None
