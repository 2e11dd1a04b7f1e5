"""What others wrote of patients and orders, and where it differs from what the images say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import upsert
from gateway.store.tables import demographic_issue, fhir_written


@dataclass(frozen=True, slots=True)
class DemographicIssue:
    """A study whose images say otherwise than somebody who wrote of its patient or order."""

    study_instance_uid: str
    patient: str
    """Id of the FHIR Patient."""
    elements: Sequence[str]
    """Names of the elements that differ; never their values."""
    source: str
    noted_at: datetime


def keep_written(  # noqa: PLR0913, PLR0917 # the columns of a row
    connection: Connection, resource_type: str, resource_id: str, body: bytes, source: str, now: datetime
) -> None:
    """Keep what was written; what was written before is replaced."""
    row = {"type": resource_type, "resource_id": resource_id, "body": body, "source": source[:128], "written_at": now}
    upsert(connection, fhir_written, row, keys=["type", "resource_id"], update=["body", "source", "written_at"])


def find_written(connection: Connection, resource_type: str, resource_id: str) -> tuple[bytes, str] | None:
    """Return what was written of a resource, and by whom; None where nothing was."""
    query = sa.select(fhir_written.c.body, fhir_written.c.source).where(
        fhir_written.c.type == resource_type, fhir_written.c.resource_id == resource_id
    )
    row = connection.execute(query).first()
    return None if row is None else (row.body, row.source)


def note_issue(connection: Connection, issue: DemographicIssue) -> None:
    """Note where a study differs; nothing is left noted where no element does."""
    if not issue.elements:
        of_study = demographic_issue.c.study_instance_uid == issue.study_instance_uid
        connection.execute(sa.delete(demographic_issue).where(of_study))
        return
    row = {field.name: getattr(issue, field.name) for field in fields(DemographicIssue)}
    row["elements"] = sorted(issue.elements)
    columns = ["patient", "elements", "source", "noted_at"]
    upsert(connection, demographic_issue, row, keys=["study_instance_uid"], update=columns)


def issue_of_study(connection: Connection, study_instance_uid: str) -> DemographicIssue | None:
    """Return what differs in a study; None where nothing does."""
    row = connection.execute(_issues().where(demographic_issue.c.study_instance_uid == study_instance_uid)).first()
    return None if row is None else DemographicIssue(**row._mapping)


def issues_of_patient(connection: Connection, patient: str) -> list[DemographicIssue]:
    """Return what differs in the studies of a patient, given by the id of its resource."""
    rows = connection.execute(_issues().where(demographic_issue.c.patient == patient))
    return [DemographicIssue(**row._mapping) for row in rows]


def _issues() -> sa.Select[Any]:
    query = sa.select(*(demographic_issue.c[field.name] for field in fields(DemographicIssue)))
    return query.order_by(demographic_issue.c.study_instance_uid)
