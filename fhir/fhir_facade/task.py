"""A job -> Task: its state now; each transition makes a version.

| job | Task |
|---|---|
| queued | `requested`; after a failed try too, with the reason it waits |
| running | `in-progress` |
| done | `completed`, not evaluable among it, with the reason and the report as output |
| dead | `failed`, with the reason |
| cancelled | `cancelled`, with the reason |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fhir_facade.codes import LOCAL_SYSTEM, URI
from fhir_facade.gateway_device import gateway_reference
from fhir_facade.identity import ResourceIds
from fhir_facade.imaging_study import imaging_study_reference
from fhir_facade.patient import patient_reference
from fhir_facade.resource import Json, clean, present, reference
from fhir_facade.service_request import service_request_reference
from fhir_facade.timing import instant
from gateway.job import State
from gateway.store.jobs import JobRow
from gateway.store.studies import StudyRow

_STATUS: Final[Mapping[State, str]] = {
    State.QUEUED: "requested",
    State.RUNNING: "in-progress",
    State.DONE: "completed",
    State.DEAD: "failed",
    State.CANCELLED: "cancelled",
}
_VERIFICATION: Final = "verification"
_REASON_LENGTH = 1000


def task_resource(job: JobRow, study: StudyRow, modified: str, ids: ResourceIds) -> Json:
    """Return the Task; its id is the job's, which is random.

    Parameters
    ----------
    modified
        When the job changed, as a FHIR instant.
    """
    machine = gateway_reference(ids)
    order = service_request_reference(study, ids)
    is_by_person = job.requested_by == _VERIFICATION
    report = ids.make("DiagnosticReport", job.study_instance_uid, job.bundle)
    times = {"start": job.started_at and instant(job.started_at), "end": job.finished_at and instant(job.finished_at)}
    output = {"type": {"text": "Report"}, "valueReference": reference("DiagnosticReport", report)}
    return present(
        {
            "resourceType": "Task",
            "id": job.id,
            "identifier": [{"system": URI, "value": f"urn:uuid:{job.id}"}],
            "basedOn": [order] if order else None,
            "status": _STATUS[job.state],
            "statusReason": {"text": clean(job.reason)[:_REASON_LENGTH]} if job.reason else None,
            "businessStatus": {"text": f"try {job.attempts}"} if job.attempts else None,
            "intent": "order",
            "priority": job.priority,
            "code": _code(job, is_by_person=is_by_person),
            "focus": imaging_study_reference(study, ids),
            "for": patient_reference(study, ids),
            "executionPeriod": present(times),
            "authoredOn": instant(job.created_at),
            "lastModified": modified,
            "requester": machine,
            "owner": _person(job) if is_by_person else machine,
            "input": [
                {"type": {"text": "Bundle"}, "valueString": clean(job.bundle)},
                {"type": {"text": "Revision of the results"}, "valuePositiveInt": job.revision},
            ],
            "output": [output] if job.state is State.DONE else None,
        }
    )


def _code(job: JobRow, *, is_by_person: bool) -> Json:
    if is_by_person:
        code, text = "verify", "Verification of a result by a person"
    else:
        code, text = "evaluate", f"Evaluation of a study by {clean(job.bundle)}"
    return {"coding": [{"system": LOCAL_SYSTEM, "code": code, "display": text}], "text": text}


def _person(job: JobRow) -> Json:
    """Return who verified, by name: 'Curie^Marie' as 'Marie Curie'."""
    name = str((job.verification or {}).get("observer", "")).split("=")[0]
    family, _, given = name.partition("^")
    return {"type": "Practitioner", "display": clean(f"{given.replace('^', ' ')} {family}") or "a person"}
