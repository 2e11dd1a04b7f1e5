"""Progress and performed procedure (PS3.3 C.30.3 and C.30.4): our workers', or what an external performer wrote."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.job import State
from gateway.store.workitems import WorkitemRow
from gateway.workitem.model import element, items_of, tag_of, text_of, values_of
from gateway.workitem.refusal import Refusal, WorkitemError
from gateway.workitem.state import Content
from gateway.workitem.times import format_dt

PROGRESS = "ProcedureStepProgressInformationSequence"
PERFORMED = "UnifiedProcedureStepPerformedProcedureSequence"
_REASON_LENGTH = 1024
_DESCRIPTION_LENGTH = 64
_DONE_PERCENT = "100"


def is_performed_outside(row: WorkitemRow) -> bool:
    """Say whether what stands under progress and performed is an external performer's."""
    if row.transaction_uid is None or row.job.state is State.QUEUED:
        return False
    if row.job.state is State.RUNNING:
        return row.is_claimed_outside
    return row.job.algorithm is None  # what ran, where one of our workers ended it


def progress(row: WorkitemRow) -> Content | None:
    """Return the item of Procedure Step Progress Information; None while the workitem waits for its first try."""
    written = items_of(row.attributes, PROGRESS) if is_performed_outside(row) else []
    own = dict(written[0]) if written else dict(_own_progress(row))
    if row.job.state in {State.DEAD, State.CANCELLED}:
        own = {**_cancellation(row), **own}
    return own or None


def performed(
    row: WorkitemRow, station: Content, workitem_code: Content, outputs: Sequence[Content] | None
) -> Content | None:
    """Return the item of the performed procedure; None where nobody has begun.

    Parameters
    ----------
    station, workitem_code
        Of our workers.
    outputs
        Items of the Output Information Sequence; None: not done.
    """
    if is_performed_outside(row):
        written = items_of(row.attributes, PERFORMED)
        return written[0] if written else None
    if row.job.started_at is None or row.job.state is State.QUEUED:
        return None
    item = {
        **element("ActualHumanPerformersSequence"),
        **element("PerformedStationNameCodeSequence", station),
        **element("PerformedProcedureStepStartDateTime", format_dt(row.job.started_at)),
        **element("PerformedWorkitemCodeSequence", workitem_code),
        **element("PerformedProcessingParametersSequence", *_algorithm(row)),
        **element("OutputInformationSequence", *(outputs or ())),
    }
    if row.job.finished_at is not None:
        item |= element("PerformedProcedureStepEndDateTime", format_dt(row.job.finished_at))
    if row.job.state is State.DONE and row.job.reason:
        item |= element("PerformedProcedureStepDescription", row.job.reason[:_DESCRIPTION_LENGTH])
    return item


def require_final(row: WorkitemRow) -> int:
    """Return how many result objects a completed workitem names (final state of PS3.4 table CC.2.5-3).

    Raises
    ------
    WorkitemError
        C304: something that a completed workitem must have is not there.
    """
    items = items_of(row.attributes, PERFORMED)
    if len(items) != 1:
        raise _unmet("the Unified Procedure Step Performed Procedure Sequence with one item")
    for keyword in (
        "PerformedStationNameCodeSequence",
        "PerformedWorkitemCodeSequence",
        "PerformedProcedureStepStartDateTime",
        "PerformedProcedureStepEndDateTime",
    ):
        if not values_of(items[0], keyword):
            raise _unmet(keyword)
    if tag_of("OutputInformationSequence") not in items[0]:
        raise _unmet("OutputInformationSequence, empty where nothing was made")
    outputs = items_of(items[0], "OutputInformationSequence")
    return sum(_require_reference(each) for each in outputs)


def _require_reference(item: Content) -> int:
    if not text_of(item, "TypeOfInstances"):
        raise _unmet("TypeOfInstances in each item of OutputInformationSequence")
    references = items_of(item, "ReferencedSOPSequence")
    for keyword in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"):
        if not references or not all(text_of(each, keyword) for each in references):
            raise _unmet(f"{keyword} in each item of OutputInformationSequence")
    return len(references)


def _unmet(what: str) -> WorkitemError:
    return WorkitemError(Refusal.FINAL_STATE_UNMET, f"to be COMPLETED the workitem needs {what}")


def _own_progress(row: WorkitemRow) -> Content:
    job = row.job
    if job.state is State.RUNNING:
        described = (
            f"claimed by {'an external performer' if row.is_claimed_outside else 'a worker'}, try {job.attempts}"
        )
        return element("ProcedureStepProgressDescription", described)
    if job.state is State.DONE:
        return element("ProcedureStepProgress", _DONE_PERCENT)
    if job.state is State.QUEUED and job.reason:
        return element("ProcedureStepProgressDescription", f"waits after: {job.reason}"[:_REASON_LENGTH])
    return {}


def _cancellation(row: WorkitemRow) -> Content:
    """Say when and why: DCM codes of CID 9300."""
    value, meaning = ("110513", "Discontinued for unspecified reason")
    if row.job.state is State.DEAD:
        value, meaning = ("110501", "Equipment failure")
    reason = {
        **element("CodeValue", value),
        **element("CodingSchemeDesignator", "DCM"),
        **element("CodeMeaning", meaning),
    }
    said = {
        **element("ReasonForCancellation", (row.job.reason or "")[:_REASON_LENGTH]),
        **element("ProcedureStepDiscontinuationReasonCodeSequence", reason),
    }
    if row.job.finished_at is not None:
        said |= element("ProcedureStepCancellationDateTime", format_dt(row.job.finished_at))
    return said


def _algorithm(row: WorkitemRow) -> Sequence[Content]:
    """Return what names the algorithm that ran, as text content items (PS3.3 table 10-2)."""
    algorithm = row.job.algorithm or {}
    names = {"name": ("111001", "Algorithm Name"), "version": ("111003", "Algorithm Version")}
    return [
        {
            **element("ValueType", "TEXT"),
            **element(
                "ConceptNameCodeSequence",
                {
                    **element("CodeValue", value),
                    **element("CodingSchemeDesignator", "DCM"),
                    **element("CodeMeaning", meaning),
                },
            ),
            **element("TextValue", str(algorithm[key])),
        }
        for key, (value, meaning) in names.items()
        if algorithm.get(key)
    ]
