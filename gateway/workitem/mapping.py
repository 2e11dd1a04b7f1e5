"""A workitem's row -> its attributes (PS3.4 table CC.2.5-3, PS3.3 C.30), in the DICOM JSON model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from gateway.job import State
from gateway.store.workitem_query import STATION, WORKLIST
from gateway.store.workitems import InstanceReference, WorkitemRow
from gateway.workitem.model import element, tag_of
from gateway.workitem.performed import performed, progress
from gateway.workitem.state import READY, Content, step_priority, step_state
from gateway.workitem.times import format_dt

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
"""SOP Class of every workitem (PS3.4 CC.3.1)."""
SCHEME = "99HYBRIDMED"
_LABEL_LENGTH = 64
PERFORMERS_OWN = frozenset(
    map(tag_of, ("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"))
)
"""What only the performer writes."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where what a workitem names can be retrieved."""

    ae_title: str
    base_url: str | None
    """Of DICOMweb, without a slash at its end; None: no address that others could use is known."""


@dataclass(frozen=True, slots=True)
class References:
    """What a workitem refers to; None: not asked for."""

    inputs: Sequence[InstanceReference] | None = None
    outputs: Sequence[InstanceReference] | None = None
    replaces: str | None = None
    """SOP Instance UID of the workitem of the revision before."""


def code(value: str, meaning: str) -> Content:
    """Return a code sequence item of our own scheme."""
    return {
        **element("CodeValue", value),
        **element("CodingSchemeDesignator", SCHEME),
        **element("CodeMeaning", meaning[:_LABEL_LENGTH]),
    }


def attributes_of(row: WorkitemRow, references: References, origin: Origin) -> Content:
    """Return the attributes of a workitem; the Transaction UID is never among them (PS3.4 CC.2.7.3)."""
    own = {
        **_identity(row, references),
        **_scheduled(row),
        **_patient(row),
        **_request(row),
        **_input(row, references.inputs, origin),
        **element("ProcedureStepState", step_state(row.job.state).value),
        **element("ProcedureStepProgressInformationSequence", *_sequence(progress(row))),
        **element("UnifiedProcedureStepPerformedProcedureSequence", *_sequence(_performed(row, references, origin))),
    }
    written = {tag: entry for tag, entry in row.attributes.items() if tag not in PERFORMERS_OWN}
    return dict(sorted({**own, **written}.items()))


def _sequence(item: Content | None) -> Sequence[Content]:
    return () if item is None else (item,)


def _identity(row: WorkitemRow, references: References) -> Content:
    replaced: Content = {}
    if references.replaces is not None:
        reference = {
            **element("ReferencedSOPClassUID", UPS_PUSH),
            **element("ReferencedSOPInstanceUID", references.replaces),
        }
        replaced = element("ReplacedProcedureStepSequence", reference)
    return {
        **element("SpecificCharacterSet", "ISO_IR 192"),
        **element("SOPClassUID", UPS_PUSH),
        **element("SOPInstanceUID", row.uid),
        **replaced,
    }


def _scheduled(row: WorkitemRow) -> Content:
    job = row.job
    modified = row.updated_at or job.finished_at or job.started_at or job.created_at
    return {
        **element("ScheduledProcedureStepPriority", step_priority(job.priority)),
        **element("ScheduledProcedureStepModificationDateTime", format_dt(modified)),
        **element("ProcedureStepLabel", row.label or job.bundle),
        **element("WorklistLabel", row.worklist_label or WORKLIST),
        **element("ScheduledProcessingParametersSequence"),
        **element("ScheduledStationNameCodeSequence", code(STATION, "HybridMed worker")),
        **element("ScheduledStationClassCodeSequence"),
        **element("ScheduledStationGeographicLocationCodeSequence"),
        **element("ScheduledHumanPerformersSequence"),
        **element("ScheduledProcedureStepStartDateTime", format_dt(job.available_at)),
        **element("ExpectedCompletionDateTime"),
        **element("ScheduledWorkitemCodeSequence", code(job.bundle, job.bundle)),
        **element("CommentsOnTheScheduledProcedureStep"),
        **element("InputReadinessState", READY),
    }


def _patient(row: WorkitemRow) -> Content:
    study = row.study
    return {
        **element("PatientName", study.patient_name),
        **element("PatientID", study.patient_id),
        **element("IssuerOfPatientID", study.patient_id_issuer),
        **element("PatientBirthDate", study.patient_birth_date),
        **element("PatientSex", study.patient_sex),
        **element("AdmissionID"),
        **element("AdmittingDiagnosesDescription"),
        **element("StudyInstanceUID", study.study_instance_uid),
    }


def _request(row: WorkitemRow) -> Content:
    study = row.study
    request = {
        **element("StudyInstanceUID", study.study_instance_uid),
        **element("AccessionNumber", study.accession_number),
        **element("RequestedProcedureDescription", study.study_description[:_LABEL_LENGTH]),
        **element("RequestedProcedureCodeSequence"),
        **element("RequestedProcedureID", row.requested_procedure_id),
        **element("ReferringPhysicianName", study.referring_physician),
    }
    return element("ReferencedRequestSequence", request)


def _input(row: WorkitemRow, inputs: Sequence[InstanceReference] | None, origin: Origin) -> Content:
    if inputs is None:
        return {}
    items = referenced(inputs, origin)
    return element("InputInformationSequence", *items)


def referenced(instances: Sequence[InstanceReference], origin: Origin) -> list[Content]:
    """Return an item of Referenced Instances and Access (PS3.3 table 10-3b) for each series."""

    def of_series(each: InstanceReference) -> tuple[str, str]:
        return each.study_instance_uid, each.series_instance_uid

    items: list[Content] = []
    for (study_uid, series_uid), members in groupby(sorted(instances, key=of_series), key=of_series):
        sops = [
            {
                **element("ReferencedSOPClassUID", each.sop_class_uid),
                **element("ReferencedSOPInstanceUID", each.sop_instance_uid),
            }
            for each in members
        ]
        items.append(
            {
                **element("TypeOfInstances", "DICOM"),
                **element("StudyInstanceUID", study_uid),
                **element("SeriesInstanceUID", series_uid),
                **element("ReferencedSOPSequence", *sops),
                **_retrieval(study_uid, series_uid, origin),
            }
        )
    return items


def _retrieval(study_uid: str, series_uid: str, origin: Origin) -> Content:
    by_ae = element("RetrieveAETitle", origin.ae_title)
    found: Mapping[str, object] = element("DICOMRetrievalSequence", by_ae)
    if origin.base_url is None:
        return found
    url = f"{origin.base_url}/studies/{study_uid}/series/{series_uid}"
    return {**found, **element("WADORSRetrievalSequence", element("RetrieveURL", url))}


def _performed(row: WorkitemRow, references: References, origin: Origin) -> Content | None:
    outputs = None if row.job.state is not State.DONE else referenced(references.outputs or (), origin)
    # A person's word on a result is a job as well.
    by_person = row.job.requested_by == "verification"
    station = code("HYBRIDMED-VERIFY", "Verification by a person") if by_person else code(STATION, "HybridMed worker")
    return performed(row, station, code(row.job.bundle, row.job.bundle), outputs)
