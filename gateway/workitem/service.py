"""What can be done with workitems, whoever asks: UPS-RS and DIMSE only spell it (PS3.4 CC.2, PS3.18 chapter 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.dispatcher import Router
from gateway.errors import ConflictError, NotFoundError
from gateway.job import State
from gateway.store import Store, jobs
from gateway.store.studies import StudyRow, get_study, list_series
from gateway.store.workitem_events import Listener, listeners_of, note_created, note_state, write_events
from gateway.store.workitem_query import workitem_uid
from gateway.store.workitems import (
    WorkitemRow,
    Written,
    claim_outside,
    find_workitems,
    finish_outside,
    get_workitem,
    inputs_of,
    is_taken,
    lock_workitem,
    outputs_of,
    predecessor_uid,
    prioritise,
    renew_outside,
    schedule,
    write_workitem,
)
from gateway.workitem.keys import Search, returned
from gateway.workitem.mapping import PERFORMERS_OWN, Origin, References, attributes_of
from gateway.workitem.model import element, tag_of
from gateway.workitem.performed import require_final
from gateway.workitem.refusal import Refusal, WorkitemError
from gateway.workitem.request import (
    Creation,
    Update,
    assignment_of,
    is_modified,
    read_creation,
    read_uid,
    read_update,
)
from gateway.workitem.state import Content, EventType, StepState, step_state

_FURTHEST = timedelta(days=365)
_ATTRIBUTES_BYTES = 1 << 18
_CANCEL_KEYWORDS = (
    "ReasonForCancellation",
    "ProcedureStepDiscontinuationReasonCodeSequence",
    "ContactURI",
    "ContactDisplayName",
)
_INPUT, _PERFORMED, _REPLACED = map(
    tag_of,
    (
        "InputInformationSequence",
        "UnifiedProcedureStepPerformedProcedureSequence",
        "ReplacedProcedureStepSequence",
    ),
)


@dataclass(frozen=True, slots=True)
class Created:
    """A new workitem."""

    uid: str
    is_modified: bool
    """Whether it differs from what was asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer to a search."""

    workitems: tuple[Content, ...]
    has_more: bool


class Workitems:
    """The worklist of the gateway.

    Parameters
    ----------
    store
        Where jobs stand.
    router
        The bundles installed, and where results go.
    lease_s
        How long an external performer may be silent before its workitem is offered again.
    now
        The clock.
    """

    def __init__(
        self, store: Store, router: Router, lease_s: float, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._router = router
        self._lease_s = lease_s
        self._now = now

    def create(self, content: Content, uid: str | None) -> Created:
        """Make a queued job for a bundle over a stored study, with the next revision; WorkitemError where none can be.

        Parameters
        ----------
        content
            What the client wrote.
        uid
            The SOP Instance UID that it chose; None: ours.
        """
        wanted = read_creation(content)
        bundle = self._bundle(wanted)
        if uid is not None:
            uid = read_uid(uid, "the SOP Instance UID")
        with self._store.read() as connection:
            study = _held_study(connection, wanted)
            series = list_series(connection, study.study_instance_uid)
        decision = self._router.route(replace(study, revision=1), series)
        try:
            with self._store.write() as connection:
                if uid is not None and is_taken(connection, uid):
                    raise _exists(uid)
                job_id = jobs.create_job(
                    connection,
                    study_instance_uid=study.study_instance_uid,
                    study_revision=study.revision,
                    bundle=bundle,
                    priority=wanted.priority,
                    destinations=self._router.destinations(decision),
                    requested_by="workitem",
                    now=self._now(),
                )
                self._write_created(connection, job_id, wanted, uid)
                made = get_workitem(connection, uid or workitem_uid(job_id))
        except sa.exc.IntegrityError as error:
            # Another client was faster with the same UID.
            raise _exists(uid or "") from error
        shown = attributes_of(made, References(), Origin("", None))
        return Created(made.uid, is_modified(wanted.given, shown))

    def retrieve(self, uid: str, origin: Origin) -> Content:
        """Return a workitem with all that it refers to; WorkitemError where there is none."""
        with self._store.read() as connection:
            row = _present(get_workitem, connection, uid)
            references = References(
                inputs_of(connection, row),
                outputs_of(connection, [row.job.id]).get(row.job.id, []),
                predecessor_uid(connection, row),
            )
        return attributes_of(row, references, origin)

    def search(self, search: Search, origin: Origin) -> Found:
        """Return the workitems that matching keys take, the newest first; WorkitemError where a key cannot be read."""
        wanted = search.wanted
        with self._store.read() as connection:
            try:
                rows = find_workitems(connection, search.keys, limit=search.limit + 1, offset=search.offset)
            except (ValueError, OverflowError) as error:
                raise WorkitemError(Refusal.INVALID_VALUE, str(error)) from error
            shown = rows[: search.limit]
            outputs = outputs_of(connection, [row.job.id for row in shown]) if _asks(wanted, _PERFORMED) else {}
            references = [
                References(
                    inputs_of(connection, row) if _asks(wanted, _INPUT) else None,
                    outputs.get(row.job.id),
                    predecessor_uid(connection, row) if _asks(wanted, _REPLACED) else None,
                )
                for row in shown
            ]
        found = [attributes_of(row, refers, origin) for row, refers in zip(shown, references, strict=True)]
        return Found(tuple(returned(each, wanted) for each in found), len(rows) > search.limit)

    def update(self, uid: str, content: Content, transaction_uid: str | None) -> None:
        """Change what creator or performer may change; WorkitemError where this one may not."""
        update = read_update(content)
        with self._store.write() as connection:
            row = _present(lock_workitem, connection, uid)
            now = self._now()
            self._require_writable(row, update, transaction_uid)
            if row.is_claimed_outside and not renew_outside(connection, row, now, self._lease_s):
                raise WorkitemError(Refusal.NOT_IN_PROGRESS, "the claim ran out")
            if update.start is not None:
                schedule(connection, row.job.id, self._bounded(update.start))
            if update.priority is not None:
                prioritise(connection, row.job.id, update.priority, now)
            attributes = _bounded_attributes({**row.attributes, **update.kept})
            written = Written(label=update.label, worklist_label=update.worklist_label, attributes=attributes)
            write_workitem(connection, row.job.id, written, now)
            listeners = listeners_of(connection, row.job.id)
            if update.is_progress:
                progress = tag_of("ProcedureStepProgressInformationSequence")
                told = {progress: update.kept[progress]}
                write_events(connection, listeners, row.job.id, EventType.PROGRESS_REPORT, told, now)
            if update.assignment:
                write_events(connection, listeners, row.job.id, EventType.ASSIGNED, update.assignment, now)

    def change_state(self, uid: str, state: str, transaction_uid: str | None) -> StepState | None:
        """Claim, complete or cancel a workitem (PS3.4 CC.2.1).

        Returns
        -------
        StepState | None
            The state where it was already reached: a warning.
        """
        wanted = _wanted_state(state)
        if not transaction_uid:
            raise WorkitemError(Refusal.TRANSACTION_MISSING, "TransactionUID is required")
        transaction_uid = read_uid(transaction_uid, "TransactionUID")
        with self._store.write() as connection:
            row = _present(lock_workitem, connection, uid)
            present = step_state(row.job.state)
            if wanted is StepState.IN_PROGRESS:
                self._claim(connection, row, transaction_uid)
                return None
            if present is wanted:
                return present
            _require_performer(row, transaction_uid)
            if wanted is StepState.COMPLETED:
                self._complete(connection, row)
            else:
                jobs.cancel(connection, row.job.id, self._now(), "cancelled by its performer")
        return None

    def request_cancel(self, uid: str, content: Content, requester: str) -> StepState | None:
        """Cancel what waits or what a worker of ours runs; ask an external performer (PS3.4 CC.2.2).

        Returns
        -------
        StepState | None
            CANCELED where it was so already: a warning.
        """
        with self._store.write() as connection:
            row = _present(lock_workitem, connection, uid)
            now, job_id = self._now(), row.job.id
            present = step_state(row.job.state)
            if present is StepState.CANCELED:
                return present
            if present is StepState.COMPLETED:
                raise WorkitemError(Refusal.COMPLETED, "the workitem is already COMPLETED")
            if row.is_claimed_outside:
                self._ask_performer(connection, row, content, requester)
                return None
            if present is StepState.SCHEDULED:
                note_state(connection, job_id, State.RUNNING, None, now)  # PS3.4 CC.2.2.3: by way of IN PROGRESS
            try:
                jobs.cancel(connection, job_id, now, "cancelled by request")
            except ConflictError as error:  # its results are out
                raise WorkitemError(Refusal.MAY_NOT_BE_UPDATED, str(error)) from error
        return None

    def _bundle(self, wanted: Creation) -> str:
        installed = {offer.name for offer in self._router.offers}
        for name in wanted.candidates:
            if name in installed:
                return name
        names = ", ".join(sorted(installed)) or "none"
        raise WorkitemError(
            Refusal.INVALID_VALUE,
            "no bundle is named by ScheduledWorkitemCodeSequence, ScheduledProcessingParametersSequence or "
            f"ProcedureStepLabel; installed: {names}",
        )

    def _write_created(self, connection: Connection, job_id: str, wanted: Creation, uid: str | None) -> None:
        now, start = self._now(), self._bounded(wanted.start)
        if start > now:
            schedule(connection, job_id, start)
        written = Written(
            sop_instance_uid=uid,
            label=wanted.label,
            worklist_label=wanted.worklist_label,
            attributes=_bounded_attributes(wanted.kept),
        )
        write_workitem(connection, job_id, written, now)
        note_created(connection, job_id, now)
        if assignment := assignment_of(wanted):
            write_events(connection, listeners_of(connection, job_id), job_id, EventType.ASSIGNED, assignment, now)

    def _bounded(self, start: datetime) -> datetime:
        if start > self._now() + _FURTHEST:
            raise WorkitemError(Refusal.INVALID_VALUE, "ScheduledProcedureStepStartDateTime is over a year ahead")
        return start

    def _require_writable(self, row: WorkitemRow, update: Update, transaction_uid: str | None) -> None:
        state = step_state(row.job.state)
        if state in {StepState.COMPLETED, StepState.CANCELED}:
            raise WorkitemError(Refusal.MAY_NOT_BE_UPDATED, f"the workitem is {state} and may no longer be updated")
        if state is StepState.IN_PROGRESS:
            _require_performer(row, transaction_uid)
            if update.touches_schedule:
                raise WorkitemError(Refusal.INVALID_VALUE, "start and priority change only while SCHEDULED")
        elif transaction_uid:
            raise WorkitemError(Refusal.TRANSACTION_WRONG, "nobody has claimed the workitem: leave TransactionUID out")
        elif update.touches_performers_own:
            raise WorkitemError(Refusal.NOT_IN_PROGRESS, "only the performer writes progress and performed procedure")

    def _claim(self, connection: Connection, row: WorkitemRow, transaction_uid: str) -> None:
        state = step_state(row.job.state)
        if state in {StepState.COMPLETED, StepState.CANCELED}:
            raise WorkitemError(Refusal.MAY_NOT_BE_UPDATED, f"the workitem is {state} and cannot be claimed")
        if state is StepState.IN_PROGRESS:
            raise _in_progress()
        now = self._now()
        if claim_outside(connection, row, transaction_uid, now, self._lease_s) is None:
            raise _in_progress()
        kept = {tag: entry for tag, entry in row.attributes.items() if tag not in PERFORMERS_OWN}
        write_workitem(connection, row.job.id, Written(attributes=kept), now)

    def _complete(self, connection: Connection, row: WorkitemRow) -> None:
        objects = require_final(row)
        if not finish_outside(connection, row, self._now(), objects):
            raise WorkitemError(Refusal.TRANSACTION_WRONG, "the claim ran out")

    def _ask_performer(self, connection: Connection, row: WorkitemRow, content: Content, requester: str) -> None:
        listeners: list[Listener] = listeners_of(connection, row.job.id)
        if not listeners:
            raise WorkitemError(Refusal.NO_PERFORMER, "its performer is not subscribed and cannot be told")
        tags = map(tag_of, _CANCEL_KEYWORDS)
        said = {tag: content[tag] for tag in tags if content.get(tag, {}).get("Value")}
        told = {**said, **element("RequestingAE", requester)}
        write_events(connection, listeners, row.job.id, EventType.CANCEL_REQUESTED, told, self._now())


def _present(get: Callable[[Connection, str], WorkitemRow], connection: Connection, uid: str) -> WorkitemRow:
    try:
        return get(connection, uid)
    except NotFoundError as error:
        raise WorkitemError(Refusal.NO_SUCH_WORKITEM, str(error)) from error


def _held_study(connection: Connection, wanted: Creation) -> StudyRow:
    try:
        study = get_study(connection, wanted.study_instance_uid)
    except NotFoundError as error:
        raise WorkitemError(Refusal.UNKNOWN_STUDY, str(error)) from error
    if study.state == "receiving":
        raise WorkitemError(Refusal.UNKNOWN_STUDY, "instances of the study are still arriving: ask when it is complete")
    if wanted.patient_id and wanted.patient_id != study.patient_id:
        raise WorkitemError(Refusal.INVALID_VALUE, "PatientID is not that of the study")
    return study


def _wanted_state(state: str) -> StepState:
    if state == StepState.SCHEDULED:
        raise WorkitemError(Refusal.ONLY_BY_CREATION, "a workitem becomes SCHEDULED only when it is created")
    try:
        return StepState(state)
    except ValueError as error:
        allowed = "IN PROGRESS, COMPLETED or CANCELED"
        raise WorkitemError(Refusal.INVALID_VALUE, f"ProcedureStepState is {allowed}") from error


def _require_performer(row: WorkitemRow, transaction_uid: str | None) -> None:
    """Let through who holds the workitem; a worker of ours has no Transaction UID that anybody could give."""
    state = step_state(row.job.state)
    if state is StepState.SCHEDULED:
        raise WorkitemError(Refusal.NOT_IN_PROGRESS, "the workitem is not yet IN PROGRESS")
    if state is not StepState.IN_PROGRESS:
        raise WorkitemError(Refusal.MAY_NOT_BE_UPDATED, f"the workitem is {state} and may no longer be updated")
    if not transaction_uid:
        raise WorkitemError(Refusal.TRANSACTION_MISSING, "TransactionUID is required")
    if not row.is_claimed_outside or row.transaction_uid != transaction_uid:
        raise WorkitemError(Refusal.TRANSACTION_WRONG, "TransactionUID is not that of the claim")


def _in_progress() -> WorkitemError:
    return WorkitemError(
        Refusal.IN_PROGRESS, "the workitem, or an earlier one that it replaces, is already IN PROGRESS"
    )


def _exists(uid: str) -> WorkitemError:
    return WorkitemError(Refusal.EXISTS, f"a workitem {uid} exists")


def _asks(wanted: frozenset[str] | None, tag: str) -> bool:
    return wanted is None or tag in wanted


def _bounded_attributes(attributes: Content) -> Content:
    if len(orjson.dumps(dict(attributes))) > _ATTRIBUTES_BYTES:
        raise WorkitemError(Refusal.INVALID_VALUE, f"a workitem keeps at most {_ATTRIBUTES_BYTES} bytes of attributes")
    return attributes
