"""Keeps the Task of each job in step with its row, in the transaction that changes it.

What a Task refers to is written with its first version, as far as the study's rows tell it: the Patient, the
ImagingStudy, the order and this gateway can be read as soon as there is a job. What the headers tell besides comes with
the results, as the next version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

import gateway
from fhir_facade.demographics import Patients
from fhir_facade.gateway_device import gateway_resource
from fhir_facade.identity import ResourceIds
from fhir_facade.imaging_study import Surroundings, imaging_study_resource
from fhir_facade.patient import patient_resource
from fhir_facade.resource import Json
from fhir_facade.service_request import service_request_reference, service_request_resource
from fhir_facade.task import task_resource
from fhir_facade.timing import instant
from fhir_facade.version import new_version
from gateway.job import State
from gateway.store.jobs import get_job
from gateway.store.results import FhirVersion, write_resources
from gateway.store.studies import StudyRow, get_study, list_series
from gateway.store.tables import fhir_resource

_OF_STUDY = frozenset({"ImagingStudy", "ServiceRequest"})


@dataclass(frozen=True, slots=True)
class TaskWriter:
    """Writes a version of the Task (`gateway.store.transitions.OnJob`).

    Parameters
    ----------
    ids
        The installation's ids.
    zone
        The site's zone; None: that of this machine.
    """

    ids: ResourceIds
    zone: tzinfo | None = None

    def __call__(self, connection: Connection, job_id: str, now: datetime, /) -> None:
        """Write the job as it is in this transaction."""
        job = get_job(connection, job_id)
        study = get_study(connection, job.study_instance_uid)
        if job.state is State.QUEUED:
            # Before the Task's own lock: who writes results takes the Patient's first, too.
            self._write_missing(connection, study, now, job_id)
        content = task_resource(job, study, instant(now), self.ids)
        version = new_version(content, self.zone, job.study_instance_uid)
        write_resources(connection, [version], now, job_id=job_id)

    def _write_missing(self, connection: Connection, study: StudyRow, now: datetime, job_id: str) -> None:
        """Write those of the resources that a Task refers to which are not there."""
        missing = [each for each in self._referred(connection, study) if not _is_held(connection, each)]
        if missing:
            contents = Patients(self.ids).beside_images(connection, missing, study, now)
            write_resources(connection, [self._version(each, study) for each in contents], now, job_id=job_id)

    def _referred(self, connection: Connection, study: StudyRow) -> Iterator[Json]:
        order = service_request_resource(study, None, self.ids)
        around = Surroundings(order=service_request_reference(study, self.ids))
        series = list_series(connection, study.study_instance_uid)
        yield patient_resource(study, self.ids)
        yield imaging_study_resource(study, series, self.ids, self.zone, around)
        yield from [order] if order is not None else []
        yield gateway_resource(gateway.__version__, self.ids)

    def _version(self, content: Json, study: StudyRow) -> FhirVersion:
        uid = study.study_instance_uid if content["resourceType"] in _OF_STUDY else None
        return new_version(content, self.zone, uid)


def _is_held(connection: Connection, content: Json) -> bool:
    row = fhir_resource.c
    of_it = (row.type == content["resourceType"], row.resource_id == content["id"], row.is_current)
    return connection.scalar(sa.select(row.id).where(*of_it)) is not None
