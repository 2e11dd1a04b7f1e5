"""The Task of a job is in step with its row: written in the transaction that changes it, a version for each change."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app
from fhir_facade.identity import ResourceIds
from fhir_facade.task_writer import TaskWriter

from gateway.job import State
from gateway.store import Store, jobs
from gateway.store.tables import fhir_resource
from gateway.store.transitions import watch_jobs
from gateway.store.urgency import raise_to_stat
from tests.fhir_references import references
from tests.stores import NOON, add_instance, add_series, add_study
from tests.unit.fhir import node
from tests.unit.web.serving import served

IDS = ResourceIds(uuid.UUID(int=7))
STUDY = "1.2.3"


@pytest.fixture
def followed(store: Store) -> Store:
    """Give a database with one study, whose jobs are followed."""
    watch_jobs(store, TaskWriter(IDS))
    with store.write() as connection:
        add_study(connection, STUDY, patient_id="P1", accession_number="A1")
    return store


def make(connection: sa.Connection) -> str:
    """Make a job of the study."""
    return jobs.create_job(
        connection,
        study_instance_uid=STUDY,
        study_revision=1,
        bundle="cxr",
        priority="routine",
        destinations=(),
        requested_by="dispatch",
        now=NOON,
    )


def versions(store: Store, job_id: str) -> list[dict[str, Any]]:
    """Return all versions of a job's Task, the first before the next."""
    query = sa.select(fhir_resource.c.body).where(fhir_resource.c.resource_id == job_id, fhir_resource.c.type == "Task")
    with store.read() as connection:
        return [json.loads(body) for body in connection.scalars(query.order_by(fhir_resource.c.version))]


def test_each_transition_is_a_version(followed: Store, tmp_path: Path) -> None:
    """Requested, in progress, waiting after a failed try, raised, in progress, completed: each valid R4."""
    with followed.write() as connection:
        job_id = make(connection)
    for step in ("fails", "ends"):
        with followed.write() as connection:
            claimed = jobs.claim(connection, job_id, "w", NOON, 60)
            assert claimed is not None
        with followed.write() as connection:
            if step == "fails":
                jobs.release_for_retry(connection, claimed, NOON, "the disk is full", timedelta(0))
                raise_to_stat(connection, STUDY, NOON)
            else:
                jobs.finish(connection, claimed, NOON, algorithm=None, summary={}, reason="not evaluable: lateral")

    made = versions(followed, job_id)

    assert [each["status"] for each in made] == [
        *("requested", "in-progress", "requested", "requested", "in-progress", "completed"),
    ]
    assert [each["priority"] for each in made[2:4]] == ["routine", "stat"]
    assert made[2]["statusReason"] == {"text": "the disk is full"}
    assert made[-1]["statusReason"] == {"text": "not evaluable: lateral"}
    assert made[-1]["output"][0]["valueReference"]["reference"] == (
        f"DiagnosticReport/{IDS.make('DiagnosticReport', STUDY, 'cxr')}"
    )
    assert "output" not in made[-2]
    assert node.complaints(made, tmp_path) == []


def test_a_failure_and_a_cancellation_tell_why(followed: Store) -> None:
    """Dead is failed; a job that a newer one takes the place of is cancelled; a retry is requested again."""
    with followed.write() as connection:
        replaced = make(connection)
        job_id = make(connection)
        claimed = jobs.claim(connection, job_id, "w", NOON, 60)
        assert claimed is not None
        jobs.kill(connection, claimed, NOON, "the model is gone")
        jobs.retry_dead(connection, job_id, NOON)

    failed = versions(followed, job_id)[-2]

    assert (failed["status"], failed["statusReason"]) == ("failed", {"text": "the model is gone"})
    assert versions(followed, job_id)[-1]["status"] == "requested"
    assert versions(followed, replaced)[-1]["status"] == "cancelled"


def test_what_is_rolled_back_has_no_version(followed: Store) -> None:
    """The Task says nothing of a claim that was not committed."""
    with followed.write() as connection:
        job_id = make(connection)
    with pytest.raises(RuntimeError), followed.write() as connection:
        assert jobs.claim(connection, job_id, "w", NOON, 60) is not None
        raise RuntimeError

    assert [each["status"] for each in versions(followed, job_id)] == ["requested"]
    with followed.read() as connection:
        assert jobs.get_job(connection, job_id).state is State.QUEUED


def test_what_a_task_refers_to_is_there_before_any_result(followed: Store, tmp_path: Path) -> None:
    """Patient, study, order and gateway are read as soon as there is a job, and found by pollers."""
    with followed.write() as connection:
        add_series(connection, STUDY, f"{STUDY}.1", "CT")
        add_instance(connection, STUDY, f"{STUDY}.1", f"{STUDY}.1.1")
        task = make(connection)
        make(connection)
    with served(create_app(followed, zone=UTC)) as http:
        content = http.get(f"/Task/{task}").json()
        named = {name for each in versions(followed, task) for name in references(each)}
        found = [http.get(f"/{name}").json() for name in sorted(named)]
        polled = http.get("/ImagingStudy?modality=CT&_lastUpdated=gt2020&patient.identifier=P1").json()

    assert content["status"] == "cancelled"
    assert [each["resourceType"] for each in found] == ["Device", "ImagingStudy", "Patient", "ServiceRequest"]
    assert [each["meta"]["versionId"] for each in found] == ["1", "1", "1", "1"]
    assert [each["resource"]["id"] for each in polled["entry"]] == [IDS.make("ImagingStudy", STUDY)]
    assert node.complaints(found, tmp_path) == []
