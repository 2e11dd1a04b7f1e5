"""Every reference in what is served leads somewhere, at every stage of a study."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from fhir_facade.app import create_app
from fhir_facade.identity import installation_ids
from fhir_facade.parameters import SEARCHED
from fhir_facade.render import FhirRenderer
from fhir_facade.site import Site
from fhir_facade.task_writer import TaskWriter

from gateway.report import render_outcome, render_pictures
from gateway.report.document.render import render_documents
from gateway.store import Store, jobs
from gateway.store.transitions import watch_jobs
from gateway.verification.verify import Verifier
from gateway.worker import Renderers
from gateway.worker.execution import Execution
from tests import verifying
from tests.fhir_references import broken
from tests.unit.report.outcomes import write_xray
from tests.unit.web.serving import served
from tests.working import add_job

TYPES = list(SEARCHED)
ARRIVED = {"Task", "Patient", "ImagingStudy", "Device"}
DONE = ARRIVED | {"DiagnosticReport", "Observation", "Provenance", "Media", "Endpoint", "Organization"}


@pytest.fixture
def study(local_store: Store, tmp_path: Path) -> Store:
    """Give a database with an X-ray that nobody has looked at, whose jobs are followed."""
    watch_jobs(local_store, TaskWriter(installation_ids(local_store.data_dir), UTC))
    folder = tmp_path / "xray"
    folder.mkdir()
    (local_store.data_dir / "instances").mkdir(exist_ok=True)
    return local_store


@pytest.fixture
def client(study: Store) -> Iterator[httpx.Client]:
    """Give a client of its FHIR server."""
    with served(create_app(study, zone=UTC)) as opened:
        yield opened


def renderer(store: Store) -> FhirRenderer:
    """Return a renderer of an installation that knows where it is."""
    site = Site("https://gateway.example", "Hospital")
    return FhirRenderer(installation_ids(store.data_dir), UTC, site, store.data_dir)


def work(store: Store, study_uid: str) -> str:
    """Do a job over the study as the worker does, with all that it leaves."""
    job_id = add_job(store, study_uid, bundle=verifying.BUNDLE)
    with store.write() as connection:
        claim = jobs.claim(connection, job_id, "w1", datetime.now(UTC), 60)
    assert claim is not None
    renderers = Renderers(render_outcome, render_pictures, renderer(store), render_documents)
    model = verifying.Answering([verifying.OUTCOME])
    execution = Execution(store, lambda _: model, renderers, (), lambda: datetime.now(UTC))
    prepared = execution.prepare(claim)
    assert execution.commit(prepared, execution.complete(prepared, execution.publish(prepared, (verifying.OUTCOME,))))
    return job_id


def test_every_reference_leads_somewhere(study: Store, client: httpx.Client, tmp_path: Path) -> None:
    """Before a result, with one, after a person accepted it and rejected it, and after the study was done anew."""
    study_uid = verifying.take_in_all(study, write_xray(tmp_path / "xray"))
    verifier = Verifier(study, renderer(study), render_documents=render_documents)
    stages = []

    add_job(study, study_uid, bundle="another")
    stages.append(broken(client, TYPES))
    job_id = work(study, study_uid)
    stages.append(broken(client, TYPES))
    accepted = verifier.verify(verifying.verdict(job_id, "accept"))
    stages.append(broken(client, TYPES))
    verifier.verify(verifying.verdict(accepted.job_id, "reject", {"comment": "wrong patient"}))
    stages.append(broken(client, TYPES))
    work(study, study_uid)
    stages.append(broken(client, TYPES))

    assert [lost for _held, lost in stages] == [[], [], [], [], []]
    held = [types - {"ServiceRequest"} for types, _lost in stages]
    assert held == [ARRIVED, DONE, DONE, DONE, DONE]
