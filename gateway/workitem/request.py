"""What clients write: a new workitem (PS3.4 CC.2.5), an update (CC.2.6), a change of state (CC.2.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.job import Priority
from gateway.workitem.mapping import PERFORMERS_OWN
from gateway.workitem.model import items_of, tag_of, text_of, values_of
from gateway.workitem.refusal import Refusal, WorkitemError
from gateway.workitem.state import Content, StepState, job_priorities
from gateway.workitem.times import parse_dt

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
_UID_LENGTH = 64
_LABEL_LENGTH = 64
_KEPT = frozenset(
    map(
        tag_of,
        (
            "ScheduledProcessingParametersSequence",
            "ScheduledStationNameCodeSequence",
            "ScheduledStationClassCodeSequence",
            "ScheduledStationGeographicLocationCodeSequence",
            "ScheduledHumanPerformersSequence",
            "ExpectedCompletionDateTime",
            "CommentsOnTheScheduledProcedureStep",
            "AdmissionID",
            "AdmittingDiagnosesDescription",
        ),
    )
)
"""What is kept as it was written, by whoever schedules; all else follows from the study and the job."""
_OWN_COLUMNS = frozenset(
    map(
        tag_of,
        (
            "ProcedureStepLabel",
            "WorklistLabel",
            "ScheduledProcedureStepPriority",
            "ScheduledProcedureStepStartDateTime",
        ),
    )
)
_UNMINDED = frozenset(map(tag_of, ("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "TransactionUID")))
_ASSIGNS = frozenset(map(tag_of, ("ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence")))
_REQUIRED = (
    "ScheduledProcedureStepPriority",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "InputReadinessState",
    "ProcedureStepState",
)
"""Type 1 of N-CREATE (PS3.4 table CC.2.5-3)."""


@dataclass(frozen=True, slots=True)
class Creation:
    """A new workitem that a client asks for."""

    study_instance_uid: str
    candidates: tuple[str, ...]
    """What may name the bundle, in the order in which it is looked for."""
    patient_id: str
    label: str
    worklist_label: str | None
    priority: Priority
    start: datetime
    kept: Content
    given: Content


@dataclass(frozen=True, slots=True)
class Update:
    """What an update changes."""

    label: str | None
    worklist_label: str | None
    priority: Priority | None
    start: datetime | None
    kept: Content
    """Replaces what stands under the same tags."""

    @property
    def is_progress(self) -> bool:
        """Whether the performer tells its progress."""
        return tag_of("ProcedureStepProgressInformationSequence") in self.kept

    @property
    def touches_performers_own(self) -> bool:
        """Whether it writes what only the performer may write."""
        return not PERFORMERS_OWN.isdisjoint(self.kept)

    @property
    def assignment(self) -> Content:
        """Whom it assigns the workitem to, as a UPS Assigned event says it."""
        return {tag: entry for tag, entry in self.kept.items() if tag in _ASSIGNS and entry.get("Value")}

    @property
    def touches_schedule(self) -> bool:
        """Whether it moves what only a waiting workitem can have moved."""
        return self.priority is not None or self.start is not None


def read_creation(content: Content) -> Creation:
    """Return what a new workitem asks for; WorkitemError says what is missing or wrong."""
    for keyword in _REQUIRED:
        if not values_of(content, keyword):
            raise WorkitemError(Refusal.MISSING_ATTRIBUTE, f"{keyword} is required")
    if text_of(content, "ProcedureStepState") != StepState.SCHEDULED:
        raise WorkitemError(Refusal.NOT_SCHEDULED, "ProcedureStepState of a new workitem must be SCHEDULED")
    return Creation(
        study_instance_uid=_study(content),
        candidates=_candidates(content),
        patient_id=text_of(content, "PatientID"),
        label=_label(content, "ProcedureStepLabel"),
        worklist_label=_label(content, "WorklistLabel") or None,
        priority=_priority(content),
        start=_start(content),
        kept={tag: entry for tag, entry in content.items() if tag in _KEPT and entry.get("Value")},
        given=content,
    )


def is_modified(given: Content, made: Content) -> bool:
    """Say whether a workitem differs from what its creator gave, so that the creator is told."""
    ours = _UNMINDED | {tag_of("InputInformationSequence"), tag_of("ScheduledProcedureStepStartDateTime")}
    return any(
        entry.get("Value") and entry.get("Value") != made.get(tag, {}).get("Value")
        for tag, entry in given.items()
        if tag not in ours
    )


def assignment_of(creation: Creation) -> Content:
    """Return whom a new workitem is assigned to."""
    return {tag: entry for tag, entry in creation.kept.items() if tag in _ASSIGNS}


def read_update(content: Content) -> Update:
    """Return what an update changes; WorkitemError where it may not be changed so."""
    strange = sorted(set(content) - _KEPT - _OWN_COLUMNS - PERFORMERS_OWN - _UNMINDED)
    if strange:
        raise _invalid(f"({strange[0][:4]},{strange[0][4:]}) cannot be changed by an update")
    kept = {tag: entry for tag, entry in content.items() if tag in _KEPT | PERFORMERS_OWN}
    if not kept and _OWN_COLUMNS.isdisjoint(content):
        raise _invalid("the update changes nothing")
    has = {name for name in _OWN_COLUMNS if name in content}
    return Update(
        label=_label(content, "ProcedureStepLabel") or None,
        worklist_label=_label(content, "WorklistLabel") or None,
        priority=_priority(content) if tag_of("ScheduledProcedureStepPriority") in has else None,
        start=_start(content) if tag_of("ScheduledProcedureStepStartDateTime") in has else None,
        kept=kept,
    )


def read_uid(value: object, what: str) -> str:
    """Return a UID (PS3.5 9.1); WorkitemError where it is none."""
    text = str(value).strip()
    if len(text) > _UID_LENGTH or _UID.fullmatch(text) is None:
        raise _invalid(f"{what} is not a UID")
    return text


def _study(content: Content) -> str:
    """Return the study that the input, or else the request, names."""
    sources: Sequence[Sequence[Content]] = (
        items_of(content, "InputInformationSequence"),
        items_of(content, "ReferencedRequestSequence"),
        (content,),
    )
    for source in sources:
        uids = {uid for item in source if (uid := text_of(item, "StudyInstanceUID"))}
        if len(uids) > 1:
            raise _invalid("a workitem's input must be of one study")
        if uids:
            return read_uid(uids.pop(), "StudyInstanceUID")
    raise WorkitemError(
        Refusal.MISSING_ATTRIBUTE, "InputInformationSequence must name the study by its StudyInstanceUID"
    )


def _candidates(content: Content) -> tuple[str, ...]:
    """Return what may name the bundle: workitem code, processing parameters, label."""
    codes = [text_of(item, "CodeValue") for item in items_of(content, "ScheduledWorkitemCodeSequence")]
    parameters = [text_of(item, "TextValue") for item in items_of(content, "ScheduledProcessingParametersSequence")]
    found = (*codes, *parameters, text_of(content, "ProcedureStepLabel"))
    return tuple(dict.fromkeys(each for each in found if each))


def _label(content: Content, keyword: str) -> str:
    text = text_of(content, keyword)
    if len(text) > _LABEL_LENGTH:
        raise _invalid(f"{keyword} has at most {_LABEL_LENGTH} characters")
    return text


def _priority(content: Content) -> Priority:
    """Return the job's priority; LOW, which no job has, becomes routine, and the client is told so."""
    text = text_of(content, "ScheduledProcedureStepPriority")
    if text not in {"HIGH", "MEDIUM", "LOW"}:
        raise _invalid("ScheduledProcedureStepPriority is HIGH, MEDIUM or LOW")
    return next(iter(job_priorities(text)), "routine")


def _start(content: Content) -> datetime:
    try:
        return parse_dt(text_of(content, "ScheduledProcedureStepStartDateTime"))[0]
    except (ValueError, OverflowError) as error:
        raise _invalid("ScheduledProcedureStepStartDateTime is not a DICOM date and time") from error


def _invalid(sentence: str) -> WorkitemError:
    return WorkitemError(Refusal.INVALID_VALUE, sentence)
