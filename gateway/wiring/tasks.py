"""What writes the Task of a job; loads the models of FHIR, which commands that only list do not need."""

from __future__ import annotations

from fhir_facade.identity import installation_ids
from fhir_facade.task_writer import TaskWriter

from gateway.store import Store


def build_task_writer(store: Store) -> TaskWriter:
    """Return what keeps the Tasks in step."""
    return TaskWriter(installation_ids(store.data_dir))
