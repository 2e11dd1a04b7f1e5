"""What stands in the database of a study and bundle when a new revision is rendered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.media import withdrawn_media
from fhir_facade.observation import withdrawn
from fhir_facade.resource import Json, parse
from fhir_facade.standing import Standing
from gateway.report.fhir_input import FhirInput
from gateway.store import verifications
from gateway.store.results import NewArtefact
from gateway.store.tables import fhir_resource, job
from gateway.verification.verdict import read_verification


def standing_of(connection: Connection, finished: FhirInput) -> Standing:
    """Return what persons said up to now of this study and bundle."""
    job_done = finished.job
    uid, bundle = finished.study.study_instance_uid, job_done.bundle
    words = verifications.words_before(connection, uid, bundle, job_done.revision)
    before = [None if word is None else read_verification(word) for word in words]
    if finished.replaces and not before:
        before = [None]
    return Standing(finished.verification, before)


def objects_of(connection: Connection, finished: FhirInput) -> list[NewArtefact]:
    """Return the DICOM results that hold now: of a verification, also those of the result that it is about."""
    if finished.verification is None:
        return list(finished.artefacts)
    found = verifications.standing(connection, finished.study.study_instance_uid, finished.job.bundle)
    earlier: Sequence[NewArtefact] = [] if found is None else verifications.standing_artefacts(connection, found)
    return [*earlier, *finished.artefacts]


def statuses(connection: Connection, finished: FhirInput) -> dict[str, str]:
    """Return the status that each Observation of earlier revisions has now."""
    return {row.resource_id: parse(row.body)["status"] for row in connection.execute(_rows(finished, "Observation"))}


def current_report(connection: Connection, report_id: str) -> Json | None:
    """Return the report as it stands now; None where there is none."""
    body = connection.scalar(
        sa.select(fhir_resource.c.body).where(
            fhir_resource.c.type == "DiagnosticReport",
            fhir_resource.c.resource_id == report_id,
            fhir_resource.c.is_current,
        )
    )
    return None if body is None else parse(body)


def withdrawn_of(connection: Connection, finished: FhirInput, kept: Collection[str]) -> Iterator[Json]:
    """Yield the Observations and Media of earlier revisions that this one no longer makes.

    Parameters
    ----------
    kept
        Ids of those that it makes, or leaves as they are.
    """
    for resource_type, change in (("Observation", withdrawn), ("Media", withdrawn_media)):
        for row in connection.execute(_rows(finished, resource_type)).all():
            if row.resource_id not in kept:
                yield change(parse(row.body))


def _rows(finished: FhirInput, resource_type: str) -> sa.Select[Any]:
    """Return the query for the current resources of a type, of a study and bundle."""
    return (
        sa.select(fhir_resource.c.resource_id, fhir_resource.c.body)
        .join(job, job.c.id == fhir_resource.c.job_id)
        .where(
            fhir_resource.c.type == resource_type,
            fhir_resource.c.is_current,
            fhir_resource.c.study_instance_uid == finished.study.study_instance_uid,
            job.c.bundle == finished.job.bundle,
        )
        .order_by(fhir_resource.c.id)
    )
