"""Keeps the Task of each job in step with its row, in the transaction that changes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo

from sqlalchemy.engine import Connection

from fhir_facade.identity import ResourceIds
from fhir_facade.task import task_resource
from fhir_facade.timing import instant
from fhir_facade.version import new_version
from gateway.store.jobs import get_job
from gateway.store.results import write_resources
from gateway.store.studies import get_study


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
        content = task_resource(job, get_study(connection, job.study_instance_uid), instant(now), self.ids)
        version = new_version(content, self.zone, job.study_instance_uid)
        write_resources(connection, [version], now, job_id=job_id)
