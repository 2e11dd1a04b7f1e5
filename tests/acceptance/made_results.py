"""Results in the data folder of a running gateway, written as its worker writes them, without the wait for a model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fhir_facade.identity import installation_ids
from fhir_facade.render import FhirRenderer

from gateway.config import Destination
from gateway.report.picture import render_pictures
from gateway.report.render import render_outcome
from gateway.store import jobs, open_store
from gateway.worker import Renderers
from gateway.worker.execution import Execution
from inference.findings import Findings
from tests.verifying import Answering
from tests.working import add_job

_LEASE_S = 60


def write_results(
    data_dir: Path, study: str, outcome: Findings, bundle: str, destinations: Sequence[Destination] = ()
) -> str:
    """Do a job over a study that has arrived, with this outcome; return the job's id."""
    store = open_store(f"sqlite:///{data_dir / 'hybridmed.db'}", data_dir)
    renderers = Renderers(render_outcome, render_pictures, FhirRenderer(installation_ids(data_dir)))
    execution = Execution(store, lambda _: Answering([outcome]), renderers, destinations, lambda: datetime.now(UTC))
    try:
        job_id = add_job(store, study, bundle=bundle, to=[one.name for one in destinations])
        with store.write() as connection:
            claim = jobs.claim(connection, job_id, "test", datetime.now(UTC), _LEASE_S)
        assert claim is not None
        prepared = execution.prepare(claim)
        assert execution.commit(prepared, execution.complete(prepared, execution.publish(prepared, (outcome,))))
    finally:
        store.close()
    return job_id
